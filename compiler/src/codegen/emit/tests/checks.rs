//! Checks of loaded indices, and calls.

use std::num::NonZeroU32;

use super::*;
use crate::loops::nest::Arg;

/// `y[r, :] = table[index[r], :]`, checked.
fn gather(rows: usize, entries: usize, width: usize) -> LoopNest {
    let n = NestBuilder::new("gather");
    let index = n.buffer("index", I64, rows, Access::Read);
    let table = n.buffer("table", F32, entries * width, Access::Read);
    let y = n.buffer("y", F32, rows * width, Access::Write);
    let (r, c, at) = (n.var("r"), n.var("c"), n.local("at", I64));
    let value = n.load(table, Index::local(at) * width as i64 + Index::var(c));
    let copy = n.store(y, Index::var(r) * width as i64 + Index::var(c), value);
    let inner = Loop::over(c, width).vector().body(vec![copy]);
    let site = NonZeroU32::new(7).unwrap();
    let checked = n.check(n.value(at), entries as i64, site, Index::var(r), vec![inner]);
    let body = vec![n.define(at, n.load(index, Index::var(r))), checked];
    n.finish(1, vec![Loop::over(r, rows).body(body)])
}

fn gathered(index: &[i64], entries: usize, width: usize) -> (Vec<f32>, [i64; 3]) {
    let table: Vec<f32> = (0..entries * width).map(|i| i as f32 + 1.0).collect();
    let mut y = Bytes::zeros(index.len() * width * 4);
    let nest = gather(index.len(), entries, width);
    let status = run(&nest, &mut [&mut Bytes::of(index), &mut Bytes::of(&table), &mut y]);
    (y.get(), status)
}

#[test]
fn good_indices_are_followed() {
    let (y, status) = gathered(&[2, 0, 2], 3, 5);
    let row = |r: usize| (0..5).map(move |c| (r * 5 + c) as f32 + 1.0);
    assert_eq!(y, row(2).chain(row(0)).chain(row(2)).collect::<Vec<_>>());
    assert_eq!(status, [0, 0, 0]);
}

#[test]
fn bad_indices_set_the_status_once_and_touch_nothing() {
    for bad in [3, -1, i64::MIN, i64::MAX, 1 << 40] {
        let (y, status) = gathered(&[1, bad, 0, 99], 3, 5);
        assert_eq!(status, [7, bad, 1]);
        assert!(y[5..10].iter().chain(&y[15..]).all(|y| *y == 0.0));
        assert_eq!(y[10], 1.0);
    }
}

extern "C" fn sum_row(source: *const f32, destination: *mut f32, len: i64) {
    // SAFETY: the nest below passes rows of its buffers.
    unsafe {
        let row = std::slice::from_raw_parts(source, len as usize);
        *destination = row.iter().sum();
    }
}

#[test]
fn helpers_are_called_with_addresses_and_numbers() {
    let (rows, columns) = (4, 6);
    let n = NestBuilder::new("call");
    let x = n.buffer("x", F32, rows * columns, Access::Read);
    let y = n.buffer("y", F32, rows, Access::Write);
    let s = n.scratch("s", F32, 1);
    let helper = n.helper("sum_row");
    let row = Index::var(Var::TILE);
    let address = |place, index| Arg::Address { place, index };
    let args = vec![
        address(x, row.clone() * columns as i64),
        address(s, Index::constant(0)),
        Arg::Int(Index::constant(columns as i64)),
    ];
    // The scratch is read before and after the call: the second load must be a new one.
    let at = Index::constant(0);
    let body = vec![
        n.store(s, at.clone(), n.literal(1.0, F32)),
        n.store(y, row.clone(), n.load(s, at.clone())),
        n.call(helper, args),
        n.store(y, row, n.load(s, at)),
    ];
    let nest = n.finish(rows as u64, body);
    let xs: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
    let mut y = Bytes::zeros(rows * 4);
    let helper = sum_row as extern "C" fn(*const f32, *mut f32, i64) as *const u8;
    run_with(&nest, &mut [&mut Bytes::of(&xs), &mut y], &[helper]);
    assert_eq!(y.get::<f32>(), xs.chunks(columns).map(|row| row.iter().sum()).collect::<Vec<f32>>());
}
