#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "instantiates the transforms; each is reached only through the table of a level the processor has"
)]
//! The transforms of the levels that move pixels one by one.

pub(crate) mod portable {
    use super::super::super::portable::Array;
    use super::super::gradient::transform::{Channels, gradient_transforms};
    use super::super::transform::{InputCall, Lanes, OutputCall, Transforms, WeightsCall, transforms};

    impl Lanes for Array<f32> {}
    transforms!(Array<f32>);

    impl Channels for Array<f32> {
        const ROWS: usize = 4;
    }
    gradient_transforms!(Array<f32>);
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2 {
    use std::arch::x86_64::*;

    use super::super::super::abi::GROUP;
    use super::super::super::avx2::F32x8;
    use super::super::super::pack_avx2::transpose;
    use super::super::super::simd::Simd;
    use super::super::gradient::transform::{Channels, gradient_transforms};
    use super::super::transform::{InputCall, Lanes, OutputCall, Transforms, WeightsCall, transforms};

    impl Lanes for F32x8 {}
    transforms!(F32x8, "avx2,fma");

    impl Channels for F32x8 {
        const ROWS: usize = 4;

        #[inline(always)]
        unsafe fn turn(from: *const f32, stride: isize, channels: usize, count: usize, to: *mut f32) {
            for first in (0..count).step_by(8) {
                let pixels = (count - first).min(8);
                let mask = ((1u32 << pixels) - 1) as u16;
                for channel in [0, 8] {
                    let mut block = [_mm256_setzero_ps(); 8];
                    for (i, row) in block.iter_mut().enumerate().take(channels.saturating_sub(channel)) {
                        let at = from.wrapping_offset((channel + i) as isize * stride).wrapping_add(first);
                        *row = if pixels == 8 { _mm256_loadu_ps(at) } else { F32x8::load_mask(at, mask).0 };
                    }
                    for (i, pixel) in transpose(&block).iter().enumerate().take(pixels) {
                        _mm256_storeu_ps(to.wrapping_add((first + i) * GROUP + channel), *pixel);
                    }
                }
            }
        }

        #[inline(always)]
        unsafe fn store_rows(self, to: *mut f32, panel: usize) {
            _mm_storeu_ps(to, _mm256_castps256_ps128(self.0));
            _mm_storeu_ps(to.wrapping_add(panel), _mm256_extractf128_ps::<1>(self.0));
        }
    }
    gradient_transforms!(F32x8, "avx2,fma");
}

#[cfg(target_arch = "aarch64")]
pub(crate) mod neon {
    use super::super::super::neon::F32x4;
    use super::super::gradient::transform::{Channels, gradient_transforms};
    use super::super::transform::{InputCall, Lanes, OutputCall, Transforms, WeightsCall, transforms};

    impl Lanes for F32x4 {}
    transforms!(F32x4);

    impl Channels for F32x4 {
        const ROWS: usize = 4;
    }
    gradient_transforms!(F32x4);
}
