"""Golden numbers: what PyTorch computes for the scripts and ops of this folder.

Run from anywhere with `python make.py`; it needs torch and numpy. Every number is a function of the seeds below and of
PyTorch's release, which each .json names. It writes, beside itself:

  <case>.npz             data of a training, arrays named after the script's inputs (digits uses the examples' data)
  <case>.weights.npz     initial weights under the names of PyTorch's state_dict; or <case>.safetensors
  <case>.json            losses of 20 steps in float32 and float64, states after them, predictions on the first batch
  windows.json           convolutions and pools in odd configurations: inputs, results and gradients in float64
  ops.json               other ops likewise

A training takes the examples in order, in batches, the last one of what is left, and starts again at the first.
"""

import json
import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

HERE = Path(__file__).resolve().parent
STEPS = 20


# Trainings.


def mlp():
    """Tanh and relu layers, SGD with momentum and weight decay."""
    net = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 5))
    data = classes([150, 12], 5)
    optimizer = lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.001)
    train("mlp", Wrapped(net), data, batch=16, optimizer=optimizer)


def nesterov():
    """A layer without bias, SGD with Nesterov momentum."""
    net = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 24, bias=False), nn.Sigmoid(), nn.Linear(24, 5))
    data = classes([150, 12], 5)
    optimizer = lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.8, nesterov=True)
    train("nesterov", Wrapped(net), data, batch=16, optimizer=optimizer)


def cnn():
    """Convolutions same, valid, strided and grouped, batch_norm, residual blocks, overlapping max_pool, AdamW."""
    data = classes([46, 3, 11, 14], 4)
    # Offsets that a later batch_norm takes away have gradients of rounding errors, as has a bias before one. With a
    # small epsilon AdamW makes full steps of them.
    optimizer = lambda p: torch.optim.AdamW(p, lr=0.002, weight_decay=0.05, eps=1e-3)
    train("cnn", Cnn(), data, batch=8, optimizer=optimizer, safetensors=True)


def text():
    """Embedding, layer_norm, dense over tokens, mean over the sentence, clipped gradients, Adam."""
    rng = np.random.default_rng(7)
    x = rng.integers(0, 40, [70, 9])
    data = {"x": x, "label": x.sum(axis=1) % 3}
    optimizer = lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.85, 0.99))
    train("text", Text(), data, batch=16, optimizer=optimizer, clip=0.5, safetensors=True)


def recurrent():
    """An LSTM over all steps, a GRU forwards and an Elman network with relu backwards, Adam."""
    rng = np.random.default_rng(10)
    x = rng.integers(0, 20, [75, 7])
    data = {"x": x, "label": (x[:, 0] + 2 * x[:, -1]) % 3}
    optimizer = lambda p: torch.optim.Adam(p, lr=0.01)
    train("recurrent", Recurrent(), data, batch=16, optimizer=optimizer)


def gpt():
    """A decoder of two layers: learned positions, causal attention, tanh GELU, AdamW with decay of everything."""
    rng = np.random.default_rng(9)
    tokens = rng.integers(0, 24, [22, 11])
    # Most tokens follow from the two before them, so that there is something to learn.
    for t in range(2, 11):
        tokens[:, t] = np.where(tokens[:, t] < 18, (tokens[:, t - 1] + 3 * tokens[:, t - 2]) % 24, tokens[:, t])
    data = {"x": tokens[:, :-1].copy(), "y": tokens[:, 1:].copy()}
    # The bias of the keys has a gradient of rounding errors: it moves all scores of a row alike.
    optimizer = lambda p: torch.optim.AdamW(p, lr=0.002, betas=(0.9, 0.95), eps=1e-3, weight_decay=0.1)
    train("gpt", Gpt(), data, batch=4, optimizer=optimizer, loss=token_entropy, safetensors=True)


def activations():
    """Smooth activations, mean squared error, RMSprop with weight decay, cosine schedule."""
    rng = np.random.default_rng(8)
    x = rng.standard_normal([150, 10]).astype(np.float32)
    target = np.stack([np.sin(x[:, 0] + x[:, 1]), x[:, 2] * x[:, 3]], axis=1).astype(np.float32)
    optimizer = lambda p: torch.optim.RMSprop(p, lr=0.003, alpha=0.95, eps=1e-8, weight_decay=0.01)
    schedule = lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=20, eta_min=0.0005)
    data = {"x": x, "target": target}
    train("activations", Activations(), data, batch=16, optimizer=optimizer, schedule=schedule, loss=F.mse_loss)


def digits():
    """The CNN of every introduction on the examples' digits; every fifth example is held out."""
    net = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 10),
    )
    file = np.load(HERE / "../../examples/data/digits.npz")
    data = {"x": file["x"].astype(np.float32), "label": file["y"].astype(np.int64)}
    optimizer = lambda p: torch.optim.Adam(p, lr=0.001)
    train("digits", Wrapped(net), data, batch=32, optimizer=optimizer, hold_out=5, keep_data=False)


def gan():
    """Transposed convolutions; a discriminator applied three times, batch_norm in it; two optimizers in turn."""
    rng = np.random.default_rng(9)
    file = np.load(HERE / "../../examples/data/digits.npz")
    x = file["x"][:45].astype(np.float32)
    z = (rng.integers(-64, 65, [45, 6, 1, 1]) / 32).astype(np.float32)
    np.savez_compressed(HERE / "gan.npz", x=x, z=z)
    model = Gan()
    initial("gan", model)
    weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
    np.savez_compressed(HERE / "gan.weights.npz", **{k: v.numpy() for k, v in weights.items() if v.is_floating_point()})
    golden = {"torch": torch.__version__, "steps": STEPS}
    for suffix, dtype in [("", torch.float32), ("64", torch.float64)]:
        torch.set_default_dtype(dtype)
        model.load_state_dict(weights)
        outcome = alternate(model.to(dtype), torch.tensor(x).to(dtype), torch.tensor(z).to(dtype), batch=16)
        golden.update({key + suffix: outcome.pop(key) for key in ["losses", "d_loss", "g_loss"]})
        if dtype == torch.float32:
            golden.update(outcome)
    torch.set_default_dtype(torch.float32)
    write_json("gan", golden)


def alternate(model, x, z, batch):
    """Steps of the discriminator and the generator in turn, on the same noise."""
    # A large epsilon: see `cnn`.
    d_optimizer = torch.optim.Adam(model.d.parameters(), lr=0.002, betas=(0.5, 0.999), eps=1e-3)
    g_optimizer = torch.optim.RMSprop(model.g.parameters(), lr=0.001, alpha=0.9, eps=1e-2)
    batches = [slice(i, i + batch) for i in range(0, len(x), batch)]
    losses = {"losses": [], "d_loss": [], "g_loss": []}
    bce = F.binary_cross_entropy_with_logits
    model.train()
    for step in range(STEPS):
        chosen = batches[step % len(batches)]
        fake = model.g(z[chosen])
        real_logit, fake_logit = model.d(x[chosen]), model.d(fake.detach())
        one, zero = torch.ones_like(real_logit), torch.zeros_like(real_logit)
        d_loss = bce(real_logit, one) + bce(fake_logit, zero)
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()
        g_loss = bce(model.d(fake), one)
        g_optimizer.zero_grad()
        g_loss.backward()
        nn.utils.clip_grad_norm_(model.g.parameters(), 0.2)
        g_optimizer.step()
        for key, value in [("d_loss", d_loss.item()), ("g_loss", g_loss.item())]:
            losses[key].append(value)
        losses["losses"].append(d_loss.item() + g_loss.item())
    model.eval()
    with torch.no_grad():
        states = {k: v for k, v in model.state_dict().items() if v.is_floating_point() and v.dim() == 1}
        return {**losses, "predict": flat(model.g(z[:batch])), "states": {k: flat(v) for k, v in states.items()}}


class Gan(nn.Module):
    """Eight by eight pixels of six numbers, and whether pixels are a digit."""

    def __init__(self):
        super().__init__()
        self.g = nn.Sequential(
            nn.ConvTranspose2d(6, 12, 2, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
            nn.ConvTranspose2d(12, 8, 4, stride=2, padding=1, groups=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 3, stride=2, padding=1, output_padding=1), nn.Sigmoid(),
        )
        self.d = nn.Sequential(
            nn.Conv2d(1, 8, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(8, 12, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(12), nn.LeakyReLU(0.2),
            nn.Conv2d(12, 1, 2),
        )


class Wrapped(nn.Module):
    """A sequence under a name, as in most checkpoints."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        # Kiln's momentum is the part that is kept.
        self.bn2 = nn.BatchNorm2d(channels, eps=0.001, momentum=0.2)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + x)


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, (3, 5), stride=(1, 2))
        self.block1 = Block(8)
        self.down = nn.Conv2d(8, 16, 3, stride=2, groups=2, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.block2 = Block(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        # `same` with stride 2 over 14 columns: 7 results, (7 - 1) * 2 + 5 - 14 = 3 columns more, 1 before and 2 after.
        h = F.relu(self.stem(F.pad(x, (1, 2, 1, 1))))
        h = F.max_pool2d(self.block1(h), 3, stride=2, padding=1)
        h = F.silu(self.bn(self.down(h)))
        return self.head(self.block2(h).mean(dim=(2, 3)))


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(40, 20)
        self.norm1 = nn.LayerNorm(20, eps=1e-6)
        self.hidden = nn.Linear(20, 16)
        self.norm2 = nn.LayerNorm(16)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        h = F.gelu(self.hidden(self.norm1(self.embedding(x))))
        return self.head(self.norm2(h.mean(dim=1)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 12)
        self.lstm = nn.LSTM(12, 10, batch_first=True)
        self.gru = nn.GRU(10, 8, batch_first=True)
        self.rnn = nn.RNN(10, 6, batch_first=True, bias=False, nonlinearity="relu")
        self.head = nn.Linear(14, 3)

    def forward(self, x):
        h, _ = self.lstm(self.embedding(x))
        forwards, _ = self.gru(h)
        backwards, _ = self.rnn(h.flip(1))
        return self.head(torch.cat([forwards[:, -1], backwards[:, -1]], dim=1))


class Decoder(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.position = nn.Embedding(24, 16), nn.Embedding(10, 16)
        self.layers = nn.ModuleList(Decoder(16, 4) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 24, bias=False)

    def forward(self, x):
        h = self.embedding(x) + self.position.weight
        for layer in self.layers:
            h = layer(h)
        return self.head(self.norm(h))


class Activations(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [10, 16, 16, 16, 16, 16, 16, 2]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, x):
        a = [F.gelu, F.silu, F.softplus, lambda h: F.leaky_relu(h, 0.2), lambda h: F.gelu(h, approximate="tanh"), F.elu]
        for layer, activation in zip(self.layers, [*a, lambda h: h]):
            x = activation(layer(x))
        return x


def token_entropy(logits, label):
    return F.cross_entropy(logits.flatten(0, -2), label.flatten())


def classes(shape, count):
    """Random examples whose class depends on them."""
    rng = np.random.default_rng(sum(shape) + count)
    x = (rng.integers(-64, 65, shape) / 32).astype(np.float32)
    flat = x.reshape(shape[0], -1)
    label = (flat @ rng.standard_normal([flat.shape[1], count])).argmax(axis=1)
    return {"x": x, "label": label}


def train(name, model, data, *, batch, optimizer, loss=F.cross_entropy, schedule=None, clip=None, hold_out=0,
          safetensors=False, keep_data=True):
    """Writes weights, data and numbers of a training."""
    if keep_data:
        np.savez_compressed(HERE / f"{name}.npz", **data)
    initial(name, model)
    weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
    kept = {key: value.numpy() for key, value in weights.items() if value.is_floating_point()}
    if safetensors:
        write_safetensors(HERE / f"{name}.safetensors", kept)
    else:
        np.savez_compressed(HERE / f"{name}.weights.npz", **kept)
    golden = {"torch": torch.__version__, "steps": STEPS}
    for key, dtype in [("losses", torch.float32), ("losses64", torch.float64)]:
        torch.set_default_dtype(dtype)
        model.load_state_dict(weights)
        outcome = run(model.to(dtype), data, batch, optimizer, loss, schedule, clip, hold_out, dtype)
        golden[key] = outcome.pop("losses")
        if dtype == torch.float32:
            golden.update(outcome)
    torch.set_default_dtype(torch.float32)
    write_json(name, golden)


def initial(name, model):
    """Weights of few digits, so that files are small and every format holds them exactly."""
    rng = np.random.default_rng(list(name.encode()))
    for key, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        if key.endswith("running_var"):
            steps, scale, offset = 32, 1 / 64, 1.0
        elif value.dim() >= 2 and "embedding" not in key:
            fan_in = value[0].numel()
            steps, scale, offset = 64, 2.0 ** np.round(np.log2(1.5 / fan_in**0.5)) / 64, 0.0
        else:
            norm = any(part.startswith(("bn", "norm")) for part in key.split(".")) and key.endswith("weight")
            steps, scale, offset = 64, 1 / 256, 1.0 if norm else 0.0
        value.copy_(torch.tensor(offset + rng.integers(-steps, steps + 1, value.shape) * scale))


def run(model, data, batch, optimizer, loss, schedule, clip, hold_out, dtype):
    """The losses of the steps, and what is left after the last."""
    inputs, targets = [torch.tensor(array) for array in data.values()]
    if inputs.is_floating_point():
        inputs = inputs.to(dtype)
    if targets.is_floating_point():
        targets = targets.to(dtype)
    positions = np.arange(len(inputs))
    held = positions % hold_out == hold_out - 1 if hold_out else np.zeros(len(inputs), dtype=bool)
    order = positions[~held]
    stepper = optimizer(model.parameters())
    scheduler = schedule(stepper) if schedule else None
    batches = [order[i : i + batch] for i in range(0, len(order), batch)]
    losses = []
    model.train()
    for step in range(STEPS):
        chosen = batches[step % len(batches)]
        stepper.zero_grad()
        value = loss(model(inputs[chosen]), targets[chosen])
        value.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        stepper.step()
        if scheduler:
            scheduler.step()
        losses.append(value.item())
    model.eval()
    with torch.no_grad():
        outcome = {"losses": losses, "predict": flat(model_output(model, inputs[order[:batch]], loss))}
        states = {k: v for k, v in model.state_dict().items() if v.is_floating_point() and v.dim() == 1}
        outcome["states"] = {key: flat(value) for key, value in states.items()}
        if hold_out:
            logits = model(inputs[held])
            outcome["test_loss"] = loss(logits, targets[held]).item()
            outcome["test_accuracy"] = (logits.argmax(dim=1) == targets[held]).double().mean().item()
    return outcome


def model_output(model, inputs, loss):
    y = model(inputs)
    return y.softmax(dim=-1) if loss in (F.cross_entropy, token_entropy) else y


# Files.


def flat(tensor, digits=8):
    return [short(value, digits) for value in tensor.detach().double().reshape(-1).tolist()]


def short(value, digits=8):
    """Eight digits are a float32 to below its last bit; what JSON has no number for is text."""
    return float(f"{value:.{digits}g}") if np.isfinite(value) else str(value)


def write_json(name, golden):
    golden = {k: [short(v) for v in vs] if k.startswith("losses") else vs for k, vs in golden.items()}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
    (HERE / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def write_safetensors(path, arrays):
    """A header of names, types and byte ranges, then the bytes."""
    header, blobs, at = {}, [], 0
    for key, array in arrays.items():
        blob = np.ascontiguousarray(array, dtype="<f4").tobytes()
        header[key] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


# Single ops. A case has inputs, the op as a line of a graph, and PyTorch's function; gradients flow from a random
# cotangent into every float input.


class Ops:
    def __init__(self):
        self.cases = {}
        self.rng = np.random.default_rng(11)

    def random(self, *shape, low=-2.0, high=2.0):
        """Eighths: exact in float32, and so are their products."""
        return np.ceil(self.rng.uniform(low, high, shape) * 8) / 8

    def add(self, name, inputs, line, function, results=1, gradient=True, differentiable=None):
        """`line` defines %y (and %y1...) of the inputs by name; `function` is PyTorch's."""
        tensors = {k: torch.tensor(np.asarray(v), dtype=torch.float64 if np.asarray(v).dtype.kind == "f" else None)
                   for k, v in inputs.items()}
        floats = [k for k in tensors if tensors[k].is_floating_point() and (differentiable is None or k in differentiable)]
        for key in floats:
            tensors[key].requires_grad_(gradient)
        outputs = function(*tensors.values())
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        ty = lambda t: f"{'f32' if t.is_floating_point() else 'i64'}[{', '.join(map(str, t.shape))}]"
        y = outputs[0]
        returns = [f"%y{i}" if i else "%y" for i in range(results)]
        body = [line]
        expected = list(outputs)
        if gradient:
            if y.dim():
                tensors["cotangent"] = torch.tensor(self.random(*y.shape))
                body += ["%weighted = mul %y, %cotangent",
                         f"%loss = reduce_sum %weighted {{dims = {list(range(y.dim()))}}}"]
                scalar = (y * tensors["cotangent"]).sum()
            else:
                scalar = y
                body += ["%loss = mul %y, %one"]
                tensors["one"] = torch.tensor(1.0, dtype=torch.float64)
            grads = [f"%d_{k}" for k in floats]
            body.append(f"{', '.join(grads)} = gradient %loss, {', '.join('%' + k for k in floats)}")
            returns += grads
            expected += torch.autograd.grad(scalar, [tensors[k] for k in floats])
        params = ", ".join(f"%{k}: {ty(t)}" for k, t in tensors.items())
        text = [f"graph @{name}({params}) {{", *(f"  {part}" for part in body), f"  return {', '.join(returns)}", "}"]
        self.cases[name] = {
            "graph": text,
            "inputs": {k: flat(t, 7) if t.is_floating_point() else t.reshape(-1).tolist() for k, t in tensors.items()},
            "expected": [flat(t, 7) for t in expected],
        }

    def write(self, name):
        cases = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in self.cases.items()]
        head = f" \"torch\": {json.dumps(torch.__version__)},\n"
        (HERE / name).write_text("{\n" + head + ",\n".join(cases) + "\n}\n")


def ops():
    """Ops in odd configurations, in float64 on numbers that float32 holds."""
    for name, families in [("windows.json", [convolutions, pools, transposed]),
                           ("ops.json", [normalisations, losses, pointwise, movement, attention, small, hard])]:
        o = Ops()
        for family in families:
            family(o)
        o.write(name)


def convolutions(o):
    def conv(name, x, w, strides, padding, dilation, groups=1):
        rank = len(x) - 2
        line = f"%y = conv %x, %w {{strides = {strides}, padding = {padding}, dilation = {dilation}, groups = {groups}}}"
        pairs = [padding[2 * i : 2 * i + 2] for i in range(rank)]
        # F.pad counts from the last dimension.
        pad = [p for pair in reversed(pairs) for p in pair]
        op = [F.conv1d, F.conv2d, F.conv3d][rank - 1]
        function = lambda x, w: op(F.pad(x, pad), w, stride=strides, dilation=dilation, groups=groups)
        o.add(name, {"x": o.random(*x), "w": o.random(*w)}, line, function)

    conv("conv_grouped", [1, 4, 4, 5], [6, 2, 3, 2], [1, 1], [1, 1, 0, 1], [1, 1], 2)
    conv("conv_depthwise_multiplied", [1, 3, 6, 5], [6, 1, 3, 3], [2, 1], [1, 1, 1, 1], [1, 1], 3)
    conv("conv_dilated", [1, 2, 9, 8], [3, 2, 3, 2], [1, 1], [0, 0, 0, 0], [2, 3])
    conv("conv_dilated_strided_padded", [1, 2, 9, 10], [2, 2, 3, 3], [2, 3], [2, 1, 0, 3], [2, 2])
    conv("conv_same_even_kernel", [1, 2, 5, 5], [3, 2, 4, 2], [1, 1], [1, 2, 0, 1], [1, 1])
    conv("conv_stride_beyond_kernel", [1, 2, 8, 9], [3, 2, 1, 2], [3, 4], [0, 0, 0, 0], [1, 1])
    conv("conv_padding_beyond_kernel", [1, 1, 3, 3], [2, 1, 2, 2], [2, 2], [3, 2, 2, 3], [1, 1])
    conv("conv_one_dimension", [2, 3, 11], [4, 3, 4], [2], [2, 1], [1])
    conv("conv_three_dimensions", [1, 2, 4, 5, 3], [3, 2, 2, 3, 2], [2, 1, 1], [0, 1, 1, 1, 0, 0], [1, 2, 1])
    conv("conv_whole_image", [2, 2, 4, 4], [3, 2, 4, 4], [1, 1], [0, 0, 0, 0], [1, 1])


def transposed(o):
    def conv(name, x, w, stride, padding, output_padding=0, dilation=1, groups=1):
        rank = len(x) - 2
        each = lambda value: list(value) if isinstance(value, tuple) else [value] * rank
        op = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d][rank - 1]
        function = lambda x, w: op(x, w, None, stride, padding, output_padding, groups, dilation)
        # Kiln's op declares the type that PyTorch's has by its formula.
        shape = list(function(torch.zeros(x), torch.zeros(w)).shape)
        pads = [p for p in each(padding) for _ in range(2)]
        attributes = f"strides = {each(stride)}, padding = {pads}, dilation = {each(dilation)}, groups = {groups}"
        line = f"%y: f32{shape} = conv_grad_input %x, %w {{{attributes}}}"
        o.add(name, {"x": o.random(*x), "w": o.random(*w)}, line, function)

    conv("transposed_from_one_pixel", [2, 3, 1, 1], [3, 4, 4, 4], 1, 0)
    conv("transposed_doubling", [1, 3, 3, 4], [3, 2, 4, 4], 2, 1)
    conv("transposed_output_padding", [1, 2, 3, 4], [2, 3, 3, 2], (2, 3), (1, 0), (1, 1))
    conv("transposed_grouped_dilated", [1, 4, 4, 3], [4, 3, 2, 3], (1, 2), 0, 0, (2, 2), 2)
    conv("transposed_one_dimension", [2, 3, 5], [3, 2, 3], 3, 1)
    conv("transposed_three_dimensions", [1, 2, 2, 3, 2], [2, 2, 2, 2, 3], (2, 1, 1), 0)


def pools(o):
    def pool(name, op, x, window, strides, padding, function, extra=""):
        attrs = f"{{window = {window}, strides = {strides}, padding = {[p for p in padding for _ in range(2)]}{extra}}}"
        results = "%y, %place" if op == "max_pool" else "%y"
        o.add(name, {"x": x}, f"{results} = {op} %x {attrs}", function)

    for outside in [True, False]:
        word = "outside" if outside else "inside"
        count = f", count_outside = {str(outside).lower()}"
        function = lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=outside)
        pool(f"avg_pool_counts_{word}", "avg_pool", o.random(1, 2, 6, 7), [3, 3], [2, 2], [1, 1], function, count)
        function = lambda x: F.avg_pool2d(x, (2, 4), (1, 3), (1, 2), count_include_pad=outside)
        pool(f"avg_pool_overlapping_{word}", "avg_pool", o.random(1, 2, 4, 7), [2, 4], [1, 3], [1, 2], function, count)
    pool("max_pool_padded", "max_pool", o.random(1, 2, 6, 7, low=-2.0, high=-0.5), [3, 3], [2, 2], [1, 1],
         lambda x: F.max_pool2d(x, 3, 2, 1))
    ties = o.rng.integers(0, 3, [1, 2, 5, 6]).astype(float)
    pool("max_pool_ties_overlapping", "max_pool", ties, [3, 2], [1, 1], [0, 0], lambda x: F.max_pool2d(x, (3, 2), 1))
    pool("max_pool_one_dimension", "max_pool", o.random(2, 3, 9), [4], [3], [1], lambda x: F.max_pool1d(x, 4, 3, 1))


def normalisations(o):
    def batch(name, shape, training, epsilon, momentum=0.9):
        c = shape[1]
        inputs = {"x": o.random(*shape), "scale": o.random(c), "offset": o.random(c), "mean": o.random(c),
                  "variance": o.random(c, low=0.1, high=3.0)}

        def function(x, scale, offset, mean, variance):
            mean, variance = mean.detach().clone(), variance.detach().clone()
            y = F.batch_norm(x, mean, variance, scale, offset, training, 1 - momentum, epsilon)
            return (y, mean, variance) if training else y

        operands = "%x, %scale, %offset, %mean, %variance"
        if training:
            attrs = f"{{epsilon = {epsilon}, momentum = {momentum}}}"
            line = f"%y, %y1, %y2 = batch_norm_training {operands} {attrs}"
        else:
            line = f"%y = batch_norm_inference {operands} {{epsilon = {epsilon}}}"
        o.add(name, inputs, line, function, 3 if training else 1, differentiable=["x", "scale", "offset"])

    batch("batch_norm_training", [3, 4, 3, 2], True, 1e-5)
    batch("batch_norm_training_rank_2", [7, 5], True, 0.01, 0.75)
    batch("batch_norm_training_two_elements", [2, 3, 1, 1], True, 1e-3, 0.5)
    batch("batch_norm_inference", [2, 4, 3, 2], False, 1e-5)
    batch("batch_norm_inference_large_epsilon", [2, 3, 4], False, 0.5)

    def layer(name, x, epsilon):
        c = x.shape[-1]
        line = f"%y = layer_norm %x, %scale, %offset {{epsilon = {epsilon}}}"
        function = lambda x, scale, offset: F.layer_norm(x, [c], scale, offset, epsilon)
        o.add(name, {"x": x, "scale": o.random(c), "offset": o.random(c)}, line, function)

    layer("layer_norm_rank_3", o.random(2, 3, 7), 1e-5)
    layer("layer_norm_large_epsilon", o.random(4, 5), 0.1)
    layer("layer_norm_shifted", o.random(3, 6) + 100.0, 1e-6)
    layer("layer_norm_constant_row", np.full([2, 5], 0.5), 1e-5)


def losses(o):
    def entropy(name, logits, label):
        function = lambda logits, label: F.cross_entropy(logits.reshape(-1, logits.shape[-1]), label.reshape(-1))
        o.add(name, {"logits": logits, "label": label}, "%y = cross_entropy %logits, %label", function)

    entropy("cross_entropy_rank_3", o.random(2, 4, 5), o.rng.integers(0, 5, [2, 4]))
    entropy("cross_entropy_rank_4", o.random(2, 2, 3, 4), o.rng.integers(0, 4, [2, 2, 3]))
    entropy("cross_entropy_extreme", np.array([[1e4, -1e4, 0.0], [-300.0, -301.0, -299.0], [88.0, 89.0, 90.0]]),
            np.array([0, 1, 2]))
    entropy("cross_entropy_one_class", o.random(3, 1), np.zeros(3, dtype=np.int64))
    extreme = np.array([[-1e4, -100.0, -17.0, -0.5, 0.0], [0.5, 17.0, 88.0, 100.0, 1e4]])
    target = np.array([[0.0, 1.0, 0.25, 1.0, 0.5], [0.0, 0.75, 0.0, 1.0, 1.0]])
    bce = F.binary_cross_entropy_with_logits
    o.add("bce_with_logits_extreme", {"logits": extreme, "target": target}, "%y = bce_with_logits %logits, %target",
          bce, differentiable=["logits"])
    o.add("bce_with_logits_vector", {"logits": o.random(7), "target": o.random(7, low=0.0, high=1.0)},
          "%y = bce_with_logits %logits, %target", bce, differentiable=["logits"])
    o.add("mse_rank_3", {"x": o.random(2, 3, 4), "target": o.random(2, 3, 4)}, "%y = mse %x, %target", F.mse_loss)


def pointwise(o):
    x = np.concatenate([np.linspace(-6.0, 6.0, 25) + 1 / 32, [-60.0, -20.0, -12.0, -1 / 8192, 1 / 8192, 12.0, 20.0, 60.0]])
    functions = {
        "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "softplus": F.softplus,
        "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": F.relu,
        "leaky_relu": lambda x: F.leaky_relu(x, 0.2), "elu": lambda x: F.elu(x, 1.5), "clamp": lambda x: x.clamp(-1.0, 2.0),
    }
    attrs = {"leaky_relu": " {slope = 0.2}", "elu": " {alpha = 1.5}", "clamp": " {low = -1.0, high = 2.0}"}
    for name, function in functions.items():
        o.add(name, {"x": x}, f"%y = {name} %x{attrs.get(name, '')}", function)
    kinks = np.array([-1.0, -0.0, 0.0, 1.0, 2.0])
    for name in ["relu", "leaky_relu", "elu", "silu", "softplus"]:
        o.add(f"{name}_at_kinks", {"x": kinks}, f"%y = {name} %x{attrs.get(name, '')}", functions[name])
    o.add("abs_at_kink", {"x": kinks}, "%y = abs %x", torch.abs)
    some, positive = o.random(12), o.random(12, low=0.0, high=4.0)
    for name in ["exp", "sin", "cos", "erf", "square"]:
        o.add(name, {"x": some}, f"%y = {name} %x", getattr(torch, name))
    for name in ["log", "sqrt", "rsqrt", "reciprocal"]:
        o.add(name, {"x": positive}, f"%y = {name} %x", getattr(torch, name))
    o.add("div", {"a": some, "b": positive}, "%y = div %a, %b", torch.div)
    o.add("pow", {"a": positive, "b": some}, "%y = pow %a, %b", torch.pow)
    # 0^0, 0^b, and negative numbers to whole powers, which have no derivative in b.
    whole = {"a": np.array([0.0, 0.0, 0.0, -2.0, -2.0, -1.5]), "b": np.array([0.0, 1.0, 2.0, 3.0, 0.0, -1.0])}
    o.add("pow_whole", whole, "%y = pow %a, %b", torch.pow, differentiable=["a"])
    o.add("max", {"a": some, "b": some[::-1] + 1 / 16}, "%y = max %a, %b", torch.maximum)
    o.add("min", {"a": some, "b": some[::-1] + 1 / 16}, "%y = min %a, %b", torch.minimum)
    large = np.array([[1e4, 1e4 - 1, -1e4], [-3e38, -3e38, -3e38], [88.0, 89.0, 90.0], [-200.0, 0.0, 200.0]])
    masked = np.array([[-np.inf, 0.5, 1.0], [-np.inf, -np.inf, 2.0]])
    softmax, log_softmax = lambda x: F.softmax(x, -1), lambda x: F.log_softmax(x, -1)
    o.add("softmax_large", {"x": large}, "%y = softmax %x {dim = -1}", softmax)
    o.add("softmax_masked", {"x": masked}, "%y = softmax %x {dim = -1}", softmax, gradient=False)
    o.add("softmax_middle", {"x": o.random(2, 4, 3)}, "%y = softmax %x {dim = 1}", lambda x: F.softmax(x, 1))
    o.add("softmax_first", {"x": o.random(5, 3)}, "%y = softmax %x {dim = 0}", lambda x: F.softmax(x, 0))
    o.add("log_softmax_large", {"x": large}, "%y = log_softmax %x {dim = -1}", log_softmax)
    o.add("log_softmax_middle", {"x": o.random(2, 4, 3)}, "%y = log_softmax %x {dim = 1}", lambda x: F.log_softmax(x, 1))


def movement(o):
    index = np.array([[3, 0, 3], [1, 3, 0]])
    o.add("gather_repeated", {"x": o.random(4, 3), "index": index}, "%y = gather %x, %index",
          lambda x, index: F.embedding(index, x))
    o.add("slice_steps", {"x": o.random(5, 7)}, "%y = slice %x {start = [1, 0], stop = [5, 6], step = [3, 2]}",
          lambda x: x[1:5:3, 0:6:2])
    o.add("pad_value", {"x": o.random(2, 3)}, "%y = pad %x {low = [1, 0], high = [0, 2], value = 1.5}",
          lambda x: F.pad(x, (0, 2, 1, 0), value=1.5))
    o.add("concat_three", {"a": o.random(2, 1, 2), "b": o.random(2, 3, 2), "c": o.random(2, 2, 2)},
          "%y = concat %a, %b, %c {dim = 1}", lambda a, b, c: torch.cat([a, b, c], 1))
    o.add("transpose_rank_4", {"x": o.random(2, 3, 2, 4)}, "%y = transpose %x {permutation = [2, 0, 3, 1]}",
          lambda x: x.permute(2, 0, 3, 1))
    o.add("dot_batched", {"a": o.random(2, 3, 4), "b": o.random(2, 5, 4)},
          "%y = dot %a, %b {a_contract = [2], b_contract = [2], a_batch = [0], b_batch = [0]}",
          lambda a, b: torch.einsum("nik,njk->nij", a, b))
    o.add("dot_two_contracted", {"a": o.random(3, 2, 4), "b": o.random(4, 5, 3)},
          "%y = dot %a, %b {a_contract = [0, 2], b_contract = [2, 0]}", lambda a, b: torch.einsum("aib,bja->ij", a, b))


def attention(o):
    def add(name, q, keys, features, causal=False, scale=None, factor=1.0):
        n, h, s, d = q
        scale = d**-0.5 if scale is None else scale
        inputs = {"q": factor * o.random(*q), "k": o.random(n, h, keys, d), "v": o.random(n, h, keys, features)}
        line = f"%y, %y1 = attention %q, %k, %v {{scale = {scale!r}, causal = {str(causal).lower()}}}"

        def function(q, k, v):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
            scores = scale * q @ k.transpose(2, 3)
            if causal:
                scores = scores.masked_fill(~torch.ones(s, s, dtype=torch.bool).tril(), -torch.inf)
            return y, scores.logsumexp(3).detach()

        o.add(name, inputs, line, function, 2)

    add("attention_two_heads", [2, 2, 3, 4], 5, 4)
    add("attention_causal", [1, 2, 6, 3], 6, 3, causal=True)
    add("attention_one_query", [1, 3, 1, 8], 4, 2, scale=0.25)
    add("attention_extreme", [1, 1, 4, 2], 4, 3, causal=True, factor=500.0)


def small(o):
    """Results far below 1, scaled up: they are sums of 1 and what is left of it."""
    x = np.array([-30.0, -24.5, -20.0, -17.25, -16.0, -12.0, -3.0])
    scaled = "%small = softplus %x\n  %y = mul %small, %scale"
    inputs = {"x": x, "scale": np.array([1e12, 1e10, 1e8, 1e7, 1e6, 1e5, 1.0])}
    o.add("softplus_small", inputs, scaled, lambda x, scale: F.softplus(x, threshold=1e9) * scale, differentiable=["x"])
    inputs = {"x": np.array([20.0, -18.0, 25.0]), "target": np.array([1.0, 0.0, 1.0]), "scale": np.array(1e8)}
    scaled = "%small = bce_with_logits %x, %target\n  %y = mul %small, %scale"
    function = lambda x, target, scale: F.binary_cross_entropy_with_logits(x, target) * scale
    o.add("bce_with_logits_small", inputs, scaled, function, gradient=False)


def hard(o):
    """Piecewise functions, at their bends too."""
    x = np.array([-60.0, -3.125, -3.0, -2.875, -1.0, -0.0, 0.0, 0.5, 2.875, 3.0, 3.125, 60.0])
    o.add("hard_sigmoid", {"x": x}, "%y = hard_sigmoid %x", F.hardsigmoid)
    o.add("hard_swish", {"x": x}, "%y = hard_swish %x", F.hardswish)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in [mlp, nesterov, cnn, text, recurrent, gpt, activations, digits, gan, ops]:
        torch.manual_seed(0)
        case()
