"""Kiln and other systems side by side, in one run on one machine, and the table of ratios that README.md shows.

    python compare.py --peers PEERS.py --python V/bin/python [--tf-python T/bin/python] [--kiln target/release/kiln]
        [--workloads REGEX] [--engines REGEX] [--threads 1,2] [--repeat 3] [--lock CMD] --out FILE.jsonl
    python compare.py --out FILE.jsonl --table [--readme README.md]

PEERS.py is a program that is no part of this repository. It has `W`, a dict from workloads to their engines, `data_for`,
which makes a workload's inputs, and as a command `WORKLOAD ENGINE --threads N` it prints one JSON object with `median_ms`,
`rel_err` and `peak_rss_mb`. What it has prepared lies in $PEERS_CACHE: WORKLOAD.npz with weights `w:*`, `ref` and, for
training, the first batches `x` and `y`.

For each workload and number of threads, Kiln and each engine run in turn, `--repeat` times; a ratio is one of medians over
the repeats. Kiln's results are checked first: an inference against `ref` (or numpy in binary64), a training by its first
five losses. Each run is pinned to as many processors as it has threads. Every run is one line of FILE.jsonl; what is there
already is not run again. Needs numpy.
"""

import argparse
import importlib.util
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODELS, KERNELS = "examples/models/", "examples/kernels/"
INFERENCE_TOLERANCE = 1e-3
# PyTorch with channels last differs from itself without by 1.3e-3 within five steps of resnet18_train.
LOSS_TOLERANCE = 2e-3
CHECKED_STEPS = 5
# Processors that other programs may keep busy, and how often a run is tried that they disturb.
DISTURBED, MOST_RUNS = 0.1, 3
# A script holds out one example in five, from the fourth on, unless it says otherwise.
HELD_OUT_EVERY, HELD_OUT = 5, 4

# Workload: script, names of its inputs, names of those inputs in the prepared data.
TRAINING = {
    r"mlp_train": ("mlp", ["x", "label"]),
    r"cnn_train_b\d+": ("cnn", ["x", "label"]),
    r"resnet18_train": ("resnet18_cifar", ["x", "label"]),
    r"gpt_small_train": ("gpt_small", ["x", "y"]),
    r"dcgan_train": ("dcgan", ["x", "z"]),
}
INFERENCE = {
    r"cnn_infer_b\d+": ("cnn", "x"),
    r"bert_base_infer": ("bert_base", "ids"),
    r"(alexnet|vgg16|resnet18|resnet50|mobilenetv2)_infer": (r"\1", "x"),
}


class Failed(Exception):
    """A run that gave no figures."""


# ------------------------------------------------------------------ workloads
class Workload:
    """How Kiln runs a workload: arguments of `kiln bench`, its results, and what they should be.

    `results(*flags)` is what a run computes, and the file that holds it; `expected` goes with the first."""

    def __init__(self, name, options, peers, folder):
        self.name, self.options, self.peers, self.folder = name, options, peers, folder
        self.arguments, self.results, self.expected, self.tolerance = self.plan()

    def check(self):
        """The relative error of the results."""
        error = relative_error(self.results()[0], self.expected())
        if not error <= self.tolerance:
            raise Failed(f"its results are wrong: relative error {error:.2g}")
        return error

    def check_bits(self):
        """Whether the results are the same, bit by bit, whatever the number of threads."""
        files = [open(self.results("--threads", count)[1], "rb").read() for count in ["1", "2", "3"]]
        if files[1:] != files[:1] * 2:
            raise Failed("its results depend on the number of threads")

    def plan(self):
        for pattern, (script, names) in TRAINING.items():
            if re.fullmatch(pattern, self.name):
                return self.training(MODELS + script + ".kiln", names)
        for pattern, (script, name) in INFERENCE.items():
            if found := re.fullmatch(pattern, self.name):
                return self.inference(MODELS + found.expand(script) + ".kiln", name)
        if found := re.fullmatch(r"gemm_(\d+)(?:x(\d+)x(\d+))?", self.name):
            return self.gemm(*(int(size or found[1]) for size in found.groups()))
        return self.kernel()

    def prepared(self):
        path = os.path.join(os.environ["PEERS_CACHE"], self.name + ".npz")
        if not os.path.exists(path):
            raise Failed(f"{path} is missing: prepare it with `{self.options.peers} prep {self.name}`")
        return path

    def save(self, name, array):
        path = os.path.join(self.folder, f"{self.name}.{name}.npy")
        np.save(path, array)
        return path

    def training(self, script, names):
        weights = self.prepared()
        data = np.load(weights)
        batches = [data["x"], data["y"]]
        size = batches[0].shape[1]
        inputs = []
        for name, batch in zip(names, batches):
            inputs += ["--input", f"{name}={self.save(name, batch[0])}"]
        arguments = [script, "--train", "--bind", f"batch={size}", "--weights", weights] + inputs

        def results(*flags):
            rows = {name: in_order(batch, script) for name, batch in zip(names, batches)}
            path = os.path.join(self.folder, self.name + ".npz")
            np.savez(path, **rows)
            out = os.path.join(self.folder, self.name)
            command = [script, "--data", path, "--weights", weights, "--batch", str(size), "--no-shuffle", "--json"]
            command += ["--steps", str(CHECKED_STEPS), "--out", out + ".safetensors", "--plot", out + ".svg", *flags]
            return self.kiln("train", command)["losses"][:CHECKED_STEPS], out + ".safetensors"

        return arguments, results, lambda: data["ref"], LOSS_TOLERANCE

    def inference(self, script, name):
        weights = self.prepared()
        data = np.load(weights)
        given = ["--input", f"{name}={self.save(name, data['x'])}"]
        arguments = [script, "--weights", weights] + given
        return arguments, self.output(arguments), lambda: data["ref"], INFERENCE_TOLERANCE

    def gemm(self, m, k, n):
        a, b = self.peers.data_for(self.name)
        given = ["--input", f"a={self.save('a', a)}"]
        if self.options.const:
            weights = os.path.join(self.folder, self.name + ".npz")
            np.savez(weights, b=b)
            given += ["--weights", weights, "--bind", f"k={k}", "--bind", f"n={n}"]
        else:
            given += ["--input", f"b={self.save('b', b)}"]
        script = KERNELS + ("gemm_const.kiln" if self.options.const else "gemm.kiln")
        product = lambda: a.astype(np.float64) @ b.astype(np.float64)
        return [script] + given, self.output([script] + given), product, INFERENCE_TOLERANCE

    def kernel(self):
        names = {"elt": ["a", "x", "b", "c"], "softmax": ["x"], "layernorm": ["x", "weight", "bias"]}
        names = names.get(self.name.split("_")[0])
        if names is None:
            raise Failed("Kiln has no script for it")
        data = self.peers.data_for(self.name)
        arguments = [f"{KERNELS}{self.name}.kiln"]
        for name, array in zip(names, data):
            arguments += ["--input", f"{name}={self.save(name, array)}"]
        return arguments, self.output(arguments), lambda: reference(self.name, data), INFERENCE_TOLERANCE

    def output(self, arguments):
        """The results of an inference."""
        path = os.path.join(self.folder, self.name + ".out.npy")

        def results(*flags):
            self.kiln("run", arguments + ["--output", path, *flags], parse=False)
            return np.load(path), path

        return results

    def kiln(self, command, arguments, processors=None, parse=True):
        output = run([self.options.kiln, command] + arguments, self.options.lock, processors)
        return json.loads(output.splitlines()[-1]) if parse else None

    def measure(self, threads):
        figures = self.kiln("bench", self.arguments + ["--threads", str(threads), "--json"], threads)
        line = {"median_ms": figures["median_ms"], "peak_rss_mb": round(figures["peak_rss_bytes"] / 2**20)}
        kept = ["compile_ms", "prepare_ms", "min_ms", "iterations", "gflops", "arena_bytes", "arena_lower_bound_bytes", "other_cpu"]
        line.update({key: figures[key] for key in kept})
        line["machine"] = figures.get("machine")
        return line


def in_order(batches, script):
    """Rows of the first steps where a training finds them in order: what it holds out is filled with the next batch."""
    rows = batches[:CHECKED_STEPS].reshape(-1, *batches.shape[2:])
    text = open(os.path.join(ROOT, script)).read()
    if re.search(r"test_every\s*=\s*0", text):
        return rows
    count = math.ceil(len(rows) / (HELD_OUT_EVERY - 1) * HELD_OUT_EVERY) + HELD_OUT_EVERY
    order = [index for index in range(count) if index % HELD_OUT_EVERY != HELD_OUT][: len(rows)]
    filled = np.repeat(rows[:1], order[-1] + 2, axis=0)
    filled[order] = rows
    return filled


def reference(name, data):
    """What a kernel computes, in binary64."""
    data = [array.astype(np.float64) for array in data]
    if name.startswith("softmax"):
        powers = np.exp(data[0] - data[0].max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)
    if name.startswith("layernorm"):
        x, weight, bias = data
        centred = x - x.mean(axis=-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * weight + bias
    a, x, b, c = data
    inner = a * x + b
    erf = np.fromiter(map(math.erf, inner / math.sqrt(2.0)), np.float64, inner.size)
    return inner * 0.5 * (1.0 + erf) * np.tanh(c)


def relative_error(found, expected):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        raise Failed(f"the result is {found.shape}, not {expected.shape}")
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-12))


# ------------------------------------------------------------------ runs
def run(command, lock=(), processors=None):
    """Standard output of a command, pinned to the first `processors` processors."""
    pin = None if processors is None else lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:processors])
    # What was tuned on this machine is no part of the comparison.
    untuned = {**os.environ, "KILN_CACHE_DIR": ""}
    done = subprocess.run(list(lock) + command, cwd=ROOT, env=untuned, capture_output=True, text=True, preexec_fn=pin)
    if done.returncode != 0:
        raise Failed(f"exit {done.returncode}: " + " ".join(done.stderr.split())[-300:])
    return done.stdout


def run_peer(options, workload, engine, threads):
    python = options.tf_python if engine.startswith(("keras", "tf_")) else options.python
    output = run([python, options.peers, workload, engine, "--threads", str(threads)], options.lock)
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise Failed("the peer printed no figures")
    return json.loads(lines[-1])


def engines_of(peers, name, options):
    wanted = re.compile(options.engines)
    found = [engine for engine in peers.W[name] if wanted.fullmatch(engine)]
    found = [engine for engine in found if engine.endswith("_const") == options.const or not name.startswith("gemm")]
    tensorflow = ("keras", "tf_")
    return [engine for engine in found if options.tf_python or not engine.startswith(tensorflow)]


def compare(options):
    spec = importlib.util.spec_from_file_location("peers", options.peers)
    peers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peers)
    done = {(line["workload"], line["engine"], line["threads"], line["repeat"]) for line in read(options.out)}
    threads = [int(count) for count in options.threads.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        for name in (name for name in peers.W if re.fullmatch(options.workloads, name)):
            label = name + ("_const" if options.const else "")
            try:
                workload = Workload(name, options, peers, folder)
                error = workload.check()
                if options.bits:
                    workload.check_bits()
                    print(f"{label}: the same bits at 1, 2 and 3 threads")
                    continue
            except Failed as failure:
                print(f"{label}: Kiln: {failure}", file=sys.stderr)
                continue
            for count in threads:
                for repeat in range(options.repeat):
                    for engine in ["kiln"] + engines_of(peers, name, options):
                        if (label, engine, count, repeat) in done:
                            continue
                        line = {"workload": label, "engine": engine, "threads": count, "repeat": repeat}
                        own = {"rel_err": error} if engine == "kiln" else {}
                        record(options.out, {**quiet_run(workload, engine, count), **own, **line})


def quiet_run(workload, engine, threads):
    """Figures of one run. If other programs kept the processors busy, it runs again, and the quietest run counts."""
    runs = []
    for _ in range(MOST_RUNS):
        try:
            if engine == "kiln":
                runs.append(workload.measure(threads))
            else:
                runs.append(run_peer(workload.options, workload.name, engine, threads))
        except Failed as failure:
            return {"error": str(failure)}
        if others(runs[-1]) <= DISTURBED:
            break
    return min(runs, key=others)


def others(line):
    """Processors that other programs kept busy during a run."""
    return line.get("other_cpu") or 0.0


def record(path, line):
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")
    print(line["workload"], line["engine"], line["threads"], line.get("median_ms", line.get("error")), flush=True)


def read(path):
    if not os.path.exists(path):
        return []
    return [json.loads(line) for line in open(path)]


# ------------------------------------------------------------------ table
def table(lines):
    """The ratios as Markdown, one row for each workload and number of threads, and what they were taken on."""
    cells = {}
    # A run that shared the processors counts only where there is no other.
    shared = lambda line: others(line) > DISTURBED
    of = lambda line: (line["workload"], line["engine"], line["threads"])
    quiet = {of(line) for line in lines if "median_ms" in line and not shared(line)}
    for line in lines:
        if "median_ms" in line and not (shared(line) and of(line) in quiet):
            cells.setdefault((line["workload"], line["threads"]), {}).setdefault(line["engine"], []).append(line)
    median = lambda runs, key: statistics.median(run[key] for run in runs)
    text = ["| workload | threads | Kiln, ms | fastest peer | ms | ratio | Kiln: arena, RSS, MiB | peers: RSS, MiB |"]
    text += ["|---|--:|--:|---|--:|--:|--:|--:|"]
    ratios, marked = {}, False
    for (workload, threads), engines in cells.items():
        kiln = engines.pop("kiln", None)
        if kiln is None or not engines:
            continue
        fastest = min(engines, key=lambda engine: median(engines[engine], "median_ms"))
        own, other = median(kiln, "median_ms"), median(engines[fastest], "median_ms")
        ratios.setdefault(threads, []).append(other / own)
        resident = [median(runs, "peak_rss_mb") for runs in engines.values()]
        memory = f"{median(kiln, 'arena_bytes') / 2**20:.1f}, {median(kiln, 'peak_rss_mb'):.0f}"
        mark = " *" if any(map(shared, kiln + engines[fastest])) else ""
        marked |= bool(mark)
        row = [workload + mark, str(threads), milliseconds(own), fastest, milliseconds(other), f"{other / own:.2f}"]
        row += [memory, span(resident)]
        text.append("| " + " | ".join(row) + " |")
    means = [f"{math.exp(statistics.fmean(map(math.log, all))):.2f} at {count} thread{'s' * (count > 1)}" for count, all in ratios.items()]
    repeats = 1 + max((line["repeat"] for line in lines), default=0)
    text += ["", f"Geometric means of the ratios: {', '.join(means)}. {machine(lines)}, medians of {repeats} alternating run{'s' * (repeats > 1)}."]
    if marked:
        text.append("\\* Other programs ran on the same processors, in every run of this cell.")
    return "\n".join(text)


def milliseconds(value):
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def span(values):
    low, high = round(min(values)), round(max(values))
    return str(low) if low == high else f"{low} to {high}"


def machine(lines):
    """The processor and its ceilings, from Kiln's own measurement."""
    text = open("/proc/cpuinfo").read()
    model = re.search(r"model name\s*: (.*)", text)
    ceilings = [line["machine"] for line in lines if line.get("machine")]
    threads = max((one["threads"] for one in ceilings), default=0)
    best = [one for one in ceilings if one["threads"] == threads]
    found = f"{model[1].strip() if model else 'Unknown processor'}, {os.cpu_count()} processors"
    if best:
        gflops = statistics.median(one["fma_gflops"] for one in best)
        read = statistics.median(one["dram_gb_s"]["read"] for one in best)
        found += f", {best[0]['level']}, {gflops:.0f} GFLOP/s and {read:.0f} GB/s on {threads} threads"
    return found


def write_into(path, text):
    """Replaces what stands between the two marks in a document."""
    begin, end = "<!-- ratios -->", "<!-- end of ratios -->"
    document = open(path).read()
    if begin not in document or end not in document:
        raise SystemExit(f"{path} has no `{begin}` and `{end}`")
    before, after = document.split(begin)[0], document.split(end)[1]
    with open(path, "w") as file:
        file.write(f"{before}{begin}\n{text}\n{end}{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", help="the program that runs the other systems; without it, only --table")
    parser.add_argument("--python", default=sys.executable, help="its interpreter")
    parser.add_argument("--tf-python", help="its interpreter for TensorFlow; without it TensorFlow is left out")
    parser.add_argument("--kiln", default=os.path.join(ROOT, "target/release/kiln"))
    parser.add_argument("--workloads", default=".*", help="regular expression of a whole name")
    parser.add_argument("--engines", default=".*", help="regular expression of a whole name")
    parser.add_argument("--const", action="store_true", help="gemm with a constant right operand, against *_const engines")
    parser.add_argument("--bits", action="store_true", help="checks Kiln's results at 1, 2 and 3 threads; measures nothing")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--lock", default="", type=shlex.split, help="command that every run is an argument of")
    parser.add_argument("--out", required=True, help="JSON lines, appended")
    parser.add_argument("--table", action="store_true", help="prints the table of all that is in --out")
    parser.add_argument("--readme", help="writes the table into this document, between its marks")
    options = parser.parse_args()
    options.kiln = os.path.abspath(options.kiln)
    if options.peers:
        if "PEERS_CACHE" not in os.environ:
            parser.error("set PEERS_CACHE to where the peers' data was prepared")
        options.peers = os.path.abspath(options.peers)
        compare(options)
    text = table(read(options.out))
    if options.table:
        print(text)
    if options.readme:
        write_into(options.readme, text)


if __name__ == "__main__":
    main()
