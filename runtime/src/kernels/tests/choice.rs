//! Choices that keep the order of sums keep every bit; whatever a choice says, the result is right.

use super::super::{
    Activation, Along, ContractChoice, ContractPlan, ContractSpec, Element, Epilogue, Kernels, Packed, WinogradChoice,
    WinogradPlan,
};
use super::cases::{Conv, dot, naive};
use super::run::{Tensors, from_bytes, levels, operands_of, output};
use super::types::{TYPES, with_types};
use super::winograd::{ALGORITHMS, Data, conv};

/// Dots and convolutions: long and short sums, few rows, splits, all element types, every epilogue's place.
fn specs() -> Vec<ContractSpec> {
    let epilogue =
        Epilogue { bias: Some(Along::M), scale: Some(Along::N), residual: true, activation: Activation::GeluErf };
    let mut specs = Vec::new();
    for (m, n, k) in [(1, 300, 900), (3, 5, 1100), (20, 24, 6000), (29, 68, 700), (100, 90, 450), (64, 196, 64)] {
        for (ta, tb) in [(false, false), (true, true)] {
            specs.push(ContractSpec { epilogue, shares_panels: true, ..dot(2, m, n, k, ta, tb) });
        }
    }
    let double =
        ContractSpec { element: Element::F64, epilogue, shares_panels: true, ..dot(1, 37, 50, 800, true, false) };
    let conv = Conv {
        batch: 2,
        groups: 1,
        channels: 40,
        outputs: 33,
        size: (9, 9),
        kernel: (3, 3),
        stride: 1,
        pad: 1,
        dilation: 1,
    };
    let packed = Packed { left: true, right: false };
    specs.extend([double, conv.forward(), ContractSpec { packed, shares_panels: true, ..conv.forward() }]);
    // A long sum over many rows, for pairs and quadruples of terms; the second is read as words.
    for types in TYPES {
        for tb in [false, true] {
            specs.push(ContractSpec { shares_panels: true, ..with_types(&dot(1, 90, 70, 1400, false, tb), types) });
        }
    }
    specs
}

#[test]
fn choices_that_keep_the_order_keep_every_bit() {
    let mut tried = 0;
    for kernels in levels() {
        for spec in specs() {
            let tensors = Tensors::new(&spec);
            let usual = ContractPlan::new(&spec, kernels).unwrap();
            let expected = output(&usual, &spec, &tensors);
            for choice in usual.alternatives(false) {
                let plan = ContractPlan::with(&spec, kernels, &choice).unwrap();
                assert!(plan.keeps_bits(), "{choice:?}");
                assert!(output(&plan, &spec, &tensors) == expected, "{} {spec:?} {choice:?}", kernels.level);
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "{tried} choices");
}

#[test]
fn other_orders_are_told_from_the_usual_one() {
    let mut differ = 0;
    for kernels in levels() {
        for spec in specs() {
            let tensors = Tensors::new(&spec);
            let usual = ContractPlan::new(&spec, kernels).unwrap();
            let expected = output(&usual, &spec, &tensors);
            for choice in usual.alternatives(true) {
                let plan = ContractPlan::with(&spec, kernels, &choice).unwrap();
                let other = output(&plan, &spec, &tensors) != expected;
                assert!(!(other && plan.keeps_bits()), "{} {spec:?} {choice:?}", kernels.level);
                differ += usize::from(other);
            }
        }
    }
    assert!(differ > 0, "a split of the sum rounds otherwise");
}

/// What a forged entry of a cache could say.
#[test]
fn a_senseless_choice_is_rounded_to_a_possible_one() {
    let spec = ContractSpec { shares_panels: true, ..dot(1, 29, 68, 700, false, false) };
    let tensors = Tensors::new(&spec);
    let [(left, _), (right, _)] = operands_of(&spec);
    let wild = [0, 1, 7, 1000, usize::MAX];
    for kernels in levels() {
        for (i, &number) in wild.iter().enumerate() {
            let choice = ContractChoice {
                swapped: i % 2 == 0,
                columns: if i < 3 { 16 } else { number },
                inner: i % 2 == 1,
                tiles: [number, wild[(i + 2) % 5], wild[(i + 3) % 5]],
                k_block: number,
                ahead: Packed { left: true, right: i % 2 == 1 },
            };
            let plan = ContractPlan::with(&spec, kernels, &choice).unwrap();
            let out = from_bytes(&output(&plan, &spec, &tensors), Element::F32);
            for sum in naive(&spec, &left, &right) {
                let bound = f64::from(f32::EPSILON) * (16.0 + 4.0 * sum.size);
                assert!((out[sum.at] - sum.value).abs() <= bound, "{choice:?}");
            }
        }
    }
}

#[test]
fn blocks_of_winograd_keep_every_bit() {
    let of = |conv: Conv, kernels: &Kernels| {
        for (taps, tile) in ALGORITHMS {
            let spec = &conv.with_kernel(taps).forward();
            let usual = WinogradPlan::new(spec, tile, kernels).unwrap();
            let data = Data::new(spec);
            let bits = |plan: &WinogradPlan| data.planned(spec, plan).iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let expected = bits(&usual);
            for choice in usual.alternatives() {
                let plan = WinogradPlan::with(spec, &choice, kernels).unwrap();
                assert_eq!(plan.order(), usual.order());
                assert!(bits(&plan) == expected, "{} {choice:?}", kernels.level);
            }
            // A forged choice is a possible one, too.
            for number in [0, usize::MAX] {
                let wild = WinogradChoice { tile, groups: number, parts: number };
                let plan = WinogradPlan::with(spec, &wild, kernels).unwrap();
                let same = plan.order() == usual.order();
                assert!(!same || bits(&plan) == expected, "{} {wild:?}", kernels.level);
            }
        }
    };
    for kernels in levels() {
        for (channels, outputs, size) in [(20, 40, 17), (5, 3, 30), (33, 64, 8)] {
            of(conv(3, channels, outputs, (size, size), 1), kernels);
        }
    }
}
