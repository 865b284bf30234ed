//! Loops, indices, accumulators, scratch.

use super::*;

fn ramp(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.37 - 3.0) * if i % 3 == 0 { -1.0 } else { 1.0 }).collect()
}

#[test]
fn elementwise_with_tails() {
    for len in [0, 1, 3, 4, 5, 17, 64, 67] {
        let x = ramp(len);
        let got: Vec<f32> = unary(&x, |n, x| {
            let shifted = n.binary(Add, n.binary(Mul, x[0], n.literal(1.5, F32)), n.literal(-0.25, F32));
            n.binary(Max, shifted, n.literal(0.0, F32))
        });
        let want: Vec<f32> = x.iter().map(|x| (x * 1.5 - 0.25).max(0.0)).collect();
        assert_eq!(got, want, "len {len}");
    }
}

#[test]
fn strided_transposed_and_broadcast() {
    let (rows, columns) = (5, 11);
    let n = NestBuilder::new("strided");
    let x = n.buffer("x", F32, rows * columns, Access::Read);
    let bias = n.buffer("bias", F32, rows, Access::Read);
    let y = n.buffer("y", F32, rows * columns, Access::Write);
    let (r, c) = (n.var("r"), n.var("c"));
    let transposed = n.load(x, Index::var(c) * rows as i64 + Index::var(r));
    let sum = n.binary(Add, transposed, n.load(bias, Index::var(r)));
    let inner =
        Loop::over(c, columns).vector().body(vec![n.store(y, Index::var(r) * columns as i64 + Index::var(c), sum)]);
    let nest = n.finish(1, vec![Loop::over(r, rows).body(vec![inner])]);
    let (xs, biases) = (ramp(rows * columns), ramp(rows));
    let mut y = Bytes::zeros(rows * columns * 4);
    run(&nest, &mut [&mut Bytes::of(&xs), &mut Bytes::of(&biases), &mut y]);
    let want: Vec<f32> =
        (0..rows * columns).map(|i| xs[(i % columns) * rows + i / columns] + biases[i / columns]).collect();
    assert_eq!(y.get::<f32>(), want);
}

#[test]
fn quotients_and_remainders_of_flat_positions() {
    // y[i] = x[(i / 7) * 7 + (6 - i % 7)], one index per lane.
    let len = 70;
    let n = NestBuilder::new("flip");
    let x = n.buffer("x", F32, len, Access::Read);
    let y = n.buffer("y", F32, len, Access::Write);
    let i = n.var("i");
    let at = Index::var(i).floor_div(7) * 7 + Index::constant(6) - Index::var(i).modulo(7);
    let both = n.binary(Add, n.load(x, at), n.load(x, Index::var(i)));
    let nest = n.finish(1, vec![Loop::over(i, len).vector().body(vec![n.store(y, Index::var(i), both)])]);
    let xs = ramp(len);
    let mut y = Bytes::zeros(len * 4);
    run(&nest, &mut [&mut Bytes::of(&xs), &mut y]);
    let want: Vec<f32> = (0..len).map(|i| xs[i / 7 * 7 + 6 - i % 7] + xs[i]).collect();
    assert_eq!(y.get::<f32>(), want);
}

#[test]
fn negative_quotients_round_down() {
    let n = NestBuilder::new("floor");
    let y = n.buffer("y", I64, 2 * 40, Access::Write);
    let i = n.var("i");
    let shifted = Index::var(i) - Index::constant(20);
    let body = vec![
        n.store(y, Index::var(i) * 2, n.index(shifted.floor_div(3))),
        n.store(y, Index::var(i) * 2 + 1i64, n.index(shifted.modulo(3))),
    ];
    let nest = n.finish(1, vec![Loop::over(i, 40usize).body(body)]);
    let mut y = Bytes::zeros(80 * 8);
    run(&nest, &mut [&mut y]);
    let want: Vec<i64> = (-20i64..20).flat_map(|i| [i.div_euclid(3), i.rem_euclid(3)]).collect();
    assert_eq!(y.get::<i64>(), want);
}

#[test]
fn padded_neighbours() {
    // y[i] = x[i - 1] + 10 x[i + 1], zero outside.
    for len in [1usize, 2, 5, 16, 33] {
        let n = NestBuilder::new("padded");
        let x = n.buffer("x", F32, len, Access::Read);
        let y = n.buffer("y", F32, len, Access::Write);
        let i = n.var("i");
        let read = |shift: i64| {
            let at = Index::var(i) + shift;
            n.guarded_load(x, at.clone(), n.in_range(at, len as i64), n.literal(0.0, F32))
        };
        let sum = n.binary(Add, read(-1), n.binary(Mul, read(1), n.literal(10.0, F32)));
        let nest = n.finish(1, vec![Loop::over(i, len).vector().body(vec![n.store(y, Index::var(i), sum)])]);
        let xs = ramp(len);
        let mut y = Bytes::zeros(len * 4);
        run(&nest, &mut [&mut Bytes::of(&xs), &mut y]);
        let at = |i: isize| if i < 0 { 0.0 } else { xs.get(i as usize).copied().unwrap_or(0.0) };
        let want: Vec<f32> = (0..len as isize).map(|i| at(i - 1) + at(i + 1) * 10.0).collect();
        assert_eq!(y.get::<f32>(), want, "len {len}");
    }
}

fn softmax(rows: usize, columns: usize) -> LoopNest {
    let n = NestBuilder::new("softmax");
    let x = n.buffer("x", F32, rows * columns, Access::Read);
    let y = n.buffer("y", F32, rows * columns, Access::Write);
    let e = n.scratch("e", F32, columns);
    let (j, k, l) = (n.var("j"), n.var("k"), n.var("l"));
    let (largest, sum) = (n.local("largest", F32), n.local("sum", F32));
    let at = |column| Index::var(Var::TILE) * columns as i64 + Index::var(column);
    let stage1 = Loop::over(j, columns)
        .vector()
        .accumulate(largest, n.literal(f64::NEG_INFINITY, F32), Max)
        .body(vec![n.set(largest, n.binary(Max, n.value(largest), n.load(x, at(j))))]);
    let exp = n.unary(UnaryFn::Exp, n.binary(Sub, n.load(x, at(k)), n.value(largest)));
    let stage2 = Loop::over(k, columns)
        .vector()
        .accumulate(sum, n.literal(0.0, F32), Add)
        .body(vec![n.store(e, Index::var(k), exp), n.set(sum, n.binary(Add, n.value(sum), exp))]);
    let quotient = n.binary(Div, n.load(e, Index::var(l)), n.value(sum));
    let stage3 = Loop::over(l, columns).vector().body(vec![n.store(y, at(l), quotient)]);
    n.finish(rows as u64, vec![stage1, stage2, stage3])
}

#[test]
fn softmax_of_rows() {
    for columns in [1, 3, 10, 16, 37, 100] {
        let nest = softmax(6, columns);
        let xs = ramp(6 * columns);
        let mut y = Bytes::zeros(xs.len() * 4);
        run(&nest, &mut [&mut Bytes::of(&xs), &mut y]);
        let got = y.get::<f32>();
        for (row, got) in xs.chunks(columns).zip(got.chunks(columns)) {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exps: Vec<f64> = row.iter().map(|x| f64::from(x - largest).exp()).collect();
            let sum: f64 = exps.iter().sum();
            for (got, exp) in got.iter().zip(&exps) {
                assert!((f64::from(*got) - exp / sum).abs() <= 2e-6 * (exp / sum) + 1e-44, "{got} {}", exp / sum);
            }
        }
    }
}

#[test]
fn column_sums_run_along_the_outer_loop() {
    let (rows, columns) = (9, 14);
    let n = NestBuilder::new("columns");
    let x = n.buffer("x", F32, rows * columns, Access::Read);
    let y = n.buffer("y", F32, columns, Access::Write);
    let (r, c, sum) = (n.var("r"), n.var("c"), n.local("sum", F32));
    let next = n.binary(Add, n.value(sum), n.load(x, Index::var(r) * columns as i64 + Index::var(c)));
    let inner = Loop::over(r, rows).accumulate(sum, n.literal(0.0, F32), Add).body(vec![n.set(sum, next)]);
    let body = vec![inner, n.store(y, Index::var(c), n.value(sum))];
    let nest = n.finish(1, vec![Loop::over(c, columns).vector().body(body)]);
    let xs = ramp(rows * columns);
    let mut y = Bytes::zeros(columns * 4);
    run(&nest, &mut [&mut Bytes::of(&xs), &mut y]);
    let want: Vec<f32> = (0..columns).map(|c| (0..rows).fold(0.0, |sum, r| sum + xs[r * columns + c])).collect();
    assert_eq!(y.get::<f32>(), want);
    let clif = compile(&nest).unwrap().kernel(0).clif.clone().unwrap();
    assert!(clif.contains("fadd.f32x4") || clif.contains("f32x4"), "{clif}");
}

#[test]
fn full_sums_in_the_documented_order() {
    for len in [0usize, 1, 3, 4, 15, 16, 40, 1003] {
        let n = NestBuilder::new("sum");
        let x = n.buffer("x", F32, len, Access::Read);
        let y = n.buffer("y", F32, 1, Access::Write);
        let (i, sum) = (n.var("i"), n.local("sum", F32));
        let next = n.binary(Add, n.value(sum), n.load(x, Index::var(i)));
        let sums = Loop::over(i, len).vector().unroll(4).accumulate(sum, n.literal(100.0, F32), Add);
        let nest = n.finish(1, vec![sums.body(vec![n.set(sum, next)]), n.store(y, Index::constant(0), n.value(sum))]);
        let xs = ramp(len);
        let (mut x, mut y) = (Bytes::of(&xs), Bytes::zeros(4));
        let pointers = [x.raw().as_mut_ptr(), y.raw().as_mut_ptr()];
        // SAFETY: both buffers have the declared size, and the nest stays in range.
        unsafe { compile_narrow(&nest).invoke(0, &pointers, &[], 0..1) }.unwrap();
        assert_eq!(y.get::<f32>(), [ordered_sum(&xs)], "len {len}");
    }
}

/// Up to four vectors of partial sums, combined in pairs, then the lanes in order, then the rest.
fn ordered_sum(xs: &[f32]) -> f32 {
    let vectors = xs.len() / 4;
    let copies = vectors.clamp(1, 4);
    let mut partial = vec![[0f32; 4]; copies];
    for (number, vector) in xs.chunks_exact(4).enumerate() {
        let copy = if number < vectors / copies * copies { number % copies } else { 0 };
        (0..4).for_each(|lane| partial[copy][lane] += vector[lane]);
    }
    while partial.len() > 1 {
        partial = partial
            .chunks(2)
            .map(|pair| match pair {
                [a, b] => std::array::from_fn(|lane| a[lane] + b[lane]),
                _ => pair[0],
            })
            .collect();
    }
    let lanes = partial[0].iter().copied().reduce(|a, b| a + b).unwrap();
    let whole = if vectors == 0 { 100.0 } else { 100.0 + lanes };
    xs[vectors * 4..].iter().fold(whole, |sum, x| sum + x)
}

#[test]
fn argmax_keeps_the_first_and_prefers_nan() {
    let cases: [&[f32]; 4] =
        [&[1.0, 5.0, 5.0, -2.0], &[1.0, f32::NAN, 9.0, f32::NAN], &[f32::NEG_INFINITY; 3], &[-3.0, -1.0, -2.0]];
    for (row, want) in cases.into_iter().zip([1i64, 1, 0, 1]) {
        let n = NestBuilder::new("argmax");
        let x = n.buffer("x", F32, row.len(), Access::Read);
        let y = n.buffer("y", I64, 1, Access::Write);
        let (i, best, at) = (n.var("i"), n.local("best", F32), n.local("at", I64));
        let first = n.load(x, Index::constant(0));
        let value = n.load(x, Index::var(i));
        let is_nan = |x| n.compare(CompareFn::Ne, x, x);
        let greater = n.compare(CompareFn::Gt, value, n.value(best));
        let fresh_nan = n.binary(BinaryFn::And, is_nan(value), n.compare(CompareFn::Eq, n.value(best), n.value(best)));
        let better = n.local("better", Bool);
        let body = vec![
            n.define(better, n.binary(BinaryFn::Or, greater, fresh_nan)),
            n.set(at, n.select(n.value(better), n.index(Index::var(i)), n.value(at))),
            n.set(best, n.select(n.value(better), value, n.value(best))),
        ];
        let search = Loop::range(i, 1i64, row.len()).vector().carry(best, first).carry(at, n.literal(0i64, I64));
        let nest = n.finish(1, vec![search.body(body), n.store(y, Index::constant(0), n.value(at))]);
        let mut y = Bytes::zeros(8);
        run(&nest, &mut [&mut Bytes::of(row), &mut y]);
        assert_eq!(y.get::<i64>(), [want], "{row:?}");
    }
}

#[test]
fn tiles_may_be_cut_short() {
    let (len, size) = (103usize, 16i64);
    let n = NestBuilder::new("tiles");
    let x = n.buffer("x", F32, len, Access::ReadWrite);
    let i = n.var("i");
    let begin = Index::var(Var::TILE) * size;
    let end = (begin.clone() + size).at_most(len as i64);
    let twice = n.binary(Mul, n.load(x, Index::var(i)), n.literal(2.0, F32));
    let nest = n.finish(7, vec![Loop::range(i, begin, end).vector().body(vec![n.store(x, Index::var(i), twice)])]);
    let xs = ramp(len);
    let mut x = Bytes::of(&xs);
    run(&nest, &mut [&mut x]);
    assert_eq!(x.get::<f32>(), xs.iter().map(|x| x * 2.0).collect::<Vec<_>>());
}

#[test]
fn conditions_carry_accumulators() {
    let len = 10usize;
    let n = NestBuilder::new("conditions");
    let x = n.buffer("x", F32, len, Access::Read);
    let y = n.buffer("y", F32, 2, Access::Write);
    let (i, up, down) = (n.var("i"), n.local("up", F32), n.local("down", F32));
    let value = n.load(x, Index::var(i));
    let add = |local| n.set(local, n.binary(Add, n.value(local), value));
    let fork = crate::loops::nest::Stmt::If {
        condition: n.compare(CompareFn::Gt, value, n.literal(0.0, F32)),
        then: vec![add(up)],
        otherwise: vec![add(down)],
    };
    let zero = n.literal(0.0, F32);
    let sums = Loop::over(i, len).vector().accumulate(up, zero, Add).accumulate(down, zero, Add).body(vec![fork]);
    let nest = n.finish(
        1,
        vec![sums, n.store(y, Index::constant(0), n.value(up)), n.store(y, Index::constant(1), n.value(down))],
    );
    let xs = ramp(len);
    let mut y = Bytes::zeros(8);
    run(&nest, &mut [&mut Bytes::of(&xs), &mut y]);
    let part = |sign: f32| xs.iter().filter(|x| **x * sign > 0.0).fold(0.0, |sum, x| sum + x);
    assert_eq!(y.get::<f32>(), [part(1.0), part(-1.0)]);
}

#[test]
fn stored_values_are_loaded_again() {
    // Prefix sums in place: the load of a place that the loop stores is not moved out of it.
    let len = 12usize;
    let n = NestBuilder::new("prefix");
    let x = n.buffer("x", F32, len, Access::ReadWrite);
    let i = n.var("i");
    let sum = n.binary(Add, n.load(x, Index::var(i) - Index::constant(1)), n.load(x, Index::var(i)));
    let first = n.load(x, Index::constant(0));
    let body = vec![n.store(x, Index::var(i), sum), n.store(x, Index::constant(0), n.binary(Add, first, first))];
    let nest = n.finish(1, vec![Loop::range(i, 1i64, len).body(body)]);
    let mut x = Bytes::of(&vec![1f32; len]);
    run(&nest, &mut [&mut x]);
    let mut want = vec![1f32; len];
    for i in 1..len {
        want[i] += want[i - 1];
        want[0] += want[0];
    }
    assert_eq!(x.get::<f32>(), want);
}

#[test]
fn equal_nests_share_code() {
    let (a, mut b, c) = (softmax(3, 8), softmax(3, 8), softmax(3, 9));
    b.name = "another".to_string();
    b.vars[1] = "renamed".to_string();
    let code = JitCode::compile(&[a, b, c], Texts::default()).unwrap();
    assert_eq!(code.kernels().len(), 2);
    use kiln_rt::executable::Code;
    assert_eq!(code.entry(0) as usize, code.entry(1) as usize);
    assert_ne!(code.entry(0) as usize, code.entry(2) as usize);
}

#[test]
fn broken_rules_are_defects() {
    let n = NestBuilder::new("half");
    let x = n.buffer("x", DType::Bf16, 4, Access::ReadWrite);
    let i = n.var("i");
    let sum = n.binary(BinaryFn::Add, n.load(x, Index::var(i)), n.load(x, Index::var(i)));
    let body = vec![n.store(x, Index::var(i), sum)];
    let error = compile(&n.finish(1, vec![Loop::over(i, 4usize).body(body)])).unwrap_err();
    assert_eq!(error.to_string(), "defect: kernel `half`: bf16 has no arithmetic");

    let n = NestBuilder::new("unbound");
    let x = n.buffer("x", F32, 4, Access::Write);
    let (i, zero) = (n.var("i"), n.literal(0.0, F32));
    let body = vec![n.store(x, Index::var(i), zero)];
    assert!(compile(&n.finish(1, body)).unwrap_err().reason.contains("not visible"));
}

/// `y[h, w] = sum over r, s of k[r, s] * x[h + r - 1, w + s - 1]`, zero outside: conditions that are the same in all
/// lanes, conditions that differ, loops that are written out.
fn window(height: usize, width: usize, unroll: u32) -> LoopNest {
    let n = NestBuilder::new("window");
    let x = n.buffer("x", F32, height * width, Access::Read);
    let k = n.buffer("k", F32, 9, Access::Read);
    let y = n.buffer("y", F32, height * width, Access::Write);
    let (h, w, r, s) = (n.var("h"), n.var("w"), n.var("r"), n.var("s"));
    let (outer, inner) = (n.local("outer", F32), n.local("inner", F32));
    let row = Index::var(h) + Index::var(r) - Index::constant(1);
    let column = Index::var(w) + Index::var(s) - Index::constant(1);
    let inside =
        n.binary(BinaryFn::And, n.in_range(row.clone(), height as i64), n.in_range(column.clone(), width as i64));
    let pixel = n.guarded_load(x, row * width as i64 + column, inside, n.literal(0.0, F32));
    let weight = n.load(k, Index::var(r) * 3 + Index::var(s));
    let product = n.mul_add(pixel, weight, n.value(inner));
    let columns = Loop::over(s, 3usize).unroll(unroll).accumulate(inner, n.value(outer), Add);
    let rows = Loop::over(r, 3usize).unroll(unroll).accumulate(outer, n.literal(0.0, F32), Add);
    let rows = rows.body(vec![columns.body(vec![n.set(inner, product)]), n.set(outer, n.value(inner))]);
    let store = n.store(y, Index::var(h) * width as i64 + Index::var(w), n.value(outer));
    let line = Loop::over(w, width).vector().body(vec![rows, store]);
    n.finish(1, vec![Loop::over(h, height).body(vec![line])])
}

#[test]
fn windows_over_padded_images() {
    for (height, width, unroll) in [(4usize, 9usize, 0), (1, 1, 0), (5, 18, 3), (2, 4, 3)] {
        // Small integers: every order of summation and every rounding gives the same.
        let xs: Vec<f32> = (0..height * width).map(|i| (i * 7 % 23) as f32 - 11.0).collect();
        let ks: Vec<f32> = (0..9).map(|i| i as f32 - 3.0).collect();
        let mut y = Bytes::zeros(xs.len() * 4);
        run(&window(height, width, unroll), &mut [&mut Bytes::of(&xs), &mut Bytes::of(&ks), &mut y]);
        let at = |h: isize, w: isize| {
            let inside = (0..height as isize).contains(&h) && (0..width as isize).contains(&w);
            if inside { xs[h as usize * width + w as usize] } else { 0.0 }
        };
        let want: Vec<f32> = (0..height * width)
            .map(|i| {
                let (h, w) = ((i / width) as isize, (i % width) as isize);
                (0..9isize).map(|t| ks[t as usize] * at(h + t / 3 - 1, w + t % 3 - 1)).sum()
            })
            .collect();
        assert_eq!(y.get::<f32>(), want, "{height} x {width}");
    }
}

/// `y[0]` is the combination of `x` in lanes.
fn reduce<T: Element>(xs: &[T], combine: BinaryFn, init: impl Into<Number>) -> T {
    let n = NestBuilder::new("reduce");
    let x = n.buffer("x", T::DTYPE, xs.len(), Access::Read);
    let y = n.buffer("y", T::DTYPE, 1, Access::Write);
    let (i, acc) = (n.var("i"), n.local("acc", T::DTYPE));
    let next = n.binary(combine, n.value(acc), n.load(x, Index::var(i)));
    let node = Loop::over(i, xs.len()).vector().accumulate(acc, n.literal(init, T::DTYPE), combine);
    let nest = n.finish(1, vec![node.body(vec![n.set(acc, next)]), n.store(y, Index::constant(0), n.value(acc))]);
    let mut y = Bytes::zeros(T::DTYPE.bytes());
    run(&nest, &mut [&mut Bytes::of(xs), &mut y]);
    y.get()[0]
}

#[test]
fn reductions_of_every_kind() {
    for len in [1usize, 4, 23, 70] {
        let ints: Vec<i64> = (0..len as i64).map(|i| (i * 7919) % 101 - 50).collect();
        assert_eq!(reduce(&ints, Add, 5i64), 5 + ints.iter().sum::<i64>());
        assert_eq!(reduce(&ints, Max, i64::MIN), *ints.iter().max().unwrap());
        assert_eq!(reduce(&ints, BinaryFn::Min, 3i64), 3.min(*ints.iter().min().unwrap()));
        assert_eq!(reduce(&ints, BinaryFn::And, -1i64), ints.iter().fold(-1, |a, b| a & b));
        let bytes: Vec<u8> = ints.iter().map(|i| *i as u8).collect();
        assert_eq!(reduce(&bytes, Add, 0i64), bytes.iter().fold(0u8, |a, b| a.wrapping_add(*b)));
        assert_eq!(reduce(&bytes, Max, 0i64), *bytes.iter().max().unwrap());
        let doubles: Vec<f64> = ints.iter().map(|i| *i as f64).collect();
        assert_eq!(reduce(&doubles, Add, 0.0), doubles.iter().sum::<f64>());
        let mut floats: Vec<f32> = ints.iter().map(|i| *i as f32).collect();
        assert_eq!(reduce(&floats, Max, f64::NEG_INFINITY), ints.iter().max().copied().unwrap() as f32);
        let halves: Vec<f32> = (0..len).map(|i| if i % 2 == 0 { 0.5 } else { 2.0 }).collect();
        assert_eq!(reduce(&halves, Mul, 1.0), halves.iter().product::<f32>());
        floats[len / 2] = f32::NAN;
        assert!(reduce(&floats, Max, f64::NEG_INFINITY).is_nan(), "a NaN wins, len {len}");
    }
}

#[test]
fn conditions_that_are_the_same_in_all_lanes() {
    // Rows of even number are doubled, the others negated; the condition depends on a loaded flag too.
    let (rows, columns) = (4usize, 10usize);
    let n = NestBuilder::new("uniform");
    let x = n.buffer("x", F64, rows * columns, Access::Read);
    let flag = n.buffer("flag", Bool, rows, Access::Read);
    let y = n.buffer("y", F64, rows * columns, Access::Write);
    let (r, c) = (n.var("r"), n.var("c"));
    let at = Index::var(r) * columns as i64 + Index::var(c);
    let value = n.load(x, at.clone());
    let fork = crate::loops::nest::Stmt::If {
        condition: n.load(flag, Index::var(r)),
        then: vec![n.store(y, at.clone(), n.binary(Add, value, value))],
        otherwise: vec![n.store(y, at, n.unary(UnaryFn::Neg, value))],
    };
    let nest = n.finish(1, vec![Loop::over(r, rows).body(vec![Loop::over(c, columns).vector().body(vec![fork])])]);
    let xs: Vec<f64> = (0..rows * columns).map(|i| i as f64 - 7.0).collect();
    let mut y = Bytes::zeros(xs.len() * 8);
    run(&nest, &mut [&mut Bytes::of(&xs), &mut Bytes::of(&[1u8, 0, 1, 0]), &mut y]);
    let want: Vec<f64> = xs.iter().enumerate().map(|(i, x)| if i / columns % 2 == 0 { x * 2.0 } else { -x }).collect();
    assert_eq!(y.get::<f64>(), want);
}

#[test]
fn single_elements_and_lanes_have_the_same_bits() {
    // The same 64 numbers as one loop of vectors and as loops of three: functions and their combination.
    let xs: Vec<f32> = (0..63).map(|i| (i as f32 - 31.0) * 0.173).collect();
    let f = |n: &NestBuilder, x: &[Expr]| {
        let tanh = n.unary(UnaryFn::Tanh, n.binary(Mul, x[0], n.literal(0.7, F32)));
        let exp = n.unary(UnaryFn::Exp, n.binary(Sub, x[0], tanh));
        n.binary(Div, n.unary(UnaryFn::Erf, x[0]), n.binary(Add, exp, n.literal(1.0, F32)))
    };
    let together: Vec<f32> = unary(&xs, f);
    let apart: Vec<f32> = xs.chunks(3).flat_map(|part| unary::<f32, f32>(part, f)).collect();
    assert_eq!(together, apart);
}

#[test]
fn machine_code_has_no_calls_in_plain_arithmetic() {
    let code = compile_narrow(&softmax(4, 32));
    let asm = code.kernel(0).asm.clone().unwrap();
    assert!(!asm.contains("call"), "{asm}");
}
