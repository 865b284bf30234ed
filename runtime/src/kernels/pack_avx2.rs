#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "intrinsics over gather tables; the contract is PackCall's, stated in `pack.rs`"
)]
#![allow(clippy::needless_range_loop, reason = "rows and vectors number registers and addresses alike")]
//! Packing of `f32` panels with AVX2: runs become masked loads of eight lanes, lanes along k go through 8 x 8 transposes.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::abi::{GROUP, PackCall, Segment};
use super::avx2::lanes32;
use super::pack::{class_masks, pack};

/// Groups of more runs, and tables of more classes, go through the portable loops.
const MOST_RUNS: usize = 3;
const MOST_CLASSES: usize = 32;

/// Lane masks of both halves of a group for each run.
type Masks<const S: usize> = [[__m256i; 2]; S];

#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn pack_f32(call: &PackCall<'_, f32>) {
    let op = call.operand;
    if op.lanes_along_k {
        let most = (call.k0 / GROUP..call.k1.div_ceil(GROUP)).map(|group| {
            // SAFETY: the block has these groups.
            unsafe { complexity(runs(call, group)) }
        });
        // A row by itself is copied: there is nothing to transpose.
        if call.stride == 1 || most.max().unwrap_or(0) > MOST_RUNS {
            return pack(call);
        }
        for row in (0..call.stride).step_by(8) {
            pack_transposed(call, row);
        }
        return;
    }
    let first = call.panel * op.groups_per_panel;
    let most = (0..call.valid.div_ceil(GROUP)).map(|g| {
        // SAFETY: the panel has these groups.
        unsafe { complexity(runs(call, first + g)) }
    });
    // Narrow panels (rows of a register block) are few: the portable loops do.
    if most.max().unwrap_or(0) > MOST_RUNS || op.classes > MOST_CLASSES || !call.stride.is_multiple_of(8) {
        return pack(call);
    }
    for g in 0..call.stride.div_ceil(GROUP) {
        match *runs(call, first + g) {
            [a] => copy_runs(call, g, [a]),
            [a, b] => copy_runs(call, g, [a, b]),
            [a, b, c] => copy_runs(call, g, [a, b, c]),
            _ => copy_runs(call, g, []),
        }
    }
}

/// The count of runs; beyond any bound if one is strided.
#[inline(always)]
fn complexity(runs: &[Segment]) -> usize {
    if runs.iter().any(|run| run.step != 1) { usize::MAX } else { runs.len() }
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
unsafe fn masks_of<const S: usize>(segments: &[Segment; S], inside: u16) -> Masks<S> {
    // No closure: it would be compiled without AVX2.
    let mut masks = [[_mm256_setzero_si256(); 2]; S];
    for (halves, run) in masks.iter_mut().zip(segments) {
        let mask = run.mask & inside;
        *halves = [lanes32(mask & 0xff), lanes32(mask >> 8)];
    }
    masks
}

#[inline(always)]
unsafe fn copy_runs<const S: usize>(call: &PackCall<'_, f32>, g: usize, segments: [Segment; S]) {
    let op = call.operand;
    let group = call.panel * op.groups_per_panel + g;
    let halves = ((call.stride - g * GROUP) / 8).min(2);
    let mut table = [const { MaybeUninit::<Masks<S>>::uninit() }; MOST_CLASSES];
    if op.checked {
        for (class, masks) in table.iter_mut().enumerate().take(op.classes) {
            masks.write(masks_of(&segments, *op.masks.add(class * op.mask_stride + group)));
        }
    } else {
        table[0].write(masks_of(&segments, u16::MAX));
    }
    let table = table.as_ptr().cast::<Masks<S>>();
    let dense = !op.checked && S == 1 && segments[0].mask == u16::MAX;
    let (offsets, class, stride) = (op.k, op.class, call.stride);
    let mut to = call.to.add(g * GROUP);
    let from = segments.map(|run| call.from.wrapping_offset(run.offset as isize));
    for k in call.k0..call.k1 {
        let offset = *offsets.add(k) as isize;
        if dense {
            for half in 0..halves {
                let row = _mm256_loadu_ps(from[0].wrapping_offset(offset).add(8 * half));
                _mm256_storeu_ps(to.add(8 * half), row);
            }
        } else {
            let masks = &*table.add(if op.checked { *class.add(k) as usize } else { 0 });
            for half in 0..halves {
                let mut row = _mm256_setzero_ps();
                for s in 0..S {
                    let at = from[s].wrapping_offset(offset).wrapping_add(8 * half);
                    row = _mm256_or_ps(row, _mm256_maskload_ps(at, masks[s][half]));
                }
                _mm256_storeu_ps(to.add(8 * half), row);
            }
        }
        to = to.wrapping_add(stride);
    }
}

/// Eight free indices from `row` on: their k runs are the rows of transposes.
#[inline(always)]
unsafe fn pack_transposed(call: &PackCall<'_, f32>, row: usize) {
    let op = call.operand;
    let valid = call.valid.saturating_sub(row).min(8);
    let lanes = (call.stride - row).min(8);
    let store = lanes32((1u16 << lanes) - 1);
    let mut from = [call.from; 8];
    let mut inside = [op.masks; 8];
    for r in 0..valid {
        let i = call.panel * op.width + row + r;
        from[r] = call.from.wrapping_offset(*op.free.add(i) as isize);
        inside[r] = class_masks(call, i);
    }
    for group in call.k0 / GROUP..call.k1.div_ceil(GROUP) {
        let segments = runs(call, group);
        for half in 0..2 {
            let k = group * GROUP + 8 * half;
            if k >= call.k1 {
                break;
            }
            let mut block = [_mm256_setzero_ps(); 8];
            for r in 0..valid {
                let exist = if op.checked { *inside[r].add(group) } else { u16::MAX };
                for run in segments {
                    let mask = ((run.mask & exist) >> (8 * half)) & 0xff;
                    let at = from[r].wrapping_offset(run.offset as isize).wrapping_add(8 * half);
                    if mask == 0xff {
                        block[r] = _mm256_loadu_ps(at);
                    } else if mask != 0 {
                        let part = _mm256_maskload_ps(at, lanes32(mask));
                        block[r] = _mm256_or_ps(block[r], part);
                    }
                }
            }
            let columns = transpose(&block);
            let to = call.to.add((k - call.k0) * call.stride + row);
            for i in 0..(call.k1 - k).min(8) {
                if lanes == 8 {
                    _mm256_storeu_ps(to.add(i * call.stride), columns[i]);
                } else {
                    _mm256_maskstore_ps(to.add(i * call.stride), store, columns[i]);
                }
            }
        }
    }
}

/// 8 x 8 transpose: pairs, quadruples, then 128-bit halves.
#[inline(always)]
pub(super) unsafe fn transpose(r: &[__m256; 8]) -> [__m256; 8] {
    let mut quads = [_mm256_setzero_ps(); 8];
    for i in 0..2 {
        let r = &r[4 * i..];
        let (low0, high0) = (_mm256_unpacklo_ps(r[0], r[1]), _mm256_unpackhi_ps(r[0], r[1]));
        let (low1, high1) = (_mm256_unpacklo_ps(r[2], r[3]), _mm256_unpackhi_ps(r[2], r[3]));
        quads[4 * i] = _mm256_shuffle_ps::<0x44>(low0, low1);
        quads[4 * i + 1] = _mm256_shuffle_ps::<0xee>(low0, low1);
        quads[4 * i + 2] = _mm256_shuffle_ps::<0x44>(high0, high1);
        quads[4 * i + 3] = _mm256_shuffle_ps::<0xee>(high0, high1);
    }
    let mut out = [_mm256_setzero_ps(); 8];
    for c in 0..4 {
        out[c] = _mm256_permute2f128_ps::<0x20>(quads[c], quads[4 + c]);
        out[4 + c] = _mm256_permute2f128_ps::<0x31>(quads[c], quads[4 + c]);
    }
    out
}
