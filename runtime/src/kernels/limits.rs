#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "vector code over raw arrays; reached only through the table of a level that the processor has"
)]
//! Loops that do nothing but what a processor can do at most: multiply-adds in registers, and streams of memory.
//!
//! One body for all levels, over the vector operations of `simd.rs`. The streams are the kernels of STREAM (McCalpin,
//! 1995) with plain stores, since kernels store that way too; a fence for the compiler in each round keeps LLVM from
//! making a library call of a copy.

use std::hint::black_box;
use std::sync::atomic::{Ordering, compiler_fence};

use super::simd::Simd;
use super::{Kernels, Level, portable};

/// Elements that every array's length is a multiple of.
pub const CHUNK: usize = 256;

/// Measuring loops of one level.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Floating point operations of one round of [`Limits::fma`].
    pub flops: u64,
    fma: unsafe fn(u64) -> f32,
    read: unsafe fn(*const f32, usize) -> f32,
    copy: unsafe fn(*const f32, *mut f32, usize),
    triad: unsafe fn(*const f32, *const f32, *mut f32, usize),
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").field("flops", &self.flops).finish_non_exhaustive()
    }
}

impl Limits {
    /// The loops of the kernels' level; the portable ones without kernels.
    pub fn of(kernels: Option<&Kernels>) -> Limits {
        match kernels.map_or(Level::None, |kernels| kernels.level) {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2(),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => neon(),
            _ => baseline(),
        }
    }

    /// `rounds` times [`Limits::flops`] operations on registers.
    pub fn fma(&self, rounds: u64) {
        // SAFETY: `of` chose loops of a level that the processor has.
        black_box(unsafe { (self.fma)(rounds) });
    }

    /// Reads whole chunks of `from`.
    pub fn read(&self, from: &[f32]) {
        // SAFETY: as in `fma`; the length is the slice's, in whole chunks.
        black_box(unsafe { (self.read)(from.as_ptr(), from.len() / CHUNK * CHUNK) });
    }

    /// `to = from`, in whole chunks of the shorter one.
    pub fn copy(&self, from: &[f32], to: &mut [f32]) {
        let len = from.len().min(to.len()) / CHUNK * CHUNK;
        // SAFETY: as in `read`.
        unsafe { (self.copy)(from.as_ptr(), to.as_mut_ptr(), len) }
    }

    /// `to = a + 0.5 b`, in whole chunks of the shortest one.
    pub fn triad(&self, a: &[f32], b: &[f32], to: &mut [f32]) {
        let len = a.len().min(b.len()).min(to.len()) / CHUNK * CHUNK;
        // SAFETY: as in `read`.
        unsafe { (self.triad)(a.as_ptr(), b.as_ptr(), to.as_mut_ptr(), len) }
    }
}

/// `N` independent chains, enough to hide the latency of an addition behind two per cycle.
#[inline(always)]
unsafe fn fma<S: Simd<Elem = f32>, const N: usize>(rounds: u64) -> f32 {
    let (a, b) = (S::splat(black_box(0.5)), S::splat(black_box(0.25)));
    // Different starts, or LLVM computes one chain for all.
    let mut sums = [a; N];
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum = S::splat(black_box(i as f32));
    }
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = sum.mul_add(a, b);
        }
    }
    total(sums)
}

#[inline(always)]
unsafe fn total<S: Simd<Elem = f32>, const N: usize>(sums: [S; N]) -> f32 {
    let mut all = S::splat(0.0);
    for sum in sums {
        all = all.add(sum);
    }
    let mut lanes = [0.0; 16];
    all.store(lanes.as_mut_ptr());
    lanes.iter().sum()
}

#[inline(always)]
unsafe fn read<S: Simd<Elem = f32>, const N: usize>(from: *const f32, len: usize) -> f32 {
    let mut sums = [S::splat(0.0); N];
    for at in (0..len).step_by(N * S::LANES) {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = sum.add(S::load(from.add(at + i * S::LANES)));
        }
    }
    total(sums)
}

#[inline(always)]
unsafe fn copy<S: Simd<Elem = f32>, const N: usize>(from: *const f32, to: *mut f32, len: usize) {
    for at in (0..len).step_by(N * S::LANES) {
        for i in 0..N {
            S::load(from.add(at + i * S::LANES)).store(to.add(at + i * S::LANES));
        }
        compiler_fence(Ordering::SeqCst);
    }
}

#[inline(always)]
unsafe fn triad<S: Simd<Elem = f32>, const N: usize>(a: *const f32, b: *const f32, to: *mut f32, len: usize) {
    let factor = S::splat(0.5);
    for at in (0..len).step_by(N * S::LANES) {
        for i in 0..N {
            let place = at + i * S::LANES;
            S::load(b.add(place)).mul_add(factor, S::load(a.add(place))).store(to.add(place));
        }
        compiler_fence(Ordering::SeqCst);
    }
}

/// The loops of one level: its vector, its features, chains of multiply-adds, vectors in a round of a stream.
macro_rules! level {
    ($name:ident, $vector:ty, $chains:literal, $vectors:literal $(, $features:literal)?) => {
        fn $name() -> Limits {
            $(#[target_feature(enable = $features)])?
            unsafe fn fma_loop(rounds: u64) -> f32 {
                fma::<$vector, $chains>(rounds)
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn read_loop(from: *const f32, len: usize) -> f32 {
                read::<$vector, $vectors>(from, len)
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn copy_loop(from: *const f32, to: *mut f32, len: usize) {
                copy::<$vector, $vectors>(from, to, len);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn triad_loop(a: *const f32, b: *const f32, to: *mut f32, len: usize) {
                triad::<$vector, $vectors>(a, b, to, len);
            }
            Limits {
                flops: 2 * $chains * <$vector as Simd>::LANES as u64,
                fma: fma_loop,
                read: read_loop,
                copy: copy_loop,
                triad: triad_loop,
            }
        }
    };
}

// A portable vector is two registers of the baseline, which has sixteen.
level!(baseline, portable::Array<f32>, 6, 4);
#[cfg(target_arch = "x86_64")]
level!(avx2, super::avx2::F32x8, 12, 8, "avx2,fma");
#[cfg(target_arch = "x86_64")]
level!(avx512, super::avx512::F32x16, 12, 8, "avx512f,avx512dq,avx512bw,avx512vl,fma");
#[cfg(target_arch = "aarch64")]
level!(neon, super::neon::F32x4, 16, 8);
