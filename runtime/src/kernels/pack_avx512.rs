#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "intrinsics over gather tables; the contract is PackCall's, stated in `pack.rs`"
)]
#![allow(clippy::needless_range_loop, reason = "rows and vectors number registers and addresses alike")]
//! Packing of `f32` panels with AVX-512: runs become masked loads, long strides become gathers, lanes along k go
//! through a 16 x 16 transpose in registers.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::abi::{GROUP, PackCall, Segment};
use super::pack::{class_masks, pack};

/// Groups of more strided runs than this are gathered.
const MOST_SPREAD: usize = 4;

/// How many steps ahead dense copies ask for their source.
const AHEAD: usize = 8;

/// Classes whose masks are kept at hand: the taps of kernels up to 11 x 11.
const MOST_CLASSES: usize = 128;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
pub(crate) unsafe fn pack_f32(call: &PackCall<'_, f32>) {
    let groups = call.stride.div_ceil(GROUP);
    if call.operand.lanes_along_k {
        // A row by itself is copied: there is nothing to transpose.
        if call.stride == 1 {
            return pack(call);
        }
        for g in 0..groups {
            pack_transposed(call, g);
        }
        return;
    }
    if is_dense(call) {
        match groups {
            1 => return copy_dense::<1>(call),
            2 => return copy_dense::<2>(call),
            3 => return copy_dense::<3>(call),
            _ => {}
        }
    }
    for g in 0..groups {
        if g * GROUP >= call.valid {
            zero_group(call, g);
        } else if call.stride - g * GROUP >= GROUP {
            pack_straight::<true>(call, g);
        } else {
            pack_straight::<false>(call, g);
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

/// Whether the panel is one run of full groups that lie inside the tensor.
#[inline(always)]
unsafe fn is_dense(call: &PackCall<'_, f32>) -> bool {
    let op = call.operand;
    if op.checked || !call.valid.is_multiple_of(GROUP) || call.valid != call.stride {
        return false;
    }
    let first = call.panel * op.groups_per_panel;
    let start = runs(call, first);
    (0..call.valid / GROUP).all(|g| {
        // SAFETY: the panel has these groups.
        let runs = unsafe { runs(call, first + g) };
        runs.len() == 1
            && runs[0].mask == u16::MAX
            && runs[0].step == 1
            && runs[0].offset == start[0].offset + (g * GROUP) as i32
    })
}

#[inline(always)]
unsafe fn copy_dense<const G: usize>(call: &PackCall<'_, f32>) {
    let op = call.operand;
    let first = runs(call, call.panel * op.groups_per_panel)[0].offset as isize;
    let from = call.from.wrapping_offset(first);
    let mut to = call.to;
    for k in call.k0..call.k1 {
        let row = from.wrapping_offset(*op.k.add(k) as isize);
        if k + AHEAD < call.k1 {
            let later = from.wrapping_offset(*op.k.add(k + AHEAD) as isize);
            for g in 0..G {
                _mm_prefetch::<_MM_HINT_T0>(later.wrapping_add(g * GROUP).cast());
            }
        }
        for g in 0..G {
            _mm512_storeu_ps(to.add(g * GROUP), _mm512_loadu_ps(row.add(g * GROUP)));
        }
        to = to.add(G * GROUP);
    }
}

#[inline(always)]
unsafe fn zero_group(call: &PackCall<'_, f32>, g: usize) {
    let store = low_lanes(call.stride - g * GROUP);
    for row in 0..call.k1 - call.k0 {
        let to = call.to.add(row * call.stride + g * GROUP);
        _mm512_mask_storeu_ps(to, store, _mm512_setzero_ps());
    }
}

/// Packs group `g`; `FULL` if all its lanes belong to the panel.
#[inline(always)]
unsafe fn pack_straight<const FULL: bool>(call: &PackCall<'_, f32>, g: usize) {
    let group = call.panel * call.operand.groups_per_panel + g;
    let segments = runs(call, group);
    match (unit_steps(segments), segments) {
        (true, [a]) => copy_runs::<FULL, 1>(call, g, group, [*a]),
        (true, [a, b]) => copy_runs::<FULL, 2>(call, g, group, [*a, *b]),
        (true, [a, b, c]) => copy_runs::<FULL, 3>(call, g, group, [*a, *b, *c]),
        (true, [a, b, c, d]) => copy_runs::<FULL, 4>(call, g, group, [*a, *b, *c, *d]),
        (false, _) if is_spread(segments) => copy_spread(call, g, group),
        _ => gather_group(call, g, group),
    }
}

#[inline(always)]
fn unit_steps(segments: &[Segment]) -> bool {
    segments.iter().all(|run| run.step == 1)
}

/// Whether every run takes every other element, and there are few.
#[inline(always)]
fn is_spread(segments: &[Segment]) -> bool {
    segments.len() <= MOST_SPREAD && segments.iter().all(|run| run.step == 2 || run.len == 1)
}

/// Like `copy_runs` for runs that take every other element.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma,bmi2")]
unsafe fn copy_spread(call: &PackCall<'_, f32>, g: usize, group: usize) {
    match runs(call, group) {
        [a] => spread_runs(call, g, group, [*a]),
        [a, b] => spread_runs(call, g, group, [*a, *b]),
        [a, b, c] => spread_runs(call, g, group, [*a, *b, *c]),
        [a, b, c, d] => spread_runs(call, g, group, [*a, *b, *c, *d]),
        _ => gather_group(call, g, group),
    }
}

/// Where two steps are neighbours in memory, as two taps of a row are, one pair of loads gives both: the even elements and
/// the odd ones.
#[inline(always)]
unsafe fn spread_runs<const S: usize>(call: &PackCall<'_, f32>, g: usize, group: usize, segments: [Segment; S]) {
    let op = call.operand;
    if op.classes > MOST_CLASSES {
        return gather_group(call, g, group);
    }
    let (offsets, class, stride, checked) = (op.k, op.class, call.stride, op.checked);
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    // The elements of each class, lane i being element 2 i.
    let mut masks = [const { MaybeUninit::<[u32; S]>::uninit() }; MOST_CLASSES];
    for (class, masks) in masks.iter_mut().enumerate().take(op.classes.max(1)) {
        let inside = if checked { *op.masks.add(class * op.mask_stride + group) } else { u16::MAX };
        masks.write(segments.map(|run| {
            // SAFETY: BMI2, as the caller.
            unsafe { _pdep_u32(u32::from(run.mask & inside), 0x5555_5555) }
        }));
    }
    let masks = masks.as_ptr().cast::<[u32; S]>();
    let mut from = [call.from; S];
    for s in 0..S {
        from[s] = call.from.wrapping_offset(segments[s].start() - 2 * segments[s].first as isize);
    }
    // Where the same lanes of the next panel begin: asked for now, they arrive while this panel is used.
    let next = if (call.panel + 1) * op.width < op.free_period.len {
        runs(call, group + op.groups_per_panel).first()
    } else {
        None
    };
    let next = next.map_or(from[0], |run| call.from.wrapping_offset(run.start()));
    let store = low_lanes(stride - g * GROUP);
    let mut to = call.to.add(g * GROUP);
    let mut k = call.k0;
    let mut neighbour = isize::MIN;
    while k < call.k1 {
        let offset = *offsets.add(k) as isize;
        if offset != neighbour {
            _mm_prefetch::<_MM_HINT_T0>(next.wrapping_offset(offset).cast());
            _mm_prefetch::<_MM_HINT_T0>(next.wrapping_offset(offset + GROUP as isize).cast());
        }
        let pair = k + 1 < call.k1 && *offsets.add(k + 1) as isize == offset + 1;
        let class_of = |k: usize| if checked { *class.add(k) as usize } else { 0 };
        let mut wanted = *masks.add(class_of(k));
        if pair {
            let next = *masks.add(class_of(k + 1));
            for s in 0..S {
                wanted[s] |= next[s] << 1;
            }
        }
        let (mut low, mut high) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        for s in 0..S {
            let at = from[s].wrapping_offset(offset);
            low = _mm512_mask_loadu_ps(low, wanted[s] as u16, at);
            high = _mm512_mask_loadu_ps(high, (wanted[s] >> 16) as u16, at.wrapping_add(GROUP));
        }
        _mm512_mask_storeu_ps(to, store, _mm512_permutex2var_ps(low, even, high));
        to = to.wrapping_add(stride);
        k += 1;
        if pair {
            _mm512_mask_storeu_ps(to, store, _mm512_permutex2var_ps(low, odd, high));
            to = to.wrapping_add(stride);
            k += 1;
        }
        neighbour = *offsets.add(k - 1) as isize + 1;
    }
}

/// Copies one group of every step. Steps keep their order, which walks the taps of one channel before the next: sorted
/// by class, every step would touch another channel's lines.
#[inline(always)]
unsafe fn copy_runs<const FULL: bool, const S: usize>(
    call: &PackCall<'_, f32>,
    g: usize,
    group: usize,
    segments: [Segment; S],
) {
    let op = call.operand;
    if !op.checked {
        let masks = segments.map(|run| run.mask);
        return copy_steps::<FULL, S, false>(call, g, segments, &masks);
    }
    if op.classes > MOST_CLASSES {
        return gather_group(call, g, group);
    }
    let mut masks = [const { MaybeUninit::<[u16; S]>::uninit() }; MOST_CLASSES];
    for (class, masks) in masks.iter_mut().enumerate().take(op.classes) {
        let inside = *op.masks.add(class * op.mask_stride + group);
        masks.write(segments.map(|run| run.mask & inside));
    }
    copy_steps::<FULL, S, true>(call, g, segments, masks.as_ptr().cast());
}

#[inline(always)]
unsafe fn copy_steps<const FULL: bool, const S: usize, const CHECKED: bool>(
    call: &PackCall<'_, f32>,
    g: usize,
    segments: [Segment; S],
    masks: *const [u16; S],
) {
    // Locals, because a store of packed elements might otherwise change the call.
    let (offsets, class, stride) = (call.operand.k, call.operand.class, call.stride);
    let mut to = call.to.add(g * GROUP);
    let store = low_lanes(stride - g * GROUP);
    let mut from = [call.from; S];
    for s in 0..S {
        from[s] = call.from.wrapping_offset(segments[s].offset as isize);
    }
    let mut masks_now = *masks;
    for k in call.k0..call.k1 {
        let offset = *offsets.add(k) as isize;
        if CHECKED {
            masks_now = *masks.add(*class.add(k) as usize);
        }
        let mut row = _mm512_maskz_loadu_ps(masks_now[0], from[0].wrapping_offset(offset));
        for s in 1..S {
            row = _mm512_mask_loadu_ps(row, masks_now[s], from[s].wrapping_offset(offset));
        }
        if FULL {
            _mm512_storeu_ps(to, row);
        } else {
            _mm512_mask_storeu_ps(to, store, row);
        }
        to = to.wrapping_add(stride);
    }
}

#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
unsafe fn gather_group(call: &PackCall<'_, f32>, g: usize, group: usize) {
    let op = call.operand;
    let to = call.to.add(g * GROUP);
    let store = low_lanes(call.stride - g * GROUP);
    let lanes = low_lanes(call.valid - g * GROUP);
    let first = call.panel * op.width + g * GROUP;
    let index = _mm512_maskz_loadu_epi32(lanes, op.free.wrapping_add(first));
    for k in call.k0..call.k1 {
        let mask = if op.checked { lanes & *class_masks(call, k).add(group) } else { lanes };
        let from = call.from.wrapping_offset(*op.k.add(k) as isize);
        let row = _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), mask, index, from.cast());
        _mm512_mask_storeu_ps(to.add((k - call.k0) * call.stride), store, row);
    }
}

/// Sixteen free indices: where each one's row of the tensor starts, and which of its lanes count.
struct Rows {
    from: [*const f32; 16],
    masks: [*const u16; 16],
    exist: [u16; 16],
}

/// Sixteen free indices at a time: their k runs are the rows of a transpose.
#[inline(always)]
unsafe fn pack_transposed(call: &PackCall<'_, f32>, g: usize) {
    let op = call.operand;
    let valid = call.valid.saturating_sub(g * GROUP).min(GROUP);
    if valid == 0 {
        return zero_group(call, g);
    }
    let first = call.panel * op.width + g * GROUP;
    let mut rows = Rows { from: [call.from; 16], masks: [op.masks; 16], exist: [0; 16] };
    for r in 0..16 {
        // Rows that do not exist repeat the last one under an empty mask.
        let i = first + r.min(valid - 1);
        rows.from[r] = call.from.wrapping_offset(*op.free.add(i) as isize);
        rows.masks[r] = class_masks(call, i);
        rows.exist[r] = if r < valid { u16::MAX } else { 0 };
    }
    let lanes = (call.stride - g * GROUP).min(GROUP);
    for group in call.k0 / GROUP..call.k1.div_ceil(GROUP) {
        let segments = runs(call, group);
        if let [run] = segments
            && (run.mask, run.step, op.checked) == (u16::MAX, 1, false)
            && lanes == valid
            && (group + 1) * GROUP <= call.k1
        {
            turn_dense(
                &rows,
                run.offset,
                call.to.add((group * GROUP - call.k0) * call.stride + g * GROUP),
                call.stride,
                lanes,
            );
            continue;
        }
        let masked = op.checked || valid < GROUP;
        let block = match (unit_steps(segments), masked, segments) {
            (true, false, [a]) => load_rows::<false, 1>(&rows, op.checked, group, [*a]),
            (true, false, [a, b]) => load_rows::<false, 2>(&rows, op.checked, group, [*a, *b]),
            (true, false, [a, b, c]) => load_rows::<false, 3>(&rows, op.checked, group, [*a, *b, *c]),
            (true, true, [a]) => load_rows::<true, 1>(&rows, op.checked, group, [*a]),
            (true, true, [a, b]) => load_rows::<true, 2>(&rows, op.checked, group, [*a, *b]),
            (true, true, [a, b, c]) => load_rows::<true, 3>(&rows, op.checked, group, [*a, *b, *c]),
            (false, ..) if is_spread(segments) => load_rows_spread(call, &rows, group),
            _ => gather_rows(call, &rows, group),
        };
        store_columns(call, g, group * GROUP, transpose(&block));
    }
}

/// A group of k of `lanes` rows that are runs inside the tensor, as those of a matrix are: rows stay in registers, where
/// the general way leaves them in memory for its many kinds.
#[inline(always)]
unsafe fn turn_dense(rows: &Rows, offset: i32, to: *mut f32, stride: usize, lanes: usize) {
    let mut block = [_mm512_setzero_ps(); 16];
    for r in 0..16 {
        let at = rows.from[r].wrapping_offset(offset as isize);
        block[r] = _mm512_loadu_ps(at);
        _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(4 * GROUP).cast());
    }
    let store = low_lanes(lanes);
    for (i, column) in transpose(&block).iter().enumerate() {
        _mm512_mask_storeu_ps(to.add(i * stride), store, *column);
    }
}

#[inline(always)]
unsafe fn store_columns(call: &PackCall<'_, f32>, g: usize, k: usize, columns: [__m512; 16]) {
    let to = call.to.add((k - call.k0) * call.stride + g * GROUP);
    let count = call.k1 - k;
    if count >= GROUP && call.stride - g * GROUP >= GROUP {
        for (i, column) in columns.iter().enumerate() {
            _mm512_storeu_ps(to.add(i * call.stride), *column);
        }
        return;
    }
    let store = low_lanes(call.stride - g * GROUP);
    for (i, column) in columns.iter().enumerate() {
        if i < count {
            _mm512_mask_storeu_ps(to.add(i * call.stride), store, *column);
        }
    }
}

/// One group of k for each row; `MASKED` if rows differ in what they may read.
#[inline(always)]
unsafe fn load_rows<const MASKED: bool, const S: usize>(
    rows: &Rows,
    checked: bool,
    group: usize,
    segments: [Segment; S],
) -> [__m512; 16] {
    let mut block = [_mm512_setzero_ps(); 16];
    for r in 0..16 {
        let inside = match (MASKED, checked) {
            (false, _) => u16::MAX,
            (true, false) => rows.exist[r],
            (true, true) => rows.exist[r] & *rows.masks[r].add(group),
        };
        let at = rows.from[r].wrapping_offset(segments[0].offset as isize);
        let mut row = _mm512_maskz_loadu_ps(segments[0].mask & inside, at);
        _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(4 * GROUP).cast());
        for s in 1..S {
            let at = rows.from[r].wrapping_offset(segments[s].offset as isize);
            row = _mm512_mask_loadu_ps(row, segments[s].mask & inside, at);
        }
        block[r] = row;
    }
    block
}

#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
unsafe fn gather_rows(call: &PackCall<'_, f32>, rows: &Rows, group: usize) -> [__m512; 16] {
    let op = call.operand;
    let lanes = low_lanes(call.k1 - group * GROUP);
    let index = _mm512_maskz_loadu_epi32(lanes, op.k.wrapping_add(group * GROUP));
    let (later, places) = next_places(call, group);
    let mut block = [_mm512_setzero_ps(); 16];
    for r in 0..16 {
        for offset in later.iter().take(places) {
            _mm_prefetch::<_MM_HINT_T0>(rows.from[r].wrapping_offset(*offset as isize).cast());
        }
        let inside = if op.checked { *rows.masks[r].add(group) } else { u16::MAX };
        let mask = lanes & inside & rows.exist[r];
        let zero = _mm512_setzero_ps();
        block[r] = _mm512_mask_i32gather_ps::<4>(zero, mask, index, rows.from[r].cast());
    }
    block
}

/// Offsets of the next group's terms that begin another line, and how many there are: those of a filter share one, those
/// of the next filter lie where no prefetcher of the processor looks.
#[inline(always)]
unsafe fn next_places(call: &PackCall<'_, f32>, group: usize) -> ([i32; GROUP], usize) {
    let (mut places, mut count, mut line) = ([0; GROUP], 0, i32::MIN);
    for k in (group + 1) * GROUP..((group + 2) * GROUP).min(call.k1) {
        let offset = *call.operand.k.add(k);
        if line.abs_diff(offset) >= GROUP as u32 {
            line = offset;
            places[count] = offset;
            count += 1;
        }
    }
    (places, count)
}

/// The lanes of `mask` of a strided run.
#[inline(always)]
unsafe fn load_spread(from: *const f32, run: &Segment, mask: u16) -> __m512 {
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let at = from.wrapping_offset(run.start() - 2 * run.first as isize);
    let spread = _pdep_u32(u32::from(mask), 0x5555_5555);
    let low = _mm512_maskz_loadu_ps(spread as u16, at);
    let high = _mm512_maskz_loadu_ps((spread >> 16) as u16, at.wrapping_add(16));
    _mm512_permutex2var_ps(low, even, high)
}

#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma,bmi2")]
unsafe fn load_rows_spread(call: &PackCall<'_, f32>, rows: &Rows, group: usize) -> [__m512; 16] {
    let checked = call.operand.checked;
    let segments = runs(call, group);
    let mut block = [_mm512_setzero_ps(); 16];
    for r in 0..16 {
        let inside = if checked { *rows.masks[r].add(group) } else { u16::MAX };
        for run in segments {
            let part = load_spread(rows.from[r], run, run.mask & inside & rows.exist[r]);
            block[r] = _mm512_or_ps(block[r], part);
        }
    }
    block
}

/// Sixteen columns at a time; the width is a multiple of sixteen.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
pub(crate) unsafe fn transpose_block(rows: usize, width: usize, from: *const f32, to: *mut f32) {
    for column in (0..width).step_by(GROUP) {
        let mut block = [_mm512_setzero_ps(); 16];
        for row in 0..rows {
            block[row] = _mm512_loadu_ps(from.add(row * width + column));
        }
        let turned = transpose(&block);
        for i in 0..GROUP {
            _mm512_storeu_ps(to.add((column + i) * GROUP), turned[i]);
        }
    }
}

/// 16 x 16 transpose: pairs, quadruples, then 128-bit blocks.
#[inline(always)]
pub(super) unsafe fn transpose(r: &[__m512; 16]) -> [__m512; 16] {
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
                _mm512_castpd_ps(if high { _mm512_unpackhi_pd(x, y) } else { _mm512_unpacklo_pd(x, y) })
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
