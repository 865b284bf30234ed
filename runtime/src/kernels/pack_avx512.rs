#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "intrinsics over gather tables; the contract is PackCall's, stated in `pack.rs`"
)]
//! Packing of `f32` panels with AVX-512: runs become masked loads, long strides become gathers, lanes along k go
//! through a 16 x 16 transpose in registers.

use std::arch::x86_64::*;

use super::abi::{GROUP, PackCall, Segment};
use super::pack::class_masks;

/// More runs than this in one group and a gather is cheaper.
const MAX_RUNS: usize = 6;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
pub(crate) unsafe fn pack_f32(call: &PackCall<'_, f32>) {
    if call.operand.lanes_along_k {
        for g in 0..call.stride.div_ceil(GROUP) {
            pack_transposed(call, g);
        }
    } else {
        for g in 0..call.stride.div_ceil(GROUP) {
            pack_straight(call, g);
        }
    }
}

/// The runs of one group.
#[inline(always)]
unsafe fn runs<'a>(call: &PackCall<'a, f32>, group: usize) -> &'a [Segment] {
    let op = call.operand;
    let start = *op.group_start.add(group) as usize;
    let end = *op.group_start.add(group + 1) as usize;
    std::slice::from_raw_parts(op.segments.add(start), end - start)
}

#[inline(always)]
fn low_lanes(count: usize) -> u16 {
    ((1u32 << count.min(GROUP)) - 1) as u16
}

#[inline(always)]
unsafe fn pack_straight(call: &PackCall<'_, f32>, g: usize) {
    let to = call.to.add(g * GROUP);
    let store = low_lanes(call.stride - g * GROUP);
    if g * GROUP >= call.valid {
        for row in 0..call.k1 - call.k0 {
            _mm512_mask_storeu_ps(to.add(row * call.stride), store, _mm512_setzero_ps());
        }
        return;
    }
    let group = call.panel * call.operand.groups_per_panel + g;
    let segments = runs(call, group);
    match *segments {
        [a] => copy_runs(call, to, store, group, [a]),
        [a, b] => copy_runs(call, to, store, group, [a, b]),
        [a, b, c] => copy_runs(call, to, store, group, [a, b, c]),
        [a, b, c, d] => copy_runs(call, to, store, group, [a, b, c, d]),
        _ => gather_group(call, to, store, g, group),
    }
}

/// Copies one group of every step; the masks of a class are computed once for its steps.
#[inline(always)]
unsafe fn copy_runs<const S: usize>(
    call: &PackCall<'_, f32>,
    to: *mut f32,
    store: u16,
    group: usize,
    segments: [Segment; S],
) {
    let op = call.operand;
    let mut from = [call.from; S];
    let mut masks = [0u16; S];
    for s in 0..S {
        from[s] = call.from.wrapping_offset(segments[s].offset as isize);
        masks[s] = segments[s].mask;
    }
    let load = |offset: i32, masks: &[u16; S]| {
        // SAFETY: a masked load touches only lanes inside the tensor.
        unsafe {
            let offset = offset as isize;
            let mut row = _mm512_maskz_loadu_ps(masks[0], from[0].wrapping_offset(offset));
            for s in 1..S {
                row = _mm512_mask_loadu_ps(row, masks[s], from[s].wrapping_offset(offset));
            }
            row
        }
    };
    if op.order.is_null() {
        if op.checked {
            for s in 0..S {
                masks[s] &= *op.masks.add(group);
            }
        }
        for k in call.k0..call.k1 {
            let row = load(*op.k.add(k), &masks);
            _mm512_mask_storeu_ps(to.add((k - call.k0) * call.stride), store, row);
        }
        return;
    }
    let mut class = u32::MAX;
    for position in call.k0..call.k1 {
        let k = *op.order.add(position) as usize;
        if *op.class.add(k) != class {
            class = *op.class.add(k);
            let inside = *class_masks(call, k).add(group);
            for s in 0..S {
                masks[s] = segments[s].mask & inside;
            }
        }
        let row = load(*op.k.add(k), &masks);
        _mm512_mask_storeu_ps(to.add((k - call.k0) * call.stride), store, row);
    }
}

#[inline(always)]
unsafe fn gather_group(call: &PackCall<'_, f32>, to: *mut f32, store: u16, g: usize, group: usize) {
    let op = call.operand;
    let lanes = low_lanes(call.valid - g * GROUP);
    let first = call.panel * op.width + g * GROUP;
    let index = _mm512_maskz_loadu_epi32(lanes, op.free.wrapping_add(first));
    for position in call.k0..call.k1 {
        let k = if op.order.is_null() {
            position
        } else {
            *op.order.add(position) as usize
        };
        let mask = if op.checked {
            lanes & *class_masks(call, k).add(group)
        } else {
            lanes
        };
        let from = call.from.wrapping_offset(*op.k.add(k) as isize);
        let row = _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), mask, index, from.cast());
        _mm512_mask_storeu_ps(to.add((k - call.k0) * call.stride), store, row);
    }
}

/// Sixteen free indices at a time: their k runs are the rows of a transpose.
#[inline(always)]
unsafe fn pack_transposed(call: &PackCall<'_, f32>, g: usize) {
    let op = call.operand;
    let store = low_lanes(call.stride - g * GROUP);
    let valid = call.valid.saturating_sub(g * GROUP).min(GROUP);
    let first = call.panel * op.width + g * GROUP;
    for group in call.k0 / GROUP..call.k1.div_ceil(GROUP) {
        let k = group * GROUP;
        let count = (call.k1 - k).min(GROUP);
        let to = call.to.add((k - call.k0) * call.stride + g * GROUP);
        let segments = runs(call, group);
        let mut rows = [_mm512_setzero_ps(); 16];
        match *segments {
            [a] => load_rows(call, first, valid, group, [a], &mut rows),
            [a, b] => load_rows(call, first, valid, group, [a, b], &mut rows),
            [a, b, c] => load_rows(call, first, valid, group, [a, b, c], &mut rows),
            _ if segments.len() <= MAX_RUNS => {
                load_rows_any(call, first, valid, group, segments, &mut rows);
            }
            _ => gather_rows(call, first, valid, group, count, &mut rows),
        }
        let columns = transpose(&rows);
        if count == GROUP {
            for (i, column) in columns.iter().enumerate() {
                _mm512_mask_storeu_ps(to.add(i * call.stride), store, *column);
            }
        } else {
            for (i, column) in columns.iter().enumerate().take(count) {
                _mm512_mask_storeu_ps(to.add(i * call.stride), store, *column);
            }
        }
    }
}

#[inline(always)]
unsafe fn load_rows<const S: usize>(
    call: &PackCall<'_, f32>,
    first: usize,
    valid: usize,
    group: usize,
    segments: [Segment; S],
    rows: &mut [__m512; 16],
) {
    load_rows_any(call, first, valid, group, &segments, rows);
}

#[inline(always)]
unsafe fn load_rows_any(
    call: &PackCall<'_, f32>,
    first: usize,
    valid: usize,
    group: usize,
    segments: &[Segment],
    rows: &mut [__m512; 16],
) {
    let op = call.operand;
    for r in 0..16 {
        if r < valid {
            let from = call.from.wrapping_offset(*op.free.add(first + r) as isize);
            let inside = if op.checked {
                *class_masks(call, first + r).add(group)
            } else {
                u16::MAX
            };
            let mut row = _mm512_setzero_ps();
            for run in segments {
                let at = from.wrapping_offset(run.offset as isize);
                row = _mm512_mask_loadu_ps(row, run.mask & inside, at);
            }
            rows[r] = row;
        }
    }
}

#[inline(always)]
unsafe fn gather_rows(
    call: &PackCall<'_, f32>,
    first: usize,
    valid: usize,
    group: usize,
    count: usize,
    rows: &mut [__m512; 16],
) {
    let op = call.operand;
    let lanes = low_lanes(count);
    let index = _mm512_maskz_loadu_epi32(lanes, op.k.wrapping_add(group * GROUP));
    for r in 0..16 {
        if r < valid {
            let from = call.from.wrapping_offset(*op.free.add(first + r) as isize);
            let inside = if op.checked {
                *class_masks(call, first + r).add(group)
            } else {
                u16::MAX
            };
            let zero = _mm512_setzero_ps();
            rows[r] = _mm512_mask_i32gather_ps::<4>(zero, lanes & inside, index, from.cast());
        }
    }
}

/// 16 x 16 transpose: pairs, quadruples, then 128-bit blocks.
#[inline(always)]
unsafe fn transpose(r: &[__m512; 16]) -> [__m512; 16] {
    let zero = _mm512_setzero_ps();
    let mut t = [zero; 16];
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    // q[4 i + c]: in each 128-bit block b, rows 4 i .. 4 i + 4 of column 4 b + c.
    let mut q = [zero; 16];
    for i in 0..4 {
        let pair = |x: __m512, y: __m512, high: bool| {
            // SAFETY: AVX-512F, as the whole file.
            unsafe {
                let (x, y) = (_mm512_castps_pd(x), _mm512_castps_pd(y));
                _mm512_castpd_ps(if high {
                    _mm512_unpackhi_pd(x, y)
                } else {
                    _mm512_unpacklo_pd(x, y)
                })
            }
        };
        q[4 * i] = pair(t[4 * i], t[4 * i + 2], false);
        q[4 * i + 1] = pair(t[4 * i], t[4 * i + 2], true);
        q[4 * i + 2] = pair(t[4 * i + 1], t[4 * i + 3], false);
        q[4 * i + 3] = pair(t[4 * i + 1], t[4 * i + 3], true);
    }
    let mut out = [zero; 16];
    for c in 0..4 {
        let low = _mm512_shuffle_f32x4::<0x88>(q[c], q[4 + c]);
        let high = _mm512_shuffle_f32x4::<0xdd>(q[c], q[4 + c]);
        let low2 = _mm512_shuffle_f32x4::<0x88>(q[8 + c], q[12 + c]);
        let high2 = _mm512_shuffle_f32x4::<0xdd>(q[8 + c], q[12 + c]);
        // low: blocks 0, 2 of rows 0..8; high: blocks 1, 3.
        out[c] = _mm512_shuffle_f32x4::<0x88>(low, low2);
        out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(low, low2);
        out[4 + c] = _mm512_shuffle_f32x4::<0x88>(high, high2);
        out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(high, high2);
    }
    out
}
