//! Wide loops with more streams than general registers: the bits of four lanes.

use super::wide::{bits, both};
use super::*;

/// Finite and all over: what is read from a wrong place shows.
fn spread(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + seed * 104_729) % 20_011) as f32 * 0.013 - 130.0).collect()
}

/// Sums over arrays of `x[a, b, c]`, each with a stride of its own, with loops over `a` and `b` around lanes over `c`. Of
/// every third the row decides whether it is loaded, of every fifth one element is in all lanes.
fn sum_of(arrays: usize, [planes, rows, columns]: [usize; 3]) -> (LoopNest, Vec<Bytes>) {
    let n = NestBuilder::new("streams");
    let (a, b, c) = (n.var("a"), n.var("b"), n.var("c"));
    let mut buffers = Vec::new();
    let mut sum = n.literal(0.25, F32);
    for number in 0..arrays {
        let width = columns + number;
        let len = planes * rows * width;
        let x = n.buffer(format!("x{number}"), F32, len, Access::Read);
        buffers.push(Bytes::of(&spread(len, number)));
        let row = (Index::var(a) * rows as i64 + Index::var(b)) * width as i64;
        let at = if number % 5 == 4 { row + number as i64 } else { row + Index::var(c) + (number / 2) as i64 };
        let value = if number % 3 == 2 {
            let inside = n.in_range(Index::var(b) + Index::constant(-1), (rows - 1) as i64);
            n.guarded_load(x, at, inside, n.literal(number as f64, F32))
        } else {
            n.load(x, at)
        };
        sum = n.binary(if number % 2 == 0 { Add } else { Sub }, sum, value);
    }
    let len = planes * rows * columns;
    let (y, z) = (n.buffer("y", F32, len, Access::ReadWrite), n.buffer("z", F32, len, Access::Write));
    buffers.extend([Bytes::of(&spread(len, 99)), Bytes::zeros(len * 4)]);
    let at = (Index::var(a) * rows as i64 + Index::var(b)) * columns as i64 + Index::var(c);
    let stores = vec![n.store(z, at.clone(), sum), n.store(y, at.clone(), n.binary(Mul, n.load(y, at), sum))];
    let lanes = Loop::over(c, columns).vector().body(stores);
    let outer = Loop::range(a, Index::var(Var::TILE), Index::var(Var::TILE) + 1i64);
    let nest = n.finish(planes as u64, vec![outer.body(vec![Loop::over(b, rows).body(vec![lanes])])]);
    (nest, buffers)
}

#[test]
fn more_arrays_than_general_registers() {
    for arrays in [7, 9, 10, 13, 24] {
        for sizes in [[1usize, 3usize, 16usize], [2, 4, 37], [3, 2, 150]] {
            let (nest, buffers) = sum_of(arrays, sizes);
            let [mut wide, mut narrow] = both(&nest, &buffers);
            for result in [arrays, arrays + 1] {
                assert_eq!(bits(&mut wide[result]), bits(&mut narrow[result]), "{arrays} {sizes:?}");
            }
        }
    }
}

/// `y[c]` = sum over `k` of `x1[k, c]`, minus sum of `x2[k, c]`..., and of every array also the first row.
#[test]
fn more_arrays_than_registers_around_an_inner_loop() {
    let (arrays, depth, columns) = (6usize, 5usize, 83usize);
    let n = NestBuilder::new("columns");
    let (k, c) = (n.var("k"), n.var("c"));
    let sum = n.local("sum", F32);
    let (mut first, mut next) = (n.literal(0.0, F32), n.value(sum));
    let mut buffers = Vec::new();
    for number in 0..arrays {
        let x = n.buffer(format!("x{number}"), F32, depth * columns, Access::Read);
        let v = n.buffer(format!("v{number}"), F32, columns, Access::Read);
        buffers.extend([Bytes::of(&spread(depth * columns, number)), Bytes::of(&spread(columns, 7 + number))]);
        first = n.binary(Add, first, n.load(v, Index::var(c)));
        // Arrays of the inner loop are kept few: each takes a register there.
        if number < 3 {
            next = n.binary(Add, next, n.load(x, Index::var(k) * columns as i64 + Index::var(c)));
        } else {
            first = n.binary(Sub, first, n.load(x, Index::var(c)));
        }
    }
    let y = n.buffer("y", F32, columns, Access::Write);
    buffers.push(Bytes::zeros(columns * 4));
    let inner = Loop::range(k, 0i64, depth).accumulate(sum, first, Add).body(vec![n.set(sum, next)]);
    let lanes = Loop::over(c, columns).vector().body(vec![inner, n.store(y, Index::var(c), n.value(sum))]);
    let nest = n.finish(1, vec![lanes]);
    let [mut wide, mut narrow] = both(&nest, &buffers);
    assert_eq!(bits(&mut wide[2 * arrays]), bits(&mut narrow[2 * arrays]));
}
