#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "gathers through precomputed tables; the contract is PackCall's, stated once on `pack`"
)]
//! Packing for every level: rearranges a block of an operand into panels `[k][width]`.

use super::abi::{GROUP, PackCall, Segment};
use super::simd::{Lane, prefetch_near};
use super::store::copy_short;

/// Packs one panel.
///
/// # Safety
/// The call's tables describe elements inside the tensor at `from`; `to` holds `(k1 - k0) * stride` elements.
#[inline(always)]
pub(crate) unsafe fn pack<T: Lane>(call: &PackCall<'_, T>) {
    if call.operand.lanes_along_k {
        pack_transposed(call);
    } else {
        pack_straight(call);
    }
}

/// How many steps ahead copies ask for their source.
const AHEAD: usize = 8;

/// Lanes run along the free index: each step copies runs.
#[inline(always)]
unsafe fn pack_straight<T: Lane>(call: &PackCall<'_, T>) {
    let op = call.operand;
    let first_group = call.panel * op.groups_per_panel;
    for k in call.k0..call.k1 {
        let from = call.from.wrapping_offset(*op.k.add(k) as isize);
        let later = call.from.wrapping_offset(*op.k.add((k + AHEAD).min(call.k1 - 1)) as isize);
        let to = call.to.add((k - call.k0) * call.stride);
        let masks = class_masks(call, k);
        for g in 0..call.stride.div_ceil(GROUP) {
            let group = first_group + g;
            let lanes = GROUP.min(call.stride - g * GROUP);
            let to = to.add(g * GROUP);
            if g * GROUP >= call.valid {
                clear(to, lanes);
                continue;
            }
            let inside = if op.checked { *masks.add(group) } else { u16::MAX };
            let runs = *op.group_start.add(group)..*op.group_start.add(group + 1);
            let run = *op.segments.add(runs.start as usize);
            if run.mask & inside == u16::MAX && run.step == 1 && lanes == GROUP {
                prefetch_near(later.wrapping_offset(run.start()));
                to.cast::<[T; GROUP]>()
                    .write_unaligned(from.wrapping_offset(run.start()).cast::<[T; GROUP]>().read_unaligned());
                continue;
            }
            clear(to, lanes);
            for s in runs {
                copy_run(from, *op.segments.add(s as usize), inside, to);
            }
        }
    }
}

#[inline(always)]
unsafe fn clear<T: Lane>(to: *mut T, lanes: usize) {
    for i in 0..lanes {
        *to.add(i) = T::ZERO;
    }
}

/// The lanes of a run that are `inside`.
#[inline(always)]
unsafe fn copy_run<T: Lane>(from: *const T, run: Segment, inside: u16, to: *mut T) {
    let (first, len) = (run.first as usize, run.len as usize);
    let start = from.wrapping_offset(run.start());
    let step = run.step as usize;
    let to = to.add(first);
    if run.mask & inside == run.mask && step == 1 {
        copy_short(start, to, len);
        return;
    }
    for i in 0..len {
        if inside >> (first + i) & 1 == 1 {
            *to.add(i) = *start.wrapping_add(i * step);
        }
    }
}

/// Lanes run along k: each free index scatters its runs into a column of the panel, a group of them before the next, so
/// that the lines which are written stay at hand.
#[inline(always)]
unsafe fn pack_transposed<T: Lane>(call: &PackCall<'_, T>) {
    for row in call.valid..call.stride {
        for k in 0..call.k1 - call.k0 {
            *call.to.add(k * call.stride + row) = T::ZERO;
        }
    }
    for group in call.k0 / GROUP..call.k1.div_ceil(GROUP) {
        for row in 0..call.valid {
            scatter_group(call, group, row);
        }
    }
}

/// One group of terms of one free index.
#[inline(always)]
unsafe fn scatter_group<T: Lane>(call: &PackCall<'_, T>, group: usize, row: usize) {
    let op = call.operand;
    let i = call.panel * op.width + row;
    let from = call.from.wrapping_offset(*op.free.add(i) as isize);
    let inside = if op.checked { *class_masks(call, i).add(group) } else { u16::MAX };
    for s in *op.group_start.add(group)..*op.group_start.add(group + 1) {
        let run = *op.segments.add(s as usize);
        let first = run.first as usize;
        let k = group * GROUP + first;
        if k >= call.k1 {
            continue;
        }
        let len = (run.len as usize).min(call.k1 - k);
        let at = from.wrapping_offset(run.start());
        let step = run.step as usize;
        let to = call.to.add((k - call.k0) * call.stride + row);
        let whole = run.mask & inside == run.mask;
        if whole && call.stride == 1 && step == 1 {
            if len == GROUP {
                to.cast::<[T; GROUP]>().write_unaligned(at.cast::<[T; GROUP]>().read_unaligned());
            } else {
                copy_short(at, to, len);
            }
        } else if whole {
            for i in 0..len {
                *to.add(i * call.stride) = *at.add(i * step);
            }
        } else {
            for i in 0..len {
                let exists = inside >> (first + i) & 1 == 1;
                *to.add(i * call.stride) = if exists { *at.wrapping_add(i * step) } else { T::ZERO };
            }
        }
    }
}

/// The mask row of a step's class; dangling when the operand is not checked.
#[inline(always)]
pub(crate) unsafe fn class_masks<T>(call: &PackCall<'_, T>, step: usize) -> *const u16 {
    let op = call.operand;
    if op.checked { op.masks.add(*op.class.add(step) as usize * op.mask_stride) } else { op.masks }
}
