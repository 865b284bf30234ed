//! Loops at 512 bit against the same loops in four lanes: the same bits, but for sums, whose order is given here.

use super::*;
use crate::codegen::Width;

/// Buffers after a run of the wide and of the narrow code, which must have wide loops if the machine can.
pub(super) fn both(nest: &LoopNest, buffers: &[Bytes]) -> [Vec<Bytes>; 2] {
    let wide = compile(nest).unwrap();
    if Level::Avx512.available() {
        let widths: Vec<Width> = wide.kernel(0).loops.iter().map(|l| l.width).collect();
        assert!(widths.iter().all(|width| matches!(width, Width::Wide { .. })), "{widths:?}\n{nest}");
    }
    [wide, compile_narrow(nest)].map(|code| {
        let mut buffers = buffers.to_vec();
        let pointers: Vec<*mut u8> = buffers.iter_mut().map(|buffer| buffer.raw().as_mut_ptr()).collect();
        // SAFETY: the buffers have the declared sizes, and the nests of this file stay in range.
        unsafe { code.invoke(0, &pointers, &[], 0..nest.tiles) }.unwrap();
        buffers
    })
}

/// Bits, with every NaN the same.
pub(super) fn bits(bytes: &mut Bytes) -> Vec<u32> {
    bytes.get::<f32>().iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// Numbers of every kind: edges first, then all magnitudes.
pub(super) fn numbers(len: usize, seed: u64) -> Vec<f32> {
    const EDGES: [f32; 12] = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        1.0,
        -1.0,
        f32::MIN_POSITIVE,
        1e-45,
        f32::MAX,
        -104.5,
        88.9,
    ];
    let mut random = Random(seed);
    let number = |position: usize| match random.below(3) {
        0 => EDGES[(position + random.below(12)) % 12],
        1 => (random.below(2_000_001) as f32 - 1e6) * 1e-5,
        _ => f32::from_bits(random.next() as u32),
    };
    (0..len).map(number).collect()
}

/// Knuth's linear congruence.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit
    }
}

#[test]
fn functions_have_the_bits_of_four_lanes() {
    use UnaryFn::{Abs, Ceil, Erf, Exp, Floor, Log, Neg, Round, Rsqrt, Sign, Sqrt, Tanh};
    let steps = (0..=u32::MAX).step_by(65_537).map(f32::from_bits);
    let fine = (0..200_000).map(|i| (i as f32 - 1e5) * 1.1e-3);
    let values: Vec<f32> = steps.chain(fine).chain(numbers(1000, 1)).collect();
    for function in [Neg, Abs, Sign, Exp, Log, Sqrt, Rsqrt, Tanh, Erf, Floor, Ceil, Round] {
        let nest = map(&[F32], F32, values.len(), |n, x| n.unary(function, x[0]));
        let [mut wide, mut narrow] = both(&nest, &[Bytes::of(&values), Bytes::zeros(values.len() * 4)]);
        let (wide, narrow) = (bits(&mut wide[1]), bits(&mut narrow[1]));
        for ((x, wide), narrow) in values.iter().zip(wide).zip(narrow) {
            assert_eq!(wide, narrow, "{function:?}({x:e})");
        }
    }
}

/// A random value of the numbers and truth values made so far.
fn random_value(n: &NestBuilder, random: &mut Random, numbers: &mut Vec<Expr>, truths: &mut Vec<Expr>) {
    let pick = |random: &mut Random, of: &[Expr]| of[random.below(of.len())];
    let (a, b, c) = (pick(random, numbers), pick(random, numbers), pick(random, numbers));
    let unary = [UnaryFn::Exp, UnaryFn::Tanh, UnaryFn::Sqrt, UnaryFn::Neg, UnaryFn::Abs, UnaryFn::Floor, UnaryFn::Log];
    let binary = [Add, Sub, Mul, Div, Max, BinaryFn::Min];
    let compare = [CompareFn::Lt, CompareFn::Le, CompareFn::Gt, CompareFn::Ge, CompareFn::Eq, CompareFn::Ne];
    match random.below(12) {
        0 => numbers.push(n.unary(unary[random.below(unary.len())], a)),
        1..=4 => numbers.push(n.binary(binary[random.below(binary.len())], a, b)),
        5 => numbers.push(n.mul_add(a, b, c)),
        6 | 7 => truths.push(n.compare(compare[random.below(6)], a, b)),
        8 if truths.len() > 1 => {
            let f = [BinaryFn::And, BinaryFn::Or, BinaryFn::Xor][random.below(3)];
            let (p, q) = (pick(random, truths), pick(random, truths));
            truths.push(n.binary(f, p, q));
        }
        9 if !truths.is_empty() => {
            let p = pick(random, truths);
            truths.push(n.unary(UnaryFn::Not, p));
        }
        10 if !truths.is_empty() => numbers.push(n.cast(pick(random, truths), F32)),
        _ if !truths.is_empty() => numbers.push(n.select(pick(random, truths), a, b)),
        _ => numbers.push(n.binary(Mul, a, n.literal(random.below(100) as f64 / 7.0 - 5.0, F32))),
    }
}

#[test]
fn random_bodies_have_the_bits_of_four_lanes() {
    let mut wide_bodies = 0;
    for seed in 0..300 {
        let mut random = Random(seed);
        // Every length of tail; shorter loops are never wide.
        let len = 16 + (seed as usize % 64);
        let n = NestBuilder::new("random");
        let x = n.buffer("x", F32, len, Access::Read);
        let z = n.buffer("z", F32, len + 1, Access::Read);
        let s = n.buffer("s", F32, 1, Access::Read);
        let y = n.buffer("y", F32, len, Access::Write);
        let t = n.buffer("t", Bool, len, Access::Write);
        let i = n.var("i");
        let mut truths = Vec::new();
        let mut numbers_made = vec![
            n.load(x, Index::var(i)),
            n.load(z, Index::var(i)),
            n.load(z, Index::var(i) + 1i64),
            n.load(s, Index::constant(0)),
            n.literal(0.5, F32),
        ];
        let count = 1 + random.below(40);
        for _ in 0..count {
            random_value(&n, &mut random, &mut numbers_made, &mut truths);
        }
        let number = numbers_made[numbers_made.len() - 1];
        let truth = truths.last().copied().unwrap_or_else(|| n.compare(CompareFn::Lt, number, numbers_made[0]));
        // Stored by way of a local, and only if it differs between lanes.
        let local = n.local("l", F32);
        let sum = n.binary(Add, number, numbers_made[0]);
        let truth = n.binary(BinaryFn::And, truth, n.compare(CompareFn::Ne, numbers_made[1], numbers_made[2]));
        let body =
            vec![n.define(local, sum), n.store(t, Index::var(i), truth), n.store(y, Index::var(i), n.value(local))];
        let nest = n.finish(1, vec![Loop::over(i, len).vector().body(body)]);
        let buffers = [
            Bytes::of(&numbers(len, seed + 1)),
            Bytes::of(&numbers(len + 1, seed + 2)),
            Bytes::of(&numbers(1, seed + 3)),
            Bytes::zeros(len * 4),
            Bytes::zeros(len),
        ];
        let compiled = compile(&nest).unwrap();
        if !compiled.kernel(0).loops.iter().all(|l| matches!(l.width, Width::Wide { .. })) {
            continue;
        }
        wide_bodies += 1;
        let [mut wide, mut narrow] = both(&nest, &buffers);
        assert_eq!(bits(&mut wide[3]), bits(&mut narrow[3]), "seed {seed}\n{nest}");
        assert_eq!(wide[4].get::<u8>(), narrow[4].get::<u8>(), "seed {seed}\n{nest}");
    }
    assert!(wide_bodies > 250 || !Level::Avx512.available(), "{wide_bodies} bodies are wide");
}

#[test]
fn every_length_and_nothing_past_the_end() {
    for len in 0..=150usize {
        let nest = map(&[F32], F32, len, |n, x| n.binary(Add, n.unary(UnaryFn::Exp, x[0]), n.literal(1.0, F32)));
        let wide = compile(&nest).unwrap();
        let narrow = compile_narrow(&nest);
        let results = [wide, narrow].map(|code| {
            let (mut x, mut y) = (Bytes::of(&numbers(len, 5)), Bytes::zeros(len * 4));
            let pointers = [x.raw().as_mut_ptr(), y.raw().as_mut_ptr()];
            // SAFETY: as in `both`.
            unsafe { code.invoke(0, &pointers, &[], 0..1) }.unwrap();
            bits(&mut y)
        });
        assert_eq!(results[0], results[1], "len {len}");
    }
}

/// `y = combine over x` from `init`.
fn reduction<T: Element>(len: usize, combine: BinaryFn, init: impl Into<Number>) -> LoopNest {
    let n = NestBuilder::new("reduce");
    let x = n.buffer("x", T::DTYPE, len, Access::Read);
    let y = n.buffer("y", T::DTYPE, 1, Access::Write);
    let (i, acc) = (n.var("i"), n.local("acc", T::DTYPE));
    let next = n.binary(combine, n.value(acc), n.load(x, Index::var(i)));
    let node = Loop::over(i, len).vector().accumulate(acc, n.literal(init, T::DTYPE), combine);
    n.finish(1, vec![node.body(vec![n.set(acc, next)]), n.store(y, Index::constant(0), n.value(acc))])
}

#[test]
fn reductions_that_have_no_order_are_exact() {
    for len in (16..60).chain([128, 255, 1003]) {
        let ints: Vec<i32> = (0..len as i32).map(|i| (i * 7919) % 1001 - 500).collect();
        for combine in [Add, Mul, Max, BinaryFn::Min, BinaryFn::And, BinaryFn::Or] {
            let nest = reduction::<i32>(len, combine, 3i64);
            let [mut wide, mut narrow] = both(&nest, &[Bytes::of(&ints), Bytes::zeros(4)]);
            assert_eq!(wide[1].get::<i32>(), narrow[1].get::<i32>(), "{combine:?} of {len}");
        }
        for combine in [Max, BinaryFn::Min] {
            for seed in 0..4 {
                let mut floats: Vec<f32> =
                    numbers(len, seed).iter().map(|x| if x.is_nan() { 2.0 } else { *x }).collect();
                if seed > 1 {
                    floats[(seed as usize * 31) % len] = f32::NAN;
                }
                let nest = reduction::<f32>(len, combine, 1.0);
                let [mut wide, mut narrow] = both(&nest, &[Bytes::of(&floats), Bytes::zeros(4)]);
                let (wide, narrow) = (wide[1].get::<f32>()[0], narrow[1].get::<f32>()[0]);
                assert!(wide == narrow || (wide.is_nan() && narrow.is_nan()), "{combine:?} of {len}: {wide} {narrow}");
                assert_eq!(wide.is_nan(), seed > 1, "a NaN wins");
            }
        }
    }
}

/// Up to eight vectors of partial sums, combined in halves, then the halves of the vector; the rest goes to the first.
fn ordered_sum(xs: &[f32]) -> f32 {
    let copies = match xs.len() / 16 {
        0 | 1 => 1,
        2 | 3 => 2,
        4..=7 => 4,
        _ => 8,
    };
    let mut partial = vec![[0f32; 16]; copies];
    let rounds = xs.len() / (16 * copies) * copies;
    for (number, vector) in xs.chunks(16).enumerate() {
        let copy = if number < rounds { number % copies } else { 0 };
        vector.iter().enumerate().for_each(|(lane, x)| partial[copy][lane] += x);
    }
    while partial.len() > 1 {
        let upper = partial.split_off(partial.len() / 2);
        partial.iter_mut().zip(upper).for_each(|(a, b)| (0..16).for_each(|lane| a[lane] += b[lane]));
    }
    let mut lanes = partial[0];
    for half in [8, 4, 2, 1] {
        (0..half).for_each(|lane| lanes[lane] += lanes[lane + half]);
    }
    100.0 + lanes[0]
}

#[test]
fn sums_in_the_documented_order() {
    if !Level::Avx512.available() {
        return;
    }
    for len in (16..80).chain([127, 128, 255, 1003]) {
        let xs: Vec<f32> = (0..len).map(|i| ((i * 7919) % 1001) as f32 * 0.37 - 100.0).collect();
        let nest = reduction::<f32>(len, Add, 100.0);
        let [mut wide, _] = both(&nest, &[Bytes::of(&xs), Bytes::zeros(4)]);
        assert_eq!(wide[1].get::<f32>(), [ordered_sum(&xs)], "len {len}");
    }
}

#[test]
fn inner_loops_run_inside_the_lanes() {
    // y[c] = 1 + sum over a, b of x[a, b, c] * w[a, b], and the greatest x of the last pair.
    for columns in [16usize, 17, 31, 33, 100, 130] {
        let (first, second) = (3usize, 5usize);
        let n = NestBuilder::new("columns");
        let x = n.buffer("x", F32, first * second * columns, Access::Read);
        let w = n.buffer("w", F32, first * second, Access::Read);
        let y = n.buffer("y", F32, columns, Access::Write);
        let top = n.buffer("top", F32, columns, Access::Write);
        let (a, b, c) = (n.var("a"), n.var("b"), n.var("c"));
        let (outer, inner, largest) = (n.local("outer", F32), n.local("inner", F32), n.local("largest", F32));
        let row = Index::var(a) * second as i64 + Index::var(b);
        let value = n.load(x, row.clone() * columns as i64 + Index::var(c));
        let body = vec![
            n.set(inner, n.mul_add(value, n.load(w, row), n.value(inner))),
            n.set(largest, n.binary(Max, n.value(largest), n.binary(Mul, value, n.load(w, Index::constant(0))))),
        ];
        let inner_loop = Loop::range(b, 0i64, second)
            .accumulate(inner, n.value(outer), Add)
            .accumulate(largest, n.literal(-1.0, F32), Max)
            .body(body);
        let hand_over = n.set(outer, n.value(inner));
        let outer_loop = Loop::over(a, first).accumulate(outer, n.literal(1.0, F32), Add).body(vec![
            inner_loop,
            hand_over,
            n.store(top, Index::var(c), n.value(largest)),
        ]);
        let lanes = Loop::over(c, columns).vector().body(vec![outer_loop, n.store(y, Index::var(c), n.value(outer))]);
        let nest = n.finish(1, vec![lanes]);
        let xs: Vec<f32> = (0..first * second * columns).map(|i| ((i * 7919) % 257) as f32 * 0.1 - 9.0).collect();
        let ws: Vec<f32> = (0..first * second).map(|i| i as f32 * 0.25 - 1.5).collect();
        let zeros = Bytes::zeros(columns * 4);
        let [mut wide, mut narrow] = both(&nest, &[Bytes::of(&xs), Bytes::of(&ws), zeros.clone(), zeros]);
        // Order of the sums is that of the loops, at every width.
        assert_eq!(bits(&mut wide[2]), bits(&mut narrow[2]), "{columns} columns");
        assert_eq!(bits(&mut wide[3]), bits(&mut narrow[3]), "{columns} columns");
        let want = (0..columns).map(|c| {
            let at = |pair: usize| f64::from(xs[pair * columns + c]) * f64::from(ws[pair]);
            1.0 + (0..first * second).map(at).sum::<f64>()
        });
        for (got, want) in wide[2].get::<f32>().iter().zip(want) {
            assert!((f64::from(*got) - want).abs() <= 1e-4, "{got} {want}");
        }
    }
}

#[test]
fn bytes_and_integers() {
    let len = 83;
    let ints: Vec<i32> = (0..len as i32).map(|i| i.wrapping_mul(0x0123_4567) ^ 0x55).collect();
    let nest = map(&[I32, I8], F32, len, |n, x| {
        let three = n.binary(BinaryFn::Shr, x[0], n.literal(3i64, I32));
        let mixed = n.binary(BinaryFn::Xor, n.binary(Mul, three, x[0]), n.cast(x[1], I32));
        let least = n.binary(BinaryFn::Min, n.binary(Sub, mixed, x[0]), n.literal(1_000_000i64, I32));
        n.binary(Add, n.cast(least, F32), n.cast(x[1], F32))
    });
    let bytes: Vec<i8> = (0..len).map(|i| (i * 37) as i8).collect();
    let [mut wide, mut narrow] = both(&nest, &[Bytes::of(&ints), Bytes::of(&bytes), Bytes::zeros(len * 4)]);
    assert_eq!(bits(&mut wide[2]), bits(&mut narrow[2]));
}

#[test]
fn floats_become_the_nearest_integers() {
    let values: Vec<f32> =
        numbers(400, 9).into_iter().chain([2.5e9, -2.5e9, 2_147_483_648.0, -2_147_483_648.0]).collect();
    let nest = map(&[F32], I32, values.len(), |n, x| n.cast(x[0], I32));
    let [mut wide, mut narrow] = both(&nest, &[Bytes::of(&values), Bytes::zeros(values.len() * 4)]);
    assert_eq!(wide[1].get::<i32>(), values.iter().map(|x| *x as i32).collect::<Vec<_>>());
    assert_eq!(narrow[1].get::<i32>(), wide[1].get::<i32>());
}

#[test]
fn in_place_over_many_vectors() {
    let len = 211;
    let n = NestBuilder::new("place");
    let x = n.buffer("x", F32, len, Access::ReadWrite);
    let i = n.var("i");
    let value = n.binary(Mul, n.load(x, Index::var(i)), n.literal(3.0, F32));
    let nest = n.finish(1, vec![Loop::over(i, len).vector().body(vec![n.store(x, Index::var(i), value)])]);
    let xs: Vec<f32> = (0..len).map(|i| i as f32).collect();
    let [mut wide, _] = both(&nest, &[Bytes::of(&xs)]);
    assert_eq!(wide[0].get::<f32>(), xs.iter().map(|x| x * 3.0).collect::<Vec<_>>());
}

#[test]
fn reasons_why_loops_stay_narrow() {
    if !Level::Avx512.available() {
        return;
    }
    let reason = |nest: &LoopNest| match compile(nest).unwrap().kernel(0).loops[0].width {
        Width::Narrow { reason } => reason,
        Width::Wide { .. } => "wide",
    };
    assert_eq!(reason(&map(&[F32], F32, 15, |_, x| x[0])), "fewer iterations than lanes");
    assert_eq!(reason(&map(&[F64], F64, 64, |n, x| n.unary(UnaryFn::Neg, x[0]))), "elements of 64 bit");
    assert!(reason(&map(&[F32], F32, 64, |n, x| n.unary(UnaryFn::Sin, x[0]))).contains("binary64"));
    let narrow = compile_narrow(&map(&[F32], F32, 64, |_, x| x[0]));
    assert_eq!(narrow.kernel(0).loops[0].width, Width::Narrow { reason: "wider vectors are not used" });
}

/// `x[a, b, c]` with loops over `a` (of which tiles take two) and `b` around lanes over `c`.
#[test]
fn rows_around_the_lanes_keep_their_own_values() {
    for (planes, rows, columns) in [(4usize, 3usize, 16usize), (2, 5, 49), (6, 2, 100)] {
        let n = NestBuilder::new("rows");
        let x = n.buffer("x", F32, planes * rows * columns, Access::Read);
        let mean = n.buffer("mean", F32, rows, Access::Read);
        let variance = n.buffer("variance", F32, rows, Access::Read);
        let bias = n.buffer("bias", F32, columns, Access::Read);
        let y = n.buffer("y", F32, planes * rows * columns, Access::Write);
        let (a, b, c) = (n.var("a"), n.var("b"), n.var("c"));
        let at = (Index::var(a) * rows as i64 + Index::var(b)) * columns as i64 + Index::var(c);
        let shifted = n.binary(Sub, n.load(x, at.clone()), n.load(mean, Index::var(b)));
        let padded = n.binary(Add, n.load(variance, Index::var(b)), n.literal(1e-5, F32));
        let scaled = n.binary(Mul, shifted, n.unary(UnaryFn::Rsqrt, padded));
        let store = n.store(y, at, n.binary(Add, scaled, n.load(bias, Index::var(c))));
        let lanes = Loop::over(c, columns).vector().body(vec![store]);
        let outer = Loop::range(a, Index::var(Var::TILE) * 2, Index::var(Var::TILE) * 2 + 2i64);
        let nest = n.finish(planes as u64 / 2, vec![outer.body(vec![Loop::over(b, rows).body(vec![lanes])])]);
        let count = planes * rows * columns;
        let variances: Vec<f32> = (0..rows).map(|i| 0.5 + i as f32).collect();
        let buffers = [
            Bytes::of(&numbers(count, 3)),
            Bytes::of(&numbers(rows, 4)),
            Bytes::of(&variances),
            Bytes::of(&numbers(columns, 5)),
            Bytes::zeros(count * 4),
        ];
        let code = compile(&nest).unwrap();
        if Level::Avx512.available() {
            assert_eq!(code.kernel(0).loops.len(), 1);
        }
        let [mut wide, mut narrow] = both(&nest, &buffers);
        assert_eq!(bits(&mut wide[4]), bits(&mut narrow[4]), "{planes} {rows} {columns}");
    }
}

#[test]
fn sums_go_on_from_row_to_row() {
    // One sum and one maximum over x[a, b, c] per tile; whole numbers, so that every order gives the same.
    let (planes, rows, columns) = (3usize, 4usize, 37usize);
    let n = NestBuilder::new("sums");
    let x = n.buffer("x", F32, 2 * planes * rows * columns, Access::Read);
    let y = n.buffer("y", F32, 4, Access::Write);
    let (a, b, c) = (n.var("a"), n.var("b"), n.var("c"));
    let sums: Vec<_> = (0..3).map(|level| n.local(&format!("sum{level}"), F32)).collect();
    let tops: Vec<_> = (0..3).map(|level| n.local(&format!("top{level}"), F32)).collect();
    let plane = Index::var(Var::TILE) * planes as i64 + Index::var(a);
    let value = n.load(x, (plane * rows as i64 + Index::var(b)) * columns as i64 + Index::var(c));
    let level = |node: Loop, number: usize, inner: Vec<crate::loops::nest::Stmt>| {
        let (sum, top) = match number {
            0 => (n.literal(5.0, F32), n.literal(-1e9, F32)),
            _ => (n.value(sums[number - 1]), n.value(tops[number - 1])),
        };
        let node = node.accumulate(sums[number], sum, Add).accumulate(tops[number], top, Max);
        let mut body = inner;
        if number < 2 {
            body.push(n.set(sums[number], n.value(sums[number + 1])));
            body.push(n.set(tops[number], n.value(tops[number + 1])));
        }
        node.body(body)
    };
    let innermost = vec![
        n.set(sums[2], n.binary(Add, n.value(sums[2]), value)),
        n.set(tops[2], n.binary(Max, n.value(tops[2]), value)),
    ];
    let lanes = level(Loop::over(c, columns).vector(), 2, innermost);
    let middle = level(Loop::range(b, 1i64, rows).step(2), 1, vec![lanes]);
    let outer = level(Loop::over(a, planes), 0, vec![middle]);
    let at = |number: i64| Index::var(Var::TILE) * 2 + Index::constant(number);
    let nest = n.finish(2, vec![outer, n.store(y, at(0), n.value(sums[0])), n.store(y, at(1), n.value(tops[0]))]);
    let xs: Vec<f32> = (0..2 * planes * rows * columns).map(|i| ((i * 7919) % 2003) as f32 - 1000.0).collect();
    let [mut wide, mut narrow] = both(&nest, &[Bytes::of(&xs), Bytes::zeros(16)]);
    let mut want = Vec::new();
    for tile in 0..2 {
        let chosen = (0..planes * rows).filter(|row| [1, 3].contains(&(row % rows)));
        let all = chosen.flat_map(|row| &xs[(tile * planes * rows + row) * columns..][..columns]);
        want.push(5.0 + all.clone().sum::<f32>());
        want.push(all.copied().fold(-1e9, f32::max));
    }
    assert_eq!(wide[1].get::<f32>(), want);
    assert_eq!(narrow[1].get::<f32>(), want);
}

/// Windows of 2 x 2 with a step of 2 over planes of `2 height + odd` x `2 width + odd`: the greatest number and its place,
/// the first NaN if there is one. With `odd`, rows are found by quotient and remainder.
fn max_pool(planes: usize, height: usize, width: usize, odd: usize) -> LoopNest {
    let (rows, columns) = (2 * height + odd, 2 * width + odd);
    let n = NestBuilder::new("pool");
    let x = n.buffer("x", F32, planes * rows * columns, Access::Read);
    let y = n.buffer("y", F32, planes * height * width, Access::Write);
    let place = n.buffer("place", I32, planes * height * width, Access::Write);
    let (row, i) = (n.var("row"), n.var("i"));
    let origin = if odd == 0 {
        Index::var(row) * (2 * columns) as i64
    } else {
        let plane = Index::var(row).floor_div(height as i64) * (rows * columns) as i64;
        plane + Index::var(row).modulo(height as i64) * (2 * columns) as i64
    };
    let at = |down: usize, right: usize| n.load(x, origin.clone() + Index::var(i) * 2 + (down * columns + right));
    let (mut best, mut where_) = (at(0, 0), n.literal(0i64, I32));
    for (number, (down, right)) in [(0, 1), (1, 0), (1, 1)].into_iter().enumerate() {
        let next = at(down, right);
        let nan = n.binary(BinaryFn::And, n.compare(CompareFn::Ne, next, next), n.compare(CompareFn::Eq, best, best));
        let better = n.binary(BinaryFn::Or, n.compare(CompareFn::Gt, next, best), nan);
        best = n.select(better, next, best);
        where_ = n.select(better, n.literal(number as i64 + 1, I32), where_);
    }
    let out = Index::var(row) * width as i64 + Index::var(i);
    let body = vec![n.store(y, out.clone(), best), n.store(place, out, where_)];
    let lanes = Loop::over(i, width).vector().body(body);
    // Two tiles, the second of which begins in the middle of a plane.
    let half = (planes * height / 2 + 1) as i64;
    let (begin, end) =
        (Index::var(Var::TILE) * half, (Index::var(Var::TILE) * half + half).at_most((planes * height) as i64));
    n.finish(2, vec![Loop::range(row, begin, end).body(vec![lanes])])
}

#[test]
fn windows_with_steps_of_two() {
    for (planes, height, width) in [(3usize, 5usize, 6usize), (2, 3, 15), (2, 4, 16), (1, 3, 33), (1, 2, 100)] {
        for odd in [0, 1] {
            let nest = max_pool(planes, height, width, odd);
            let xs = numbers(planes * (2 * height + odd) * (2 * width + odd), width as u64);
            let outputs = planes * height * width;
            let zeros = Bytes::zeros(outputs * 4);
            let [mut wide, mut narrow] = both(&nest, &[Bytes::of(&xs), zeros.clone(), zeros]);
            assert_eq!(bits(&mut wide[1]), bits(&mut narrow[1]), "{planes} {height} {width} {odd}");
            assert_eq!(wide[2].get::<i32>(), narrow[2].get::<i32>(), "{planes} {height} {width} {odd}");
        }
    }
}

/// `y[2 i + phase, 2 j + phase'] = (place[i, j] = 2 phase + phase' ? dy[i, j] : 0)` where `(i, j)` exists.
#[test]
fn stores_with_steps_of_two_and_loads_that_may_be_outside() {
    for (height, width) in [(4usize, 6usize), (3, 15), (2, 16), (2, 40)] {
        let (rows, columns) = (2 * height + 1, 2 * width + 1);
        let n = NestBuilder::new("grad");
        let dy = n.buffer("dy", F32, height * width, Access::Read);
        let place = n.buffer("place", I32, height * width, Access::Read);
        let y = n.buffer("y", F32, rows * columns, Access::Write);
        let mut body = Vec::new();
        for (down, right) in [(0usize, 0usize), (0, 1), (1, 0), (1, 1)] {
            let (i, j) = (n.var("i"), n.var("j"));
            let at = Index::var(i) * width as i64 + Index::var(j);
            let inside = n.binary(
                BinaryFn::And,
                n.in_range(Index::var(i), height as i64),
                n.in_range(Index::var(j), width as i64),
            );
            let chosen = n.guarded_load(place, at.clone(), inside, n.literal(-1i64, I32));
            let value = n.guarded_load(dy, at, inside, n.literal(0.0, F32));
            let number = n.literal((2 * down + right) as i64, I32);
            let value = n.select(n.compare(CompareFn::Eq, chosen, number), value, n.literal(0.0, F32));
            let to = (Index::var(i) * 2 + down) * columns as i64 + Index::var(j) * 2 + right;
            let lanes = Loop::over(j, width + 1 - right).vector().body(vec![n.store(y, to, value)]);
            body.push(Loop::over(i, height + 1 - down).body(vec![lanes]));
        }
        let nest = n.finish(1, body);
        let xs = numbers(height * width, 11);
        let places: Vec<i32> = (0..height * width).map(|i| (i * 7919 % 101) as i32 % 4).collect();
        let zeros = Bytes::zeros(rows * columns * 4);
        let [mut wide, mut narrow] = both(&nest, &[Bytes::of(&xs), Bytes::of(&places), zeros]);
        let (wide, narrow) = (bits(&mut wide[2]), bits(&mut narrow[2]));
        assert_eq!(wide, narrow, "{height} {width}");
        for (at, (x, place)) in xs.iter().zip(&places).enumerate() {
            let (i, j) = (at / width * 2 + *place as usize / 2, at % width * 2 + *place as usize % 2);
            let want = if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() };
            assert_eq!(wide[i * columns + j], want, "{height} {width}: {i} {j}");
        }
    }
}
