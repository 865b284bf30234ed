#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "instantiates the transforms; each is reached only through the table of a level the processor has"
)]
//! The transforms of the levels that move pixels one by one.

pub(crate) mod portable {
    use super::super::super::portable::Array;
    use super::super::transform::{F2, F4, InputCall, Lanes, OutputCall, Transforms, WeightsCall, transforms};

    impl Lanes for Array<f32> {}
    transforms!(Array<f32>);
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2 {
    use super::super::super::avx2::F32x8;
    use super::super::transform::{F2, F4, InputCall, Lanes, OutputCall, Transforms, WeightsCall, transforms};

    impl Lanes for F32x8 {}
    transforms!(F32x8, "avx2,fma");
}

#[cfg(target_arch = "aarch64")]
pub(crate) mod neon {
    use super::super::super::neon::F32x4;
    use super::super::transform::{F2, F4, InputCall, Lanes, OutputCall, Transforms, WeightsCall, transforms};

    impl Lanes for F32x4 {}
    transforms!(F32x4);
}
