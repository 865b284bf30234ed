#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "intrinsics; every function here is reached only through the table of a level the processor has"
)]
#![allow(clippy::needless_range_loop, reason = "parts number registers and offsets alike")]
//! AVX-512: pixels move between images and lanes by masked loads and stores of runs and by transposes in registers.
//!
//! Tiles of 4 x 4 are transposed within 128 bit, four instructions a column pair: lane `4 l + p` is tile `4 p + l`. Only
//! these functions know of that order, because nothing between them looks across lanes. Tiles of 2 x 2 keep theirs.

use std::arch::x86_64::*;

use super::super::abi::GROUP;
use super::super::avx512::F32x16;
use super::super::math::{LEAKY_RELU, RELU};
use super::super::pack_avx512::transpose;
use super::super::simd::Simd;
use super::filter::{Filter, Filters, INPUTS, OUTPUTS};
use super::geometry::{Geometry, Part};
use super::gradient::transform::{Channels, gradient_transforms};
use super::transform::{InputCall, Lanes, OutputCall, Plane, Stage, Transforms, WeightsCall, transforms};

impl Lanes for F32x16 {
    #[inline(always)]
    unsafe fn fetch<F: Filters>(_geometry: &Geometry, _at: *const f32, _row: isize, _stage: &mut Stage) {}

    #[inline(always)]
    unsafe fn announce<F: Filters>(geometry: &Geometry, at: *const f32, row: isize) {
        for p in 0..F::X::M {
            let at = at.wrapping_offset(geometry.parts[p].from[0]);
            for r in 0..F::Y::A {
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_offset(r as isize * row).cast());
            }
        }
    }

    #[inline(always)]
    unsafe fn columns<F: Filters>(
        geometry: &Geometry,
        at: *const f32,
        row: isize,
        _stage: &Stage,
        (r, _v): (usize, usize),
    ) -> [F32x16; INPUTS] {
        let at = at.wrapping_offset(r as isize * row);
        let mut columns = [F32x16(_mm512_setzero_ps()); INPUTS];
        for (i, shift) in (0..F::X::A).step_by(F::X::M).enumerate() {
            let mut parts = [_mm512_setzero_ps(); OUTPUTS];
            for p in 0..F::X::M {
                let part = &geometry.parts[p];
                parts[p] = load(part, &part.inside[i][r], at.wrapping_add(shift));
            }
            if F::X::M == 1 {
                columns[shift] = F32x16(parts[0]);
            } else if F::X::M == 2 {
                columns[shift] = F32x16(_mm512_permutex2var_ps(parts[0], strided::<0>(), parts[1]));
                columns[shift + 1] = F32x16(_mm512_permutex2var_ps(parts[0], strided::<1>(), parts[1]));
            } else {
                let [a, b, c, d] = parts;
                let (ab, cd) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
                let (x0, x1) = interleave_pairs(ab, cd);
                (columns[shift], columns[shift + 1]) = (F32x16(x0), F32x16(x1));
                if shift + 2 < F::X::A {
                    let (ab, cd) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
                    let (x2, x3) = interleave_pairs(ab, cd);
                    (columns[shift + 2], columns[shift + 3]) = (F32x16(x2), F32x16(x3));
                }
            }
        }
        columns
    }

    #[inline(always)]
    unsafe fn put<F: Filters>(
        geometry: &Geometry,
        to: &Plane,
        y: [F32x16; OUTPUTS],
        _stage: &mut Stage,
        (r, _v): (usize, usize),
    ) {
        let parts = if F::X::M == 1 {
            [y[0].0; OUTPUTS]
        } else if F::X::M == 2 {
            let part0 = _mm512_permutex2var_ps(y[0].0, woven::<0>(), y[1].0);
            let part1 = _mm512_permutex2var_ps(y[0].0, woven::<8>(), y[1].0);
            [part0, part1, part1, part1]
        } else {
            let (lo, hi) = (_mm512_unpacklo_ps(y[0].0, y[1].0), _mm512_unpackhi_ps(y[0].0, y[1].0));
            let (lo2, hi2) = (_mm512_unpacklo_ps(y[2].0, y[3].0), _mm512_unpackhi_ps(y[2].0, y[3].0));
            let (a, b) = interleave_pairs(lo, lo2);
            let (c, d) = interleave_pairs(hi, hi2);
            [a, b, c, d]
        };
        for p in 0..F::X::M {
            store(&geometry.parts[p], r, to, F32x16(parts[p]));
        }
    }

    #[inline(always)]
    unsafe fn store_far(self, to: *mut f32) {
        // A whole line goes to memory without being fetched first.
        if to.cast::<__m512>().is_aligned() { _mm512_stream_ps(to, self.0) } else { self.store(to) }
    }

    #[inline(always)]
    unsafe fn settle() {
        _mm_sfence();
    }

    #[inline(always)]
    unsafe fn flush<F: Filters>(_geometry: &Geometry, _to: &Plane, _stage: &mut Stage) {}
}

/// Low 64 bit of each 128-bit lane of both, and the high ones.
#[inline(always)]
unsafe fn interleave_pairs(a: __m512, b: __m512) -> (__m512, __m512) {
    let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
    (_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)))
}

/// Every other element of two registers, from `FIRST` on.
#[inline(always)]
unsafe fn strided<const FIRST: i32>() -> __m512i {
    const fn f(first: i32, i: i32) -> i32 {
        first + 2 * i
    }
    let index: [i32; 16] = const {
        let mut index = [0; 16];
        let mut i = 0;
        while i < 16 {
            index[i] = f(FIRST, i as i32);
            i += 1;
        }
        index
    };
    _mm512_loadu_si512(index.as_ptr().cast())
}

/// Elements of two registers in turn, from lane `FIRST` on.
#[inline(always)]
unsafe fn woven<const FIRST: i32>() -> __m512i {
    const fn f(first: i32, i: i32) -> i32 {
        first + i / 2 + 16 * (i % 2)
    }
    let index: [i32; 16] = const {
        let mut index = [0; 16];
        let mut i = 0;
        while i < 16 {
            index[i] = f(FIRST, i as i32);
            i += 1;
        }
        index
    };
    _mm512_loadu_si512(index.as_ptr().cast())
}

#[inline(always)]
unsafe fn load(part: &Part, masks: &[u16; 8], at: *const f32) -> __m512 {
    let mut x = _mm512_maskz_loadu_ps(masks[0], at.wrapping_offset(part.from[0]));
    for run in 1..part.runs {
        x = _mm512_mask_loadu_ps(x, masks[run], at.wrapping_offset(part.from[run]));
    }
    x
}

#[inline(always)]
unsafe fn store(part: &Part, r: usize, to: &Plane, mut x: F32x16) {
    let masks = &part.out[r];
    let row = r as isize * to.row;
    if !to.residual.is_null() {
        for run in 0..part.runs {
            x = x.add(F32x16::load_mask(to.residual.wrapping_offset(part.to[run] + row), masks[run]));
        }
    }
    match to.activation {
        0 => {}
        RELU => x = F32x16::splat(0.0).max_or_other(x),
        LEAKY_RELU => x = x.leaky(F32x16::splat(to.alpha[0])),
        code => {
            let mut pixels = [0.0f32; 16];
            x.store(pixels.as_mut_ptr());
            (to.activate)(code, to.alpha, pixels.as_mut_ptr(), 16);
            x = F32x16::load(pixels.as_ptr());
        }
    }
    for run in 0..part.runs {
        let out = to.out.wrapping_offset(part.to[run] + row);
        if masks[run] == u16::MAX { x.store(out) } else { x.store_mask(out, masks[run]) }
    }
}

transforms!(F32x16, "avx512f,avx512dq,avx512bw,avx512vl,fma");

impl Channels for F32x16 {
    const ROWS: usize = 8;

    #[inline(always)]
    unsafe fn turn(from: *const f32, stride: isize, channels: usize, count: usize, to: *mut f32) {
        let mask = ((1u32 << count) - 1) as u16;
        let mut block = [_mm512_setzero_ps(); 16];
        if channels >= GROUP {
            for i in 0..GROUP {
                block[i] = _mm512_maskz_loadu_ps(mask, from.wrapping_offset(i as isize * stride));
            }
        } else {
            for i in 0..channels {
                block[i] = _mm512_maskz_loadu_ps(mask, from.wrapping_offset(i as isize * stride));
            }
        }
        let turned = transpose(&block);
        if count == GROUP {
            for i in 0..GROUP {
                _mm512_storeu_ps(to.wrapping_add(i * GROUP), turned[i]);
            }
        } else {
            for i in 0..count {
                _mm512_storeu_ps(to.wrapping_add(i * GROUP), turned[i]);
            }
        }
    }

    #[inline(always)]
    unsafe fn store_rows(self, to: *mut f32, panel: usize) {
        _mm256_storeu_ps(to, _mm512_castps512_ps256(self.0));
        _mm256_storeu_ps(to.wrapping_add(panel), _mm512_extractf32x8_ps::<1>(self.0));
    }
}

gradient_transforms!(F32x16, "avx512f,avx512dq,avx512bw,avx512vl,fma");
