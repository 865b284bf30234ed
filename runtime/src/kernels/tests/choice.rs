//! Choices that keep the order of sums keep every bit; whatever a choice says, the result is right.

use super::super::{
    Activation, Along, Arguments, ContractChoice, ContractPlan, ContractSpec, Element, Epilogue, Kernels, Packed, Side,
    WinogradChoice, WinogradPlan, WinogradTile,
};
use super::cases::{Conv, dot, naive, numbers, out_len, read_len};
use super::contract::{buffer, from_bytes, levels, to_bytes};

/// Bytes of the output of a plan on fixed operands; panels of the operands are made as a caller would.
fn run(spec: &ContractSpec, plan: &ContractPlan) -> Vec<u8> {
    let [left, right] = [&spec.left, &spec.right].map(|read| to_bytes(&numbers(read_len(read), 1), spec.element));
    let vector = to_bytes(&numbers(out_len(spec), 3), spec.element);
    let mut out = vec![0; vector.len()];
    let mut partials = buffer(plan.partial_bytes());
    let mut scratch = buffer(plan.scratch_bytes());
    let mut packed = [Side::Left, Side::Right].map(|side| buffer(plan.packed_bytes(side)));
    let mut operands = [left.as_ptr(), right.as_ptr()];
    for (i, side) in [Side::Left, Side::Right].into_iter().enumerate() {
        if plan.packed().side(side) {
            // SAFETY: the buffer has the plan's size and the operand is the spec's.
            unsafe { plan.pack(side, operands[i], packed[i].as_mut_ptr().cast(), (0, plan.pack_tiles(side))) };
            operands[i] = packed[i].as_ptr().cast();
        }
    }
    let arguments = Arguments {
        left: operands[0],
        right: operands[1],
        out: out.as_mut_ptr(),
        bias: vector.as_ptr(),
        scale: vector.as_ptr(),
        residual: vector.as_ptr(),
        partials: partials.as_mut_ptr().cast(),
        scratch: scratch.as_mut_ptr().cast(),
    };
    // SAFETY: all buffers have the sizes that the spec and the plan state.
    unsafe { plan.run(&arguments) };
    out
}

/// Dots and convolutions: long and short sums, few rows, splits, both element types, every epilogue's place.
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
    specs
}

#[test]
fn choices_that_keep_the_order_keep_every_bit() {
    let mut tried = 0;
    for kernels in levels() {
        for spec in specs() {
            let usual = ContractPlan::new(&spec, kernels).unwrap();
            let expected = run(&spec, &usual);
            for choice in usual.alternatives(false) {
                let plan = ContractPlan::with(&spec, kernels, &choice).unwrap();
                assert!(plan.keeps_bits(), "{choice:?}");
                assert!(run(&spec, &plan) == expected, "{} {spec:?} {choice:?}", kernels.level);
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
            let usual = ContractPlan::new(&spec, kernels).unwrap();
            let expected = run(&spec, &usual);
            for choice in usual.alternatives(true) {
                let plan = ContractPlan::with(&spec, kernels, &choice).unwrap();
                let other = run(&spec, &plan) != expected;
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
    let [left, right] = [&spec.left, &spec.right].map(|read| numbers(read_len(read), 1));
    let wild = [0, 1, 7, 1000, usize::MAX];
    for kernels in levels() {
        for (i, &number) in wild.iter().enumerate() {
            let choice = ContractChoice {
                swapped: i % 2 == 0,
                columns: if i < 3 { 16 } else { number },
                tiles: [number, wild[(i + 2) % 5], wild[(i + 3) % 5]],
                k_block: number,
                ahead: Packed { left: true, right: i % 2 == 1 },
            };
            let plan = ContractPlan::with(&spec, kernels, &choice).unwrap();
            let out = from_bytes(&run(&spec, &plan), Element::F32);
            for sum in naive(&spec, &left, &right) {
                let bound = f64::from(f32::EPSILON) * (16.0 + 4.0 * sum.size);
                assert!((out[sum.at] - sum.value).abs() <= bound, "{choice:?}");
            }
        }
    }
}

fn run_winograd(spec: &ContractSpec, plan: &WinogradPlan) -> Vec<u8> {
    let [left, right] = [&spec.left, &spec.right].map(|read| to_bytes(&numbers(read_len(read), 1), spec.element));
    let mut out = vec![0; 4 * out_len(spec)];
    let mut partials = buffer(plan.partial_bytes());
    let mut scratch = buffer(plan.scratch_bytes());
    let mut weights = buffer(plan.packed_bytes());
    let (from, image) =
        if plan.weights() == Side::Left { (left.as_ptr(), right.as_ptr()) } else { (right.as_ptr(), left.as_ptr()) };
    // SAFETY: the buffer has the plan's size and the operand is the spec's.
    unsafe { plan.pack_weights(from, weights.as_mut_ptr().cast()) };
    let panels = weights.as_ptr().cast();
    let (left, right) = if plan.weights() == Side::Left { (panels, image) } else { (image, panels) };
    let arguments = Arguments {
        left,
        right,
        out: out.as_mut_ptr(),
        bias: std::ptr::null(),
        scale: std::ptr::null(),
        residual: std::ptr::null(),
        partials: partials.as_mut_ptr().cast(),
        scratch: scratch.as_mut_ptr().cast(),
    };
    // SAFETY: all buffers have the sizes that the spec and the plan state.
    unsafe { plan.run(&arguments) };
    out
}

#[test]
fn blocks_of_winograd_keep_every_bit() {
    let conv = |channels, outputs, size| Conv {
        batch: 3,
        groups: 1,
        channels,
        outputs,
        size: (size, size),
        kernel: (3, 3),
        stride: 1,
        pad: 1,
        dilation: 1,
    };
    let of = |spec: &ContractSpec, kernels: &Kernels| {
        for tile in [WinogradTile::Two, WinogradTile::Four] {
            let usual = WinogradPlan::new(spec, tile, kernels).unwrap();
            let expected = run_winograd(spec, &usual);
            for choice in usual.alternatives() {
                let plan = WinogradPlan::with(spec, &choice, kernels).unwrap();
                assert_eq!(plan.order(), usual.order());
                assert!(run_winograd(spec, &plan) == expected, "{} {choice:?}", kernels.level);
            }
            // A forged choice is a possible one, too.
            for number in [0, usize::MAX] {
                let wild = WinogradChoice { tile, groups: number, parts: number };
                let plan = WinogradPlan::with(spec, &wild, kernels).unwrap();
                let same = plan.order() == usual.order();
                assert!(!same || run_winograd(spec, &plan) == expected, "{} {wild:?}", kernels.level);
            }
        }
    };
    for kernels in levels() {
        for (channels, outputs, size) in [(20, 40, 17), (5, 3, 30), (33, 64, 8)] {
            of(&conv(channels, outputs, size).forward(), kernels);
        }
    }
}
