//! Bounds of integer data: labels, tokens, indices.

use kiln_ir::DType;

use crate::tensor::{Element, Tensor};

/// Position and value of the first element outside `0..limit`; `None` if all are inside, or the elements are floats.
pub fn first_outside(tensor: &Tensor, limit: u64) -> Option<(usize, i64)> {
    match tensor.dtype() {
        DType::I8 => search::<i8>(tensor, limit),
        DType::U8 => search::<u8>(tensor, limit),
        DType::I32 => search::<i32>(tensor, limit),
        DType::U32 => search::<u32>(tensor, limit),
        DType::I64 => search::<i64>(tensor, limit),
        DType::F32 | DType::F64 | DType::Bf16 | DType::F16 | DType::Bool => None,
    }
}

fn search<T: Element + Into<i64>>(tensor: &Tensor, limit: u64) -> Option<(usize, i64)> {
    let values = tensor.as_slice::<T>().ok()?.iter().map(|&value| value.into());
    // As an unsigned number a negative value is larger than any limit in use.
    values.enumerate().find(|&(_, value)| value < 0 || value as u64 >= limit)
}
