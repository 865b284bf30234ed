//! What an operand is to its packer: elements as panels hold them, elements to convert, or several terms of the sum that lie
//! side by side as one of the panel's.

use super::gather::Read;
use super::in_place::{InPlace, along_sum};
use super::spec::{AffineRead, ContractSpec, Element, Side};

/// How an operand is read by its packer.
pub(super) struct Source {
    pub(super) side: Side,
    pub(super) read: AffineRead,
    pub(super) dims: Read,
    /// Type of what is packed, and whether that is what panels hold.
    pub(super) element: Element,
    pub(super) native: bool,
    /// How it lies, if a register block could read its columns without packing.
    pub(super) in_place: Option<InPlace>,
    /// Elements from one free index to the next, if an inner product could read it without packing.
    pub(super) along_sum: Option<usize>,
}

impl Source {
    /// Where `terms` neighbours in memory are what an element of a panel holds, they are read as one element.
    pub(super) fn new(spec: &ContractSpec, side: Side, dims: Read, terms: usize) -> Source {
        let read = match side {
            Side::Left => &spec.left,
            Side::Right => &spec.right,
        };
        let element = spec.operand(side);
        let comes_packed = spec.packed.side(side);
        let in_place = |read: &AffineRead, dims: &Read| if comes_packed { None } else { InPlace::of(read, dims) };
        let joined = match element {
            _ if terms * element.bytes() != spec.element.bytes() || terms == 1 => None,
            _ => joined(read, &dims, terms),
        };
        match joined {
            Some((read, dims)) => {
                let in_place = in_place(&read, &dims);
                Source { side, read, dims, element: spec.element, native: true, in_place, along_sum: None }
            }
            None => {
                let native = terms == 1 && element == spec.element;
                let in_place = if native { in_place(read, &dims) } else { None };
                let along_sum = if native && !comes_packed { along_sum(read, &dims) } else { None };
                Source { side, read: read.clone(), dims, element, native, in_place, along_sum }
            }
        }
    }

    /// Cycles of packing sixteen lanes of one step, measured on Zen 5.
    pub(super) fn pack_cost(&self, spec: &ContractSpec, terms: usize) -> f64 {
        const PACK: f64 = 5.0;
        const JOIN: f64 = 8.0;
        match () {
            () if spec.packed.side(self.side) => 0.0,
            () if self.native => PACK,
            () => PACK * terms as f64 + JOIN,
        }
    }
}

/// The read of `terms` elements at a time; `None` unless the last summed dimension is stored densely and by itself, in
/// multiples of `terms`.
fn joined(read: &AffineRead, dims: &Read, terms: usize) -> Option<(AffineRead, Read)> {
    let last = dims.k_first + dims.k.len().checked_sub(1)?;
    let whole = |x: i64| x % terms as i64 == 0;
    let mut joined = read.clone();
    for dim in &mut joined.dims {
        if dim.terms.iter().any(|&(index, _)| index == last) {
            let alone = dim.terms.as_slice() == [(last, 1)] && dim.offset == 0 && dim.divisor == 1;
            if !alone || dim.stride != 1 || !whole(dim.extent as i64) || dim.extent != dims.k[dims.k.len() - 1] {
                return None;
            }
            dim.extent /= terms;
        } else {
            if !whole(dim.stride) {
                return None;
            }
            dim.stride /= terms as i64;
        }
    }
    let mut k = dims.k.clone();
    *k.last_mut()? /= terms;
    Some((joined, Read { batch: dims.batch.clone(), free: dims.free.clone(), k, ..*dims }))
}
