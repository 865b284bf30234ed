//! Recurrent layers: rnn, lstm, gru. There is no recurrent op: the steps are written out, with shared weights.
//!
//! Equations, order of gates, names and initial values are those of PyTorch. Sources: Elman, "Finding structure in time",
//! 1990; Hochreiter and Schmidhuber, "Long short-term memory", 1997; Cho et al., "Learning phrase representations using RNN
//! encoder-decoder for statistical machine translation", 2014.

use super::dense::positive;
use super::{Activation, Call, Gru, Init, Instance, LayerSpec, Lstm, Rnn};
use crate::attribute::{Dims, Ints};
use crate::builder::Tensor;
use crate::module::Role;
use crate::op::{self, Elementwise, Op};
use crate::types::{Dim, Shape};

/// - rnn.L1: `x` is `[N, S, F]`, with a known S, at least 1, and a known F.
/// - rnn.L2: `units >= 1`.
impl LayerSpec for Rnn {
    fn expand(&self, call: &Call) -> Tensor {
        let step = |cell: &Cell, x: &Tensor, before: Option<&State>| State {
            h: activated(cell, &self.activation, &cell.sum("sum", x, before)),
            c: None,
        };
        unrolled(call, 1, &self.common(), step)
    }
}

/// - lstm.L1: `x` is `[N, S, F]`, with a known S, at least 1, and a known F.
/// - lstm.L2: `units >= 1`.
impl LayerSpec for Lstm {
    fn expand(&self, call: &Call) -> Tensor {
        let step = |cell: &Cell, x: &Tensor, before: Option<&State>| {
            let sum = cell.sum("gates", x, before);
            let gate = |name, number, f| cell.op(name, f, &[&cell.part(&sum, number, name)]);
            let (i, f) = (gate("i", 0, Elementwise::Sigmoid), gate("f", 1, Elementwise::Sigmoid));
            let (g, o) = (gate("g", 2, Elementwise::Tanh), gate("o", 3, Elementwise::Sigmoid));
            let new = cell.op("new", Elementwise::Mul, &[&i, &g]);
            let c = match before.and_then(|state| state.c.as_ref()) {
                Some(c) => {
                    let kept = cell.op("kept", Elementwise::Mul, &[&f, c]);
                    cell.op("c", Elementwise::Add, &[&kept, &new])
                }
                None => new,
            };
            let bounded = cell.op("c.tanh", Elementwise::Tanh, &[&c]);
            State { h: cell.op("h", Elementwise::Mul, &[&o, &bounded]), c: Some(c) }
        };
        unrolled(call, 4, &self.common(), step)
    }
}

/// - gru.L1: `x` is `[N, S, F]`, with a known S, at least 1, and a known F.
/// - gru.L2: `units >= 1`.
impl LayerSpec for Gru {
    fn expand(&self, call: &Call) -> Tensor {
        let step = |cell: &Cell, x: &Tensor, before: Option<&State>| {
            let (input, state) = (cell.input_part(x), cell.state_part(before));
            let sum = |name: &str, number| {
                let a = cell.part(&input, number, name);
                let b = state.as_ref().map(|state| cell.part(state, number, name));
                b.map_or_else(|| a.clone(), |b| cell.op(name, Elementwise::Add, &[&a, &b]))
            };
            let r = cell.op("r", Elementwise::Sigmoid, &[&sum("r", 0)]);
            let z = cell.op("z", Elementwise::Sigmoid, &[&sum("z", 1)]);
            let mut n = cell.part(&input, 2, "n");
            if let Some(state) = &state {
                let reset = cell.op("n", Elementwise::Mul, &[&r, &cell.part(state, 2, "n")]);
                n = cell.op("n", Elementwise::Add, &[&n, &reset]);
            }
            let n = cell.op("n", Elementwise::Tanh, &[&n]);
            // (1 - z) n + z h
            let h = match before {
                Some(before) => {
                    let change = cell.op("change", Elementwise::Sub, &[&before.h, &n]);
                    let kept = cell.op("kept", Elementwise::Mul, &[&z, &change]);
                    cell.op("h", Elementwise::Add, &[&n, &kept])
                }
                None => {
                    let lost = cell.op("lost", Elementwise::Mul, &[&z, &n]);
                    cell.op("h", Elementwise::Sub, &[&n, &lost])
                }
            };
            State { h, c: None }
        };
        unrolled(call, 3, &self.common(), step)
    }
}

/// Attributes that all recurrent layers have.
struct Common {
    units: i64,
    sequences: bool,
    backwards: bool,
    bias: bool,
    init: Init,
}

macro_rules! common {
    ($($layer:ident),*) => {
        $(impl $layer {
            fn common(&self) -> Common {
                let &$layer { units, return_sequences: sequences, backwards, bias, init, .. } = self;
                Common { units, sequences, backwards, bias, init }
            }
        })*
    };
}

common!(Rnn, Lstm, Gru);

/// What a step hands to the next: `[N, units]` each.
struct State {
    h: Tensor,
    /// The memory of an LSTM.
    c: Option<Tensor>,
}

/// The layer within one step.
struct Cell<'a> {
    call: &'a Call,
    instance: &'a Instance,
    rows: Dim,
    units: usize,
    /// Weights and biases of the input and of the state.
    weights: [Tensor; 2],
    biases: Option<[Tensor; 2]>,
}

impl Cell<'_> {
    fn op(&self, name: &str, f: Elementwise, operands: &[&Tensor]) -> Tensor {
        self.call.builder.apply_named(Op::Elementwise(f), operands, &self.instance.value(name))
    }

    /// `x W_ih + b_ih`
    fn input_part(&self, x: &Tensor) -> Tensor {
        self.product(x, 0, "input")
    }

    /// `h W_hh + b_hh`; the first state is 0.
    fn state_part(&self, before: Option<&State>) -> Option<Tensor> {
        match before {
            Some(before) => Some(self.product(&before.h, 1, "state")),
            None => self.biases.as_ref().map(|biases| self.wide(&biases[1], "state")),
        }
    }

    /// The parts of the input and of the state.
    fn sum(&self, name: &str, x: &Tensor, before: Option<&State>) -> Tensor {
        match self.state_part(before) {
            Some(state) => self.op(name, Elementwise::Add, &[&self.input_part(x), &state]),
            None => self.input_part(x),
        }
    }

    fn product(&self, x: &Tensor, which: usize, name: &str) -> Tensor {
        let ints = |n: i64| Ints::from_slice(&[n]);
        let op = op::Dot { a_contract: ints(1), b_contract: ints(0), a_batch: Ints::new(), b_batch: Ints::new() };
        let y = self.call.builder.apply_named(op, &[x, &self.weights[which]], &self.instance.value(name));
        match &self.biases {
            Some(biases) => self.op(name, Elementwise::Add, &[&y, &self.wide(&biases[which], name)]),
            None => y,
        }
    }

    /// A bias in every row.
    fn wide(&self, bias: &Tensor, name: &str) -> Tensor {
        if bias.is_invalid() {
            return bias.clone();
        }
        let shape: Shape = [self.rows.clone()].into_iter().chain(bias.shape().dims().iter().cloned()).collect();
        let op = op::Broadcast { ty: bias.ty().with_shape(shape), dims: Ints::from_slice(&[1]) };
        self.call.builder.apply_named(op, &[bias], &self.instance.value(&format!("{name}.bias")))
    }

    /// Columns of one gate.
    fn part(&self, sum: &Tensor, number: usize, name: &str) -> Tensor {
        let start = number * self.units;
        let stop: Dims = [self.rows.clone(), Dim::from(start + self.units)].into_iter().collect();
        let op = op::Slice { start: smallvec::smallvec![0, start as i64], stop, step: smallvec::smallvec![1, 1] };
        self.call.builder.apply_named(op, &[sum], &self.instance.value(name))
    }
}

fn activated(cell: &Cell<'_>, activation: &Activation, x: &Tensor) -> Tensor {
    match activation.op() {
        Some(op) => cell.call.builder.apply_named(op.clone(), &[x], &cell.instance.value("h")),
        None => x.clone(),
    }
}

/// All steps, with `gates` columns per unit.
fn unrolled(
    call: &Call,
    gates: usize,
    common: &Common,
    step: impl Fn(&Cell<'_>, &Tensor, Option<&State>) -> State,
) -> Tensor {
    let x = call.operand(0);
    let shape = x.shape();
    let known = match shape.dims() {
        [rows, steps, features] => steps.known().zip(features.known()).map(|sizes| (rows.clone(), sizes)),
        _ => None,
    };
    let Some((rows, (steps, features))) = known.filter(|(_, (steps, _))| *steps > 0) else {
        let message = format!("`{}` takes x: [N, S, F] with a known S and F, not {shape}", call.kind);
        return call.fault("L1", message, "the steps are written out: give their number, or bind its name with --bind");
    };
    let Some(units) = positive(common.units) else {
        return call.fault("L2", format!("`units` is {}, not a size", common.units), "give at least 1");
    };
    let instance = call.instance();
    let columns = units.saturating_mul(gates);
    let state = |name, shape: &[usize], init| instance.state(name, shape, Role::Param, init);
    let weight = |name, inputs| state(name, &[inputs, columns], common.init.weight(units as u64));
    let bias = |name| state(name, &[columns], common.init.bias(units as u64));
    let weights = [weight("weight_ih", features), weight("weight_hh", units)];
    let biases = common.bias.then(|| ["bias_ih", "bias_hh"].map(bias));
    if let Some(invalid) = weights.iter().chain(biases.iter().flatten()).find(|tensor| tensor.is_invalid()) {
        return invalid.clone();
    }
    let cell = Cell { call, instance: &instance, rows, units, weights, biases };
    let mut outputs = vec![None; if common.sequences { steps } else { 0 }];
    let mut before: Option<State> = None;
    for number in 0..steps {
        let time = if common.backwards { steps - 1 - number } else { number };
        let state = step(&cell, &at(&cell, x, time, features), before.as_ref());
        if let Some(output) = outputs.get_mut(time) {
            *output = Some(state.h.reshape(shape_of(&cell.rows, &[1, units])));
        }
        before = Some(state);
    }
    let Some(State { h, .. }) = before else { return x.clone() };
    if !common.sequences {
        return h;
    }
    let outputs: Vec<&Tensor> = outputs.iter().flatten().collect();
    call.builder.apply_named(op::Concat { dim: 1 }, &outputs, &instance.path)
}

/// `x[:, time]`, `[N, F]`
fn at(cell: &Cell<'_>, x: &Tensor, time: usize, features: usize) -> Tensor {
    let stop: Dims = [cell.rows.clone(), Dim::from(time + 1), Dim::from(features)].into_iter().collect();
    let op = op::Slice { start: smallvec::smallvec![0, time as i64, 0], stop, step: smallvec::smallvec![1, 1, 1] };
    let slice = cell.call.builder.apply_named(op, &[x], &cell.instance.value("x"));
    if slice.is_invalid() { slice } else { slice.reshape(shape_of(&cell.rows, &[features])) }
}

fn shape_of(rows: &Dim, rest: &[usize]) -> Shape {
    [rows.clone()].into_iter().chain(rest.iter().map(|&n| Dim::from(n))).collect()
}
