//! Speed of generated code and of generating it. `cargo bench -p kiln --bench codegen [clif|asm NAME]`
#![allow(unsafe_code, clippy::unwrap_used, reason = "calls kernels; a broken measurement may panic")]
#![allow(missing_docs, reason = "a program")]

use std::time::Instant;

use kiln::codegen::Texts;
use kiln::codegen::jit::JitCode;
use kiln::loops::nest::{Access, Expr, Index, Loop, LoopNest, NestBuilder, Var};
use kiln_ir::DType::F32;
use kiln_ir::scalar::BinaryFn::{Add, Div, Max, Mul, Sub};
use kiln_ir::scalar::UnaryFn::{Exp, Sqrt, Tanh};

const LEN: usize = 16 * 1024;

/// One loop over `LEN` elements of `buffers` buffers; all but those in `written` are only read.
fn elementwise(
    name: &str,
    buffers: usize,
    written: &[usize],
    f: impl Fn(&NestBuilder, &[Expr]) -> Vec<Expr>,
) -> LoopNest {
    let n = NestBuilder::new(name);
    let places: Vec<_> = (0..buffers).map(|i| n.buffer(format!("b{i}"), F32, LEN, Access::ReadWrite)).collect();
    let i = n.var("i");
    let loads: Vec<Expr> = places.iter().map(|place| n.load(*place, Index::var(i))).collect();
    let values = f(&n, &loads);
    let mut body = Vec::new();
    let mut stored = Vec::new();
    for (number, value) in values.into_iter().enumerate() {
        let local = n.local("v", F32);
        body.push(n.define(local, value));
        stored.push(n.store(places[written[number]], Index::var(i), n.value(local)));
    }
    body.extend(stored);
    n.finish(1, vec![Loop::over(i, LEN).vector().body(body)])
}

fn relu_add() -> LoopNest {
    elementwise("relu_add", 3, &[2], |n, x| vec![n.binary(Max, n.binary(Add, x[0], x[1]), n.literal(0.0, F32))])
}

fn gelu_tanh() -> LoopNest {
    elementwise("gelu_tanh", 2, &[1], |n, x| {
        let number = |value: f64| n.literal(value, F32);
        let x = x[0];
        let square = n.binary(Mul, x, x);
        let inner = n.binary(Add, x, n.binary(Mul, number(0.044715), n.binary(Mul, square, x)));
        let tanh = n.unary(Tanh, n.binary(Mul, number(0.797_884_560_8), inner));
        vec![n.binary(Mul, n.binary(Mul, number(0.5), x), n.binary(Add, number(1.0), tanh))]
    })
}

fn adam() -> LoopNest {
    elementwise("adam", 4, &[1, 2, 3], |n, x| {
        let number = |value: f64| n.literal(value, F32);
        let [gradient, mean, variance, weight] = *x else { return Vec::new() };
        let mix = |old, new, rate: f64| {
            n.binary(Add, n.binary(Mul, old, number(rate)), n.binary(Mul, new, number(1.0 - rate)))
        };
        let mean = mix(mean, gradient, 0.9);
        let variance = mix(variance, n.binary(Mul, gradient, gradient), 0.999);
        let root = n.unary(Sqrt, n.binary(Mul, variance, number(1.01)));
        let step = n.binary(Div, n.binary(Mul, mean, number(1.1)), n.binary(Add, root, number(1e-8)));
        vec![mean, variance, n.binary(Sub, weight, n.binary(Mul, step, number(1e-3)))]
    })
}

fn exp() -> LoopNest {
    elementwise("exp", 2, &[1], |n, x| vec![n.unary(Exp, x[0])])
}

fn dropout() -> LoopNest {
    let n = NestBuilder::new("dropout");
    let x = n.buffer("x", F32, LEN, Access::ReadWrite);
    let y = n.buffer("y", F32, LEN, Access::ReadWrite);
    let i = n.var("i");
    let word = n.philox(0x1234_5678, n.literal(3i64, kiln_ir::DType::I64), n.index(Index::var(i)));
    let keep = n.compare(kiln_ir::scalar::CompareFn::Lt, word, n.literal(0x8000_0000i64, kiln_ir::DType::U32));
    let value = n.select(keep, n.binary(Mul, n.load(x, Index::var(i)), n.literal(2.0, F32)), n.literal(0.0, F32));
    n.finish(1, vec![Loop::over(i, LEN).vector().body(vec![n.store(y, Index::var(i), value)])])
}

fn softmax() -> LoopNest {
    let columns = 128;
    let n = NestBuilder::new("softmax");
    let x = n.buffer("x", F32, LEN, Access::ReadWrite);
    let y = n.buffer("y", F32, LEN, Access::ReadWrite);
    let e = n.scratch("e", F32, columns);
    let (j, k, l) = (n.var("j"), n.var("k"), n.var("l"));
    let (largest, sum) = (n.local("largest", F32), n.local("sum", F32));
    let at = |column| Index::var(Var::TILE) * columns as i64 + Index::var(column);
    let stage1 = Loop::over(j, columns)
        .vector()
        .accumulate(largest, n.literal(f64::NEG_INFINITY, F32), Max)
        .body(vec![n.set(largest, n.binary(Max, n.value(largest), n.load(x, at(j))))]);
    let exp = n.unary(Exp, n.binary(Sub, n.load(x, at(k)), n.value(largest)));
    let stage2 = Loop::over(k, columns)
        .vector()
        .accumulate(sum, n.literal(0.0, F32), Add)
        .body(vec![n.store(e, Index::var(k), exp), n.set(sum, n.binary(Add, n.value(sum), exp))]);
    let quotient = n.binary(Div, n.load(e, Index::var(l)), n.value(sum));
    let stage3 = Loop::over(l, columns).vector().body(vec![n.store(y, at(l), quotient)]);
    n.finish((LEN / columns) as u64, vec![stage1, stage2, stage3])
}

fn full_sum() -> LoopNest {
    let n = NestBuilder::new("sum");
    let x = n.buffer("x", F32, LEN, Access::ReadWrite);
    let y = n.buffer("y", F32, 1, Access::ReadWrite);
    let (i, sum) = (n.var("i"), n.local("sum", F32));
    let next = n.binary(Add, n.value(sum), n.load(x, Index::var(i)));
    let sums = Loop::over(i, LEN).vector().accumulate(sum, n.literal(0.0, F32), Add);
    n.finish(1, vec![sums.body(vec![n.set(sum, next)]), n.store(y, Index::constant(0), n.value(sum))])
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn measure(nest: &LoopNest) {
    let compile = || {
        let start = Instant::now();
        let code = JitCode::compile(std::slice::from_ref(nest), Texts::default()).unwrap();
        (start.elapsed().as_secs_f64(), code)
    };
    let code = compile().1;
    let compile_ms = median((0..21).map(|_| compile().0 * 1e3).collect());
    let mut data: Vec<Vec<f32>> =
        nest.buffers.iter().map(|b| (0..b.elements).map(|i| (i % 977) as f32 * 0.004 - 1.9).collect()).collect();
    let pointers: Vec<*mut u8> = data.iter_mut().map(|data| data.as_mut_ptr().cast()).collect();
    let run = || {
        let start = Instant::now();
        for _ in 0..20 {
            // SAFETY: the buffers have the sizes that the nest declares.
            unsafe { code.invoke(0, &pointers, &[], 0..nest.tiles) }.unwrap();
        }
        start.elapsed().as_secs_f64() / 20.0
    };
    run();
    let seconds = median((0..41).map(|_| run()).collect());
    let kernel = code.kernel(0);
    println!(
        "{:10} {:6.3} ns/element   compile {:6.3} ms   {:5} CLIF instructions {:6} bytes",
        nest.name,
        seconds * 1e9 / LEN as f64,
        compile_ms,
        kernel.instructions,
        kernel.code.len()
    );
}

/// A training step's worth of distinct kernels.
fn many() {
    let nests: Vec<LoopNest> = (0..40)
        .map(|i| {
            let mut nest = match i % 4 {
                0 => gelu_tanh(),
                1 => adam(),
                2 => softmax(),
                _ => relu_add(),
            };
            nest.buffers[0].elements += i;
            nest
        })
        .collect();
    let times = (0..11).map(|_| {
        let start = Instant::now();
        let code = JitCode::compile(&nests, Texts::default()).unwrap();
        assert_eq!(code.kernels().len(), 40);
        start.elapsed().as_secs_f64() * 1e3
    });
    println!("40 kernels  compile {:6.2} ms", median(times.collect()));
}

fn main() {
    let nests = [relu_add(), gelu_tanh(), adam(), exp(), dropout(), softmax(), full_sum()];
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [what, name] = &args[..] {
        let nest = nests.iter().find(|nest| nest.name == *name).unwrap();
        let code = JitCode::compile(std::slice::from_ref(nest), Texts { clif: true, asm: true }).unwrap();
        let kernel = code.kernel(0);
        let text = if what == "clif" { &kernel.clif } else { &kernel.asm };
        println!("{nest}\n{}", text.as_deref().unwrap_or(""));
        return;
    }
    nests.iter().for_each(measure);
    many();
}
