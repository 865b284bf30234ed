//! The `kiln` command as its users meet it: exit codes, messages, files and JSON.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kiln_rt::Tensor;
use kiln_rt::data::npy::{read_npy, write_npy};
use serde_json::Value;
use tempfile::TempDir;

/// `y = x * w`, small enough to calculate by hand.
const DOUBLE: &str = "graph @predict(%x: f32[n, 2]) {\n  %two: f32[n, 2] = const {value = 2.0}\n  \
                      %y: f32[n, 2] = mul %x, %two\n  return %y\n}\n";

const CLASSIFIER: &str = "model @m(%x: f32[batch, 1, 8, 8], %label: i64[batch] below 10) {
  %h = flatten %x
  %logits = dense %h {units = 10}
  predict softmax %logits
  loss cross_entropy %logits, %label
  metric accuracy %logits, %label
}

train {data = \"digits.npz\", batch = 64, epochs = 2, optimizer = adam {rate = 0.01}}
";

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn new(output: Output) -> Ran {
        Ran {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in\n{}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }

    #[track_caller]
    fn succeeds(&self) -> &str {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        &self.stdout
    }

    /// The last line of stdout.
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(self.succeeds().lines().last().unwrap()).unwrap()
    }
}

const GAN: &str = include_str!("../../examples/digits_gan.kiln");

/// A directory to work in.
struct Desk(TempDir);

impl Desk {
    fn new() -> Desk {
        Desk(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn save(&self, name: &str, tensor: &Tensor) {
        let mut file = std::fs::File::create(self.path(name)).unwrap();
        write_npy(&mut file, tensor).unwrap();
    }

    /// The example data under its name.
    fn digits(&self) {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data/digits.npz");
        std::fs::copy(data, self.path("digits.npz")).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.args(arguments).current_dir(self.0.path()).env_remove("KILN_KERNELS");
        // No cache: what the user's says must not decide a test.
        command.env("KILN_CACHE_DIR", "");
        command
    }

    fn kiln(&self, arguments: &[&str]) -> Ran {
        Ran::new(self.command(arguments).output().unwrap())
    }

    fn pipe(&self, arguments: &[&str], stdin: &[u8]) -> Ran {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        Ran::new(child.wait_with_output().unwrap())
    }
}

#[test]
fn bad_usage_is_2() {
    let desk = Desk::new();
    desk.write("m.kiln", DOUBLE);
    desk.kiln(&[]).fails(2, &["Usage"]);
    desk.kiln(&["melt"]).fails(2, &["melt"]);
    desk.kiln(&["check", "m.kiln", "--fast"]).fails(2, &["--fast"]);
    desk.kiln(&["opt", "m.kiln", "--emit", "wasm"]).fails(2, &["wasm", "schedule"]);
    desk.kiln(&["opt", "m.kiln", "--passes", "fuse,polish"]).fails(2, &["polish", "canonicalize"]);
    desk.kiln(&["opt", "m.kiln", "--bind", "n=many"]).fails(2, &["`many` is not a size"]);
    desk.kiln(&["opt", "m.kiln", "--bind", "m=3"]).fails(2, &["no dimension of that name", "there are: n"]);
    desk.kiln(&["explain", "m.kiln", "%z"]).fails(2, &["no value %z"]);
    desk.kiln(&["bench", "m.kiln", "--threads", "0"]).fails(2, &["from 1 to 1024"]);
}

#[test]
fn help_and_version_are_0() {
    let desk = Desk::new();
    for name in ["train", "run", "opt", "explain", "bench", "check", "fmt", "plan"] {
        assert!(desk.kiln(&["--help"]).succeeds().contains(name));
        assert!(desk.kiln(&[name, "--help"]).succeeds().contains("Usage"));
    }
    assert!(desk.kiln(&["--version"]).succeeds().starts_with("kiln "));
}

#[test]
fn check_shows_every_finding_with_its_place() {
    let desk = Desk::new();
    let script = "model @m(%x: f32[batch, 4]) {\n  %a = rleu %x\n  predict %b\n}\n";
    let ran = desk.pipe(&["check", "-"], script.as_bytes());
    ran.fails(1, &["<stdin>:2:8", "no op, layer or block `rleu`", "did you mean `relu`", "<stdin>:3:11", "2 errors"]);
    let ran = desk.pipe(&["check", "-", "--json"], script.as_bytes());
    assert_eq!(ran.code, 1);
    assert_eq!(ran.stdout, "{\"errors\":2,\"ops\":0,\"warnings\":0}\n");
    let syntax = desk.pipe(&["check", "-"], b"graph @f(%x: f32[2]) {\n  %y = = relu %x\n}\n");
    syntax.fails(1, &["error[syntax]", "<stdin>:2:8"]);
    let shapes = "graph @f(%x: f32[2], %y: f32[3]) {\n  %z = add %x, %y\n  return %z\n}\n";
    desk.pipe(&["check", "-"], shapes.as_bytes()).fails(1, &["<stdin>:2:8", "f32[2]", "f32[3]"]);
    desk.pipe(&["check", "-"], b"graph @f\xff").fails(1, &["<stdin>:1:9", "0xff is not UTF-8"]);
    desk.kiln(&["check", "no.kiln"]).fails(1, &["cannot read no.kiln"]);
}

#[test]
fn check_counts_ops_and_leaves_names_symbolic() {
    let desk = Desk::new();
    desk.write("m.kiln", DOUBLE);
    assert_eq!(desk.kiln(&["check", "m.kiln"]).succeeds(), "m.kiln: 2 ops, 0 warnings\n");
    let json = desk.kiln(&["check", "m.kiln", "--json", "--bind", "n=3"]).json();
    assert_eq!(json, serde_json::json!({"ops": 2, "errors": 0, "warnings": 0}));
}

#[test]
fn fmt_prints_checks_and_rewrites() {
    let desk = Desk::new();
    let untidy = DOUBLE.replace("  %y", "%y");
    desk.write("m.kiln", &untidy);
    assert_eq!(desk.kiln(&["fmt", "m.kiln"]).succeeds(), DOUBLE);
    desk.kiln(&["fmt", "--check", "m.kiln"]).fails(1, &["m.kiln"]);
    desk.kiln(&["fmt", "--write", "m.kiln"]).succeeds();
    assert_eq!(std::fs::read_to_string(desk.path("m.kiln")).unwrap(), DOUBLE);
    desk.kiln(&["fmt", "--check", "m.kiln"]).succeeds();
    assert_eq!(desk.pipe(&["fmt", "-"], untidy.as_bytes()).succeeds(), DOUBLE);
}

#[test]
fn opt_shows_every_level() {
    let desk = Desk::new();
    desk.write("m.kiln", CLASSIFIER);
    let starts = [
        ("module", "state @dense1.weight"),
        ("schedule", "schedule @predict"),
        ("memory", "memory of @predict"),
        ("memory.csv", "id,lower,upper,size,offset,alias_of\n"),
        ("loops", "# @predict\nnest "),
        ("clif", "; kernel"),
        ("asm", "; kernel"),
        ("dot", "digraph \"predict\" {"),
    ];
    for (what, start) in starts {
        let ran = desk.kiln(&["opt", "m.kiln", "--pipeline", "inference", "--emit", what]);
        assert!(ran.succeeds().starts_with(start), "{what}: {}", ran.stdout);
        assert!(!ran.stdout.contains("step0 {") && !ran.stdout.contains("@step0("), "{what}");
    }
    let ran = desk.kiln(&["opt", "m.kiln", "--graph", "@step0", "--after-each"]);
    assert!(ran.succeeds().contains("# after autodiff\n"));
    assert!(ran.stderr.lines().any(|line| line.starts_with("autodiff") && line.ends_with("ms")), "{}", ran.stderr);
    let ran = desk.kiln(&["opt", "m.kiln", "--passes", "specialize", "--provenance", "-o", "out.kiln"]);
    assert_eq!(ran.succeeds(), "");
    let text = std::fs::read_to_string(desk.path("out.kiln")).unwrap();
    assert!(text.contains("@m.kiln:3"), "{text}");
    desk.kiln(&["check", "out.kiln"]).succeeds();
}

#[test]
fn a_name_without_a_binding_is_1_with_a_note() {
    let desk = Desk::new();
    desk.write("m.kiln", DOUBLE);
    let ran = desk.kiln(&["opt", "m.kiln", "--emit", "schedule"]);
    assert!(ran.succeeds().contains("f32[1, 2]"));
    assert!(ran.stderr.contains("note: bound n = 1"), "{}", ran.stderr);
    assert!(desk.kiln(&["opt", "m.kiln", "--emit", "schedule", "--bind", "n=7"]).succeeds().contains("f32[7, 2]"));
}

#[test]
fn run_binds_the_extents_of_its_inputs() {
    let desk = Desk::new();
    desk.write("m.kiln", DOUBLE);
    desk.save("x.npy", &Tensor::from_vec([3, 2], vec![0.0_f32, 1.0, -2.0, 0.5, 3.0, 4.0]).unwrap());
    desk.kiln(&["run", "m.kiln", "--input", "x=x.npy", "--output", "y=y.npy"]).succeeds();
    let y = read_npy(&desk.path("y.npy")).unwrap();
    assert_eq!(y.as_slice::<f32>().unwrap(), [0.0, 2.0, -4.0, 1.0, 6.0, 8.0]);
    let json = desk.kiln(&["run", "m.kiln", "-i", "x.npy", "--json"]).json();
    assert_eq!(json["outputs"]["y"]["shape"], serde_json::json!([3, 2]));
    assert_eq!(json["outputs"]["y"]["values"], serde_json::json!([0.0, 2.0, -4.0, 1.0, 6.0, 8.0]));
}

#[test]
fn run_looks_only_at_the_inputs_of_its_graph() {
    let desk = Desk::new();
    let other = "graph @other(%x: f32[k]) {\n  %y: f32[k] = relu %x\n  return %y\n}\n";
    desk.write("m.kiln", &format!("{DOUBLE}\n{other}"));
    desk.save("x.npy", &Tensor::from_vec([3, 2], vec![1.0_f32; 6]).unwrap());
    desk.save("v.npy", &Tensor::from_vec([3], vec![-1.0_f32, 0.0, 1.0]).unwrap());
    desk.kiln(&["run", "m.kiln", "-i", "x=x.npy"]).succeeds();
    let json = desk.kiln(&["run", "m.kiln", "-i", "x=v.npy", "--graph", "@other", "--json"]).json();
    assert_eq!(json["outputs"]["y"]["values"], serde_json::json!([0.0, 0.0, 1.0]));
}

#[test]
fn run_names_what_is_missing_or_wrong() {
    let desk = Desk::new();
    desk.write("m.kiln", DOUBLE);
    desk.save("x64.npy", &Tensor::from_vec([3, 2], vec![0.0_f64; 6]).unwrap());
    desk.save("x1.npy", &Tensor::from_vec([6], vec![0.0_f32; 6]).unwrap());
    desk.save("x3.npy", &Tensor::from_vec([2, 3], vec![0.0_f32; 6]).unwrap());
    desk.kiln(&["run", "m.kiln"]).fails(1, &["@predict needs %x: f32[n, 2]", "--input name=file.npy"]);
    desk.kiln(&["run", "m.kiln", "-i", "x=x64.npy"]).fails(1, &["%x is declared f32[n, 2]", "f64[3, 2]"]);
    desk.kiln(&["run", "m.kiln", "-i", "x=x1.npy"]).fails(1, &["%x is declared f32[n, 2]", "f32[6]"]);
    desk.kiln(&["run", "m.kiln", "-i", "x=x3.npy"]).fails(1, &["f32[2, 3]"]);
    desk.kiln(&["run", "m.kiln", "-i", "x=no.npy"]).fails(1, &["no.npy"]);
    desk.kiln(&["run", "m.kiln", "-i", "z=x3.npy"]).fails(2, &["no input %z", "there are: %x"]);
    desk.kiln(&["run", "m.kiln", "-i", "x=x64.npy", "--bind", "n=4"]).fails(1, &["`n` would be 3, but it is 4"]);
    desk.kiln(&["run", "m.kiln", "--graph", "@f"]).fails(2, &["no graph `@f`", "@predict"]);
    desk.write("c.kiln", CLASSIFIER);
    desk.save("x.npy", &Tensor::from_vec([1, 1, 8, 8], vec![1.0_f32; 64]).unwrap());
    desk.kiln(&["run", "c.kiln", "-i", "x=x.npy"]).fails(1, &["@dense1.weight", "--random-weights"]);
    desk.kiln(&["run", "c.kiln", "-i", "x=x.npy", "--weights", "no.npz"]).fails(1, &["no.npz"]);
    desk.kiln(&["run", "c.kiln", "-i", "x=x.npy", "--random-weights"]).succeeds();
    // A prediction has no label, so its only input needs no name.
    desk.kiln(&["run", "c.kiln", "-i", "x.npy", "--random-weights"]).succeeds();
}

#[test]
fn bench_prints_its_figures() {
    let desk = Desk::new();
    desk.write("m.kiln", CLASSIFIER);
    for extra in [&["--train"][..], &["--bind", "batch=3"]] {
        let arguments = [&["bench", "m.kiln", "--json", "--iterations", "3", "--threads", "2"], extra].concat();
        let json = desk.kiln(&arguments).json();
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = "arena_bytes arena_lower_bound_bytes compile_ms gflops iterations kernels machine median_ms min_ms \
                        other_cpu peak_rss_bytes planning_ms prepare_ms threads tuned_kernels";
        assert_eq!(keys.join(" "), expected);
        assert_eq!((&json["iterations"], &json["threads"]), (&Value::from(3), &Value::from(2)));
        assert!(json["min_ms"].as_f64() <= json["median_ms"].as_f64());
        assert!(json["arena_lower_bound_bytes"].as_u64() <= json["arena_bytes"].as_u64());
        let kernels = json["kernels"].as_array().unwrap();
        let shares: f64 = kernels.iter().map(|kernel| kernel["share"].as_f64().unwrap()).sum();
        assert!(!kernels.is_empty() && (shares - 1.0).abs() < 1e-9);
        for kernel in kernels {
            let slow = kernel["roofline_percent"].as_f64() < Some(25.0) && kernel["share"].as_f64() > Some(0.01);
            assert_eq!(kernel["cause"].is_object(), slow, "{kernel}");
        }
        assert!(json["machine"]["dram_gb_s"]["copy"].as_f64() > Some(0.0));
    }
    let ran = desk.kiln(&["bench", "m.kiln", "--iterations", "2"]);
    assert!(ran.succeeds().contains("GFLOP/s") && ran.stdout.contains("roofs of"));
    desk.write("d.kiln", DOUBLE);
    desk.kiln(&["bench", "d.kiln", "--train"]).fails(1, &["no `train`"]);
}

/// A model whose kernels have alternatives: a convolution, a pool and a product.
const TUNABLE: &str = "model @t(%x: f32[batch, 8, 20, 20]) {\n  %h = conv %x {filters = 24, kernel = 5, padding = same, \
                       activation = relu}\n  %h = max_pool %h {size = 2}\n  %h = flatten %h\n  %y = dense %h {units = 50}\n  \
                       predict %y\n}\n";

#[test]
fn bench_tunes_and_other_commands_use_it_without_another_bit() {
    let desk = Desk::new();
    desk.write("t.kiln", TUNABLE);
    let values: Vec<f32> = (0..8 * 400).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    desk.save("x.npy", &Tensor::from_vec([1, 8, 20, 20], values).unwrap());
    let kiln = |cache: &str, arguments: &[&str]| {
        Ran::new(desk.command(arguments).env("KILN_CACHE_DIR", desk.path(cache)).output().unwrap())
    };
    let tune = ["bench", "t.kiln", "--tune", "--threads", "1", "--json"];
    let json = kiln("cache", &tune).json();
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys.join(" "), "after_ms before_ms cache kernels threads");
    let kernels = json["kernels"].as_array().unwrap();
    assert!(kernels.len() >= 3 && json["cache"].as_str().unwrap().contains("written to"), "{json}");
    let entries = || std::fs::read_dir(desk.path("cache/tuned")).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(entries().count(), kernels.len());

    let explain = ["explain", "t.kiln", "--bind", "batch=1", "--threads", "1"];
    let tuned = |ran: &Ran| ran.stdout.matches("on this CPU with 1 thread").count();
    assert_eq!(tuned(&kiln("cache", &explain)), kernels.len());
    assert_eq!(tuned(&kiln("cache", &[&explain[..], &["--tuned", "off"]].concat())), 0);
    assert_eq!(tuned(&kiln("other", &explain)), 0);
    assert_eq!(tuned(&kiln("cache", &["explain", "t.kiln", "--threads", "2"])), 0, "choices are for their threads");

    let run = |name: &str, more: &[&str]| {
        let output = format!("y={name}");
        let arguments = ["run", "t.kiln", "-i", "x=x.npy", "--random-weights", "--threads", "1", "-o", &output];
        kiln("cache", &[&arguments[..], more].concat()).succeeds();
        std::fs::read(desk.path(name)).unwrap()
    };
    let plain = run("off.npy", &["--tuned", "off"]);
    assert_eq!(run("exact.npy", &[]), plain);
    assert_eq!(run("bits.npy", &["--tuned", "bits"]), plain, "no such choices were made");

    // Whatever becomes of the entries, nothing fails, and those who ask are told.
    for (number, entry) in entries().enumerate() {
        let whole = std::fs::read(&entry).unwrap();
        std::fs::write(entry, if number % 2 == 0 { &whole[..whole.len() / 2] } else { b"something else" }).unwrap();
    }
    let explained = kiln("cache", &explain);
    assert_eq!(tuned(&explained), 0);
    assert_eq!(explained.stderr.matches("ignored in the cache").count(), kernels.len(), "{}", explained.stderr);
    assert_eq!(run("altered.npy", &[]), plain);
}

#[test]
fn bench_tunes_bits_in_a_place_of_their_own() {
    let desk = Desk::new();
    desk.write("t.kiln", TUNABLE);
    let tune = ["bench", "t.kiln", "--tune=bits", "--threads", "1"];
    let ran = Ran::new(desk.command(&tune).env("KILN_CACHE_DIR", desk.path("cache")).output().unwrap());
    assert!(ran.succeeds().contains("whole run: "), "{}", ran.stdout);
    assert!(!desk.path("cache/tuned").exists(), "what other commands read by themselves");
    assert!(desk.path("cache/tuned-bits").exists());
}

#[test]
fn tuning_needs_a_cache_and_says_so_where_it_cannot_write() {
    let desk = Desk::new();
    desk.write("t.kiln", TUNABLE);
    desk.kiln(&["bench", "t.kiln", "--tune"]).fails(2, &["KILN_CACHE_DIR"]);
    desk.kiln(&["bench", "t.kiln", "--tune=all"]).fails(2, &["exact", "bits"]);
    desk.write("file", "");
    let tune = ["bench", "t.kiln", "--tune", "--threads", "1"];
    let ran = Ran::new(desk.command(&tune).env("KILN_CACHE_DIR", desk.path("file")).output().unwrap());
    assert!(ran.succeeds().contains("cannot be written"), "{}", ran.stdout);
}

#[test]
fn bench_measures_the_machine() {
    let desk = Desk::new();
    let json = desk.kiln(&["bench", "--machine", "--threads", "2", "--json"]).json();
    let threads: Vec<u64> =
        json["ceilings"].as_array().unwrap().iter().map(|one| one["threads"].as_u64().unwrap()).collect();
    assert_eq!(threads, [1, 2]);
    assert!(json["ceilings"][0]["fma_gflops"].as_f64() > Some(0.0) && json["fork_join_us"].as_f64() > Some(0.0));
    desk.kiln(&["bench"]).fails(2, &["<MODEL>"]);
    desk.kiln(&["bench", "m.kiln", "--machine"]).fails(2, &["--machine"]);
}

#[test]
fn explain_tells_kernels_verdicts_and_memory() {
    let desk = Desk::new();
    desk.write("m.kiln", CLASSIFIER);
    let ran = desk.kiln(&["explain", "m.kiln"]);
    let text = ran.succeeds();
    for part in ["@predict: ", "kernels\n", "[fused]", "lower bound", "@m.kiln:3"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let ran = desk.kiln(&["explain", "m.kiln", "%logits"]);
    assert!(ran.succeeds().contains("%logits in @predict\n  type: f32[64, 10]\n"), "{}", ran.stdout);
}

#[test]
fn plan_reads_the_files_of_minimalloc() {
    let desk = Desk::new();
    // Two that live together and one after them: 6 + 4, then 8 in their place.
    desk.write("p.csv", "id,lower,upper,size\na,0,2,6\nb,1,3,4\nc,3,4,8\n");
    let json = desk.kiln(&["plan", "p.csv", "--json", "--capacity", "10"]).json();
    assert_eq!((&json["peak_bytes"], &json["lower_bound_bytes"]), (&Value::from(10), &Value::from(10)));
    assert!(desk.kiln(&["plan", "p.csv", "--exact"]).succeeds().contains("lower bound"));
    desk.kiln(&["plan", "p.csv", "--capacity", "9"]).fails(1, &["no plan fits into 9 bytes"]);
    desk.write("q.csv", "id,lower,upper,size\na,2,2,6\nb,1,3,x\n");
    desk.kiln(&["plan", "q.csv"]).fails(1, &["q.csv", "line 3"]);
    desk.kiln(&["plan", "no.csv"]).fails(1, &["cannot read no.csv"]);
}

#[test]
fn train_writes_weights_that_run_takes() {
    let desk = Desk::new();
    desk.write("m.kiln", CLASSIFIER);
    desk.digits();
    let ran = desk.kiln(&["train", "m.kiln", "--json", "--threads", "1"]);
    let json = ran.json();
    assert_eq!(json["epochs"], 2);
    assert_eq!(json["resumed_from_step"], Value::Null);
    // 1438 of 1797 examples are for training: 23 steps of at most 64 per epoch.
    assert_eq!(json["losses"].as_array().unwrap().len(), 46);
    // A linear classifier of the ten digits is right far more often than one time in ten.
    assert!(json["test_accuracy"].as_f64().unwrap() > 0.8, "{json}");
    assert!(json["test_loss"].as_f64().unwrap() < json["losses"][0].as_f64().unwrap());
    assert!(json["train_loss"].is_number() && json["seconds"].is_number());
    assert_eq!(ran.stdout.lines().filter(|line| line.starts_with("epoch ")).count(), 2);
    assert!(std::fs::read_to_string(desk.path("m.svg")).unwrap().contains("<svg"));
    desk.save("x.npy", &Tensor::from_vec([1, 1, 8, 8], vec![0.5_f32; 64]).unwrap());
    let json = desk.kiln(&["run", "m.kiln", "-i", "x=x.npy", "--weights", "m.safetensors", "--json"]).json();
    let outputs = json["outputs"].as_object().unwrap();
    let sum: f64 =
        outputs.values().next().unwrap()["values"].as_array().unwrap().iter().filter_map(Value::as_f64).sum();
    assert!((sum - 1.0).abs() < 1e-5);
}

#[test]
fn a_resumed_training_ends_like_one_without_a_break() {
    let desk = Desk::new();
    desk.write("m.kiln", CLASSIFIER);
    desk.digits();
    desk.kiln(&["train", "m.kiln", "--seed", "3", "--out", "whole.safetensors", "--threads", "2"]).succeeds();
    desk.kiln(&["train", "m.kiln", "--seed", "3", "--steps", "30", "--checkpoint", "c", "--threads", "1"]).succeeds();
    let arguments = ["train", "m.kiln", "--seed", "3", "--resume", "c", "--out", "rest.safetensors", "--json"];
    assert_eq!(desk.kiln(&arguments).json()["resumed_from_step"], 30);
    let read = |name| std::fs::read(desk.path(name)).unwrap();
    assert!(read("whole.safetensors") == read("rest.safetensors"));
    desk.kiln(&["train", "m.kiln", "--seed", "4", "--resume", "c"]).fails(1, &["another seed"]);
}

#[test]
fn two_optimizers_train_in_turn_resume_and_are_measured_together() {
    let desk = Desk::new();
    desk.write("g.kiln", GAN);
    desk.digits();
    let train = |more: &[&str]| {
        let arguments = [&["train", "g.kiln", "--data", "digits.npz", "--json"], more].concat();
        desk.kiln(&arguments).json()
    };
    let whole = train(&["--steps", "70", "--out", "whole.safetensors", "--threads", "2"]);
    train(&["--steps", "40", "--checkpoint", "c", "--threads", "1"]);
    let rest = train(&["--steps", "70", "--resume", "c", "--out", "rest.safetensors"]);
    let read = |name| std::fs::read(desk.path(name)).unwrap();
    assert!(read("whole.safetensors") == read("rest.safetensors"));
    assert_eq!((&rest["resumed_from_step"], &rest["losses"]), (&Value::from(40), &whole["losses"]));

    // A seed says what is drawn, with the same weights; without one the same is drawn again.
    let sample = |more: &[&str]| {
        let arguments = ["run", "g.kiln", "--weights", "whole.safetensors", "--bind", "batch=2", "--json"];
        desk.kiln(&[&arguments, more].concat()).json()["outputs"].clone()
    };
    assert_eq!(sample(&[]), sample(&[]));
    assert_eq!(sample(&["--seed", "1"]), sample(&["--seed", "1"]));
    assert!(sample(&["--seed", "1"]) != sample(&["--seed", "2"]));

    // What is reported for a batch is the sum over its steps.
    let steps = whole["step_losses"].as_object().unwrap();
    assert_eq!(steps.keys().collect::<Vec<_>>(), ["d_loss", "g_loss"]);
    let of = |name: &str, batch: usize| steps[name][batch].as_f64().unwrap();
    for batch in [0, 69] {
        let sum = of("d_loss", batch) + of("g_loss", batch);
        assert!((whole["losses"][batch].as_f64().unwrap() - sum).abs() < 1e-12);
    }
    // At first the discriminator does not know; soon the generator does not get through.
    assert!(of("d_loss", 0) > 1.0 && of("d_loss", 69) < 0.6, "{whole}");

    let bench = |graph: &[&str]| {
        let arguments = [&["bench", "g.kiln", "--json", "--iterations", "2"], graph].concat();
        desk.kiln(&arguments).json()
    };
    // Both steps are one graph.
    let (both, graph) = (bench(&["--train"]), bench(&["--graph", "@step0"]));
    let flops = |json: &Value| json["gflops"].as_f64().unwrap() * json["median_ms"].as_f64().unwrap();
    assert!((flops(&both) / flops(&graph) - 1.0).abs() < 1e-6);
    assert_eq!(both["arena_bytes"], graph["arena_bytes"]);
}

#[test]
fn what_is_not_finite_is_found_in_the_step_that_it_is_in() {
    let desk = Desk::new();
    let text = "\
model @m(%x: f32[batch, 1, 8, 8]) {
  %h = flatten %x
  %y = dense %h {units = 1}
  %down = neg %y
  %first = reduce_mean %down
  %large = exp %y
  %second = reduce_mean %large
  loss %first
  loss %second
}

train {
  data = \"digits.npz\",
  batch = 32,
  steps = [one {loss = first, optimizer = sgd {rate = 1000.0}}, two {loss = second, optimizer = sgd}],
}
";
    desk.write("m.kiln", text);
    desk.digits();
    desk.kiln(&["train", "m.kiln"]).fails(1, &["train.finite", "%large = `exp`", "m.kiln:6:12", "replay of step 1"]);
}

#[test]
fn train_says_what_it_cannot_do() {
    let desk = Desk::new();
    desk.write("m.kiln", CLASSIFIER);
    desk.write("d.kiln", DOUBLE);
    desk.kiln(&["train", "m.kiln"]).fails(1, &["digits.npz", "there is no file", "`label`: i64[batch]"]);
    desk.kiln(&["train", "d.kiln"]).fails(1, &["does not say how to train"]);
    desk.kiln(&["train", "m.kiln", "--out", "no/w.safetensors"]).fails(1, &["there is no directory no"]);
    desk.kiln(&["train", "m.kiln", "--checkpoint-every", "5"]).fails(2, &["--checkpoint"]);
    desk.kiln(&["train", "m.kiln", "--batch", "0"]).fails(2, &["at least 1"]);
    desk.digits();
    desk.kiln(&["train", "m.kiln", "--test-fold", "5"]).fails(1, &["folds run from 0 to 4"]);
}

#[test]
fn a_loss_that_is_not_finite_names_the_op_and_its_line() {
    let desk = Desk::new();
    // Most images have pixels of zero, and the logarithm of zero is not finite.
    desk.write("m.kiln", &CLASSIFIER.replace("%h = flatten %x\n", "%f = flatten %x\n  %h = log %f\n"));
    desk.digits();
    let ran = desk.kiln(&["train", "m.kiln"]);
    ran.fails(1, &["error[train.finite]", "epoch 1, step 1", "m.kiln:3:8", "%h = `log`", "-inf"]);
    assert!(!desk.path("m.safetensors").exists());
}

#[cfg(unix)]
#[test]
fn ctrl_c_finishes_the_step_and_writes_the_checkpoint() {
    let desk = Desk::new();
    desk.write("m.kiln", CLASSIFIER);
    desk.digits();
    let mut command = desk.command(&["train", "m.kiln", "--epochs", "1000000", "--checkpoint", "c"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The first checkpoint is written at the end of the first epoch: then the training is under way.
    while !desk.path("c").exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let ran = Ran::new(child.wait_with_output().unwrap());
    ran.fails(130, &["interrupted after step", "--resume c"]);
    let json = desk.kiln(&["train", "m.kiln", "--resume", "c", "--steps", "1", "--json"]).json();
    assert!(json["resumed_from_step"].as_u64().unwrap() > 0);
}

#[test]
fn unknown_kernels_are_refused() {
    let desk = Desk::new();
    desk.write("m.kiln", DOUBLE);
    let output = desk.command(&["check", "m.kiln"]).env("KILN_KERNELS", "best").output().unwrap();
    Ran::new(output).fails(1, &["KILN_KERNELS=best", "none, portable"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_the_environments_fault() {
    let desk = Desk::new();
    desk.write("m.kiln", DOUBLE);
    desk.kiln(&["opt", "m.kiln", "-o", "/dev/full"]).fails(1, &["cannot write /dev/full", "disk is full"]);
}
