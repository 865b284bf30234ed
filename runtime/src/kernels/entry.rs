#![allow(unsafe_code, reason = "entry points of the kernels for JITed code: raw pointers from its table")]
//! What JITed tile loops call: the arguments of [`super::Arguments`] one by one, as a nest can pass them.

use super::{
    Arguments, Descriptor, WinogradDescriptor, WinogradGradientDescriptor, contract_begin, contract_reduce,
    contract_tiles, winograd_gradient_input, winograd_gradient_sum, winograd_gradient_tiles, winograd_input,
    winograd_tiles,
};

macro_rules! entry {
    ($(#[$doc:meta])* $name:ident($descriptor:ty) -> $target:ident) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As the function it calls: pointers as the plan behind `descriptor` asks for them.
        #[allow(clippy::too_many_arguments, reason = "a nest passes pointers one by one")]
        pub unsafe extern "C" fn $name(
            descriptor: *const $descriptor,
            left: *const u8,
            right: *const u8,
            out: *mut u8,
            bias: *const u8,
            scale: *const u8,
            residual: *const u8,
            partials: *mut u8,
            scratch: *mut u8,
            begin: u64,
            end: u64,
        ) {
            let arguments = Arguments { left, right, out, bias, scale, residual, partials, scratch };
            // SAFETY: the caller's contract is the callee's.
            unsafe { $target(descriptor, &arguments, begin, end) }
        }
    };
}

entry! {
    /// Tiles `begin..end` of a contraction.
    contract_tiles_entry(Descriptor) -> contract_tiles
}
entry! {
    /// Empties the panels that tiles of a contraction share.
    contract_begin_entry(Descriptor) -> contract_begin
}
entry! {
    /// Sums partial results of tiles `begin..end`.
    contract_reduce_entry(Descriptor) -> contract_reduce
}
entry! {
    /// Input transforms `begin..end` of a Winograd convolution.
    winograd_input_entry(WinogradDescriptor) -> winograd_input
}
entry! {
    /// Tiles `begin..end` of a Winograd convolution.
    winograd_tiles_entry(WinogradDescriptor) -> winograd_tiles
}
entry! {
    /// Operand transforms `begin..end` of a Winograd gradient.
    winograd_gradient_input_entry(WinogradGradientDescriptor) -> winograd_gradient_input
}
entry! {
    /// Tiles `begin..end` of a Winograd gradient.
    winograd_gradient_tiles_entry(WinogradGradientDescriptor) -> winograd_gradient_tiles
}
entry! {
    /// Sums partial gradients `begin..end`.
    winograd_gradient_sum_entry(WinogradGradientDescriptor) -> winograd_gradient_sum
}
