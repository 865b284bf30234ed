//! Element types of operands and output, at every level.

use super::super::{Activation, Along, ContractError, ContractPlan, ContractSpec, Element, Packed, Side, Stored};
use super::cases::{Conv, dot, read_len};
use super::contract::{CONV, bits_of_tiles_in_any_order, check_all};
use super::run::{Tensors, from_bytes, levels, numbers_of, output, to_bytes};

/// Left, right, sums, output.
pub(super) type Types = (Element, Element, Element, Element);

pub(super) const TYPES: [Types; 11] = {
    use Element::{Bf16, F16, F32, I8, I32, U8};
    [
        (Bf16, Bf16, F32, F32),
        (Bf16, Bf16, F32, Bf16),
        (F16, F16, F32, F16),
        (F32, Bf16, F32, F32),
        (F16, F16, F32, F32),
        (I8, I8, I32, I32),
        (U8, I8, I32, I32),
        (I8, U8, I32, I32),
        (U8, U8, I32, I32),
        (I32, I32, I32, I32),
        (U8, I32, I32, I32),
    ]
};

pub(super) fn with_types(spec: &ContractSpec, (left, right, element, out): Types) -> ContractSpec {
    let stored = Stored { left: Some(left), right: Some(right), out: Some(out) };
    ContractSpec { element, stored, ..spec.clone() }
}

#[test]
fn types_of_operands_and_output() {
    // Whole and broken pairs and quadruples of terms, several blocks of them, a split sum, rows alone.
    let sizes = [(1, 1, 1), (3, 5, 7), (29, 33, 64), (15, 70, 130), (1, 64, 48), (17, 9, 1700), (6, 10, 6000)];
    for types in TYPES {
        for (m, n, k) in sizes {
            for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
                check_all(&with_types(&dot(1, m, n, k, ta, tb), types));
            }
        }
        check_all(&with_types(&dot(3, 17, 40, 68, false, true), types));
    }
}

#[test]
fn types_with_epilogue_packed_or_not() {
    for types in TYPES {
        let float = types.2 == Element::F32;
        for (ta, tb) in [(false, false), (false, true), (true, true)] {
            for packed in [Packed { left: false, right: true }, Packed { left: true, right: false }] {
                for bias in [Along::M, Along::N] {
                    let mut spec = with_types(&dot(1, 31, 50, 64, ta, tb), types);
                    spec.packed = packed;
                    spec.epilogue.bias = Some(bias);
                    spec.epilogue.residual = true;
                    spec.epilogue.activation = if float { Activation::Tanh } else { Activation::Relu };
                    spec.epilogue.scale = float.then_some(Along::N);
                    // A transposed output as well.
                    check_all(&spec);
                    spec.out_strides = vec![0, 1, 31];
                    check_all(&spec);
                }
            }
        }
    }
}

#[test]
fn types_of_convolutions() {
    for types in TYPES {
        for stride in [1, 2] {
            let conv = Conv { batch: 2, channels: 5, outputs: 9, size: (9, 11), stride, ..CONV };
            check_all(&with_types(&conv.forward(), types));
        }
    }
}

/// Tables hold some images of a batch, of terms too where panels hold what memory does.
#[test]
fn types_of_batches_longer_than_their_tables() {
    let plain = (Element::F32, Element::F32, Element::F32, Element::F32);
    for types in TYPES.into_iter().chain([plain]) {
        // 6 x 1024 outputs and terms in tables of 4096 or all; an uneven batch beside it.
        for (batch, size) in [(8, (32, 32)), (6, (40, 33))] {
            let conv = Conv { batch, channels: 3, outputs: 4, size, pad: 1, ..CONV };
            check_all(&with_types(&conv.forward(), types));
            check_all(&with_types(&conv.backward_weights(), types));
        }
        check_all(&with_types(&dot(1, 5, 9000, 8, false, true), types));
    }
}

/// Operands that `bf16` holds are not changed by rounding to it; others are off by half a unit in its last place.
#[test]
fn operands_may_be_rounded_to_bf16() {
    use Element::{Bf16, F32};
    for (m, n, k) in [(1, 64, 48), (29, 33, 65), (15, 70, 130)] {
        for (ta, tb) in [(false, false), (true, true)] {
            for types in [(F32, Bf16, F32, F32), (F32, F32, F32, F32)] {
                let spec = with_types(&dot(1, m, n, k, ta, tb), types);
                let rounding = ContractSpec { rounds_operands: true, ..spec.clone() };
                let rounded = |len: usize, seed: u64| numbers_of(Bf16, len, seed);
                let (left, right) = (rounded(read_len(&spec.left), 1), rounded(read_len(&spec.right), 2));
                for kernels in levels() {
                    let sums = |spec: &ContractSpec, nudge: f64| {
                        let nudged = |x: &f64| x * (1.0 + nudge);
                        let left = to_bytes(&left.iter().map(nudged).collect::<Vec<_>>(), F32);
                        let right = to_bytes(&right, spec.operand(Side::Right));
                        let plan = ContractPlan::new(spec, kernels).unwrap();
                        let out = output(&plan, spec, &Tensors { left, right, ..Tensors::default() });
                        (from_bytes(&out, F32), plan.terms_per_step())
                    };
                    let (exact, _) = sums(&spec, 0.0);
                    let (same, terms) = sums(&rounding, 0.0);
                    // A quarter of a unit: rounding takes it away.
                    let (nudged, _) = sums(&rounding, 2f64.powi(-10));
                    for i in 0..exact.len() {
                        assert!((exact[i] - same[i]).abs() <= 1e-5, "{}: {} {}", kernels.level, exact[i], same[i]);
                        assert!(terms == 1 || nudged[i] == same[i], "{}: {} {}", kernels.level, nudged[i], same[i]);
                    }
                }
            }
        }
    }
}

/// The largest sums that `vpdpbusd` meets, and integers that wrap.
#[test]
fn extreme_bytes_are_exact() {
    use Element::{I8, I32, U8};
    let extremes = |element: Element, at: usize| match element {
        U8 => [0.0, 255.0][at % 2],
        _ => [-128.0, 127.0][at % 2],
    };
    for kernels in levels() {
        for (left, right) in [(I8, I8), (U8, I8), (I8, U8), (U8, U8)] {
            for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let k = 34_000;
                let spec = with_types(&dot(1, 2, 3, k, false, true), (left, right, I32, I32));
                let plan = ContractPlan::new(&spec, kernels).unwrap();
                let operand = |element, at, len| to_bytes(&vec![extremes(element, at); len], element);
                let tensors =
                    Tensors { left: operand(left, a, 2 * k), right: operand(right, b, 3 * k), ..Tensors::default() };
                let out = output(&plan, &spec, &tensors);
                let exact = extremes(left, a) as i64 * extremes(right, b) as i64 * k as i64;
                assert_eq!(out, to_bytes(&[f64::from(exact as i32); 6], I32), "{} {left:?} {right:?}", plan.kernel());
            }
        }
    }
}

#[test]
fn types_that_no_kernel_has_are_refused() {
    use Element::{Bf16, F32, F64, I8, I32};
    for types in [(F64, F32, F64, F64), (I8, Bf16, I32, I32), (F32, F32, F32, F64), (Bf16, Bf16, I32, I32)] {
        let spec = with_types(&dot(1, 2, 3, 4, false, false), types);
        for kernels in levels() {
            assert_eq!(ContractPlan::new(&spec, kernels).unwrap_err(), ContractError::WrongElement);
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_order_of_tiles() {
    for types in TYPES {
        let spec = Conv { batch: 8, channels: 16, outputs: 24, size: (15, 15), ..CONV }.forward();
        bits_of_tiles_in_any_order(&with_types(&spec, types));
    }
}
