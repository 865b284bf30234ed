//! Operands that are read as they lie: the sums of the loops, and the bits of those packed ahead.

use super::super::{Along, ContractPlan, ContractSpec, Element, Epilogue, Level, Packed};
use super::cases::{Conv, dot};
use super::contract::check_all;
use super::run::{Tensors, levels, output};

/// Convolutions of one tap, and products: whole panels, a cut last one, panels that go from image to image, groups, two k
/// blocks, tables of one period of pixels and of channels.
fn cases() -> Vec<ContractSpec> {
    let conv = |batch, groups, channels, size| {
        let (kernel, outputs) = ((1, 1), 40);
        Conv { batch, groups, channels, outputs, size, kernel, stride: 1, pad: 0, dilation: 1 }.forward()
    };
    let mut cases = vec![
        conv(1, 1, 5, (8, 24)),
        conv(1, 1, 33, (9, 11)),
        conv(3, 1, 6, (7, 7)),
        conv(3, 1, 6, (10, 19)),
        conv(2, 2, 7, (8, 8)),
        conv(1, 1, 700, (6, 16)),
        conv(45, 1, 3, (12, 16)),
        conv(1, 1, 8192, (4, 16)),
        dot(2, 45, 203, 37, false, false),
    ];
    for case in &mut cases {
        case.epilogue = Epilogue { bias: Some(Along::M), residual: true, ..Epilogue::default() };
    }
    let double = cases.clone().into_iter().map(|case| ContractSpec { element: Element::F64, ..case });
    let whole = cases.clone().into_iter().map(|case| ContractSpec {
        element: Element::I32,
        epilogue: Epilogue::default(),
        ..case
    });
    let others: Vec<_> = double.chain(whole).collect();
    cases.extend(others);
    cases
}

fn is_in_place(plan: &ContractPlan) -> bool {
    let (left, right) = plan.packing();
    (if plan.swapped() { left } else { right }).starts_with("nothing")
}

#[test]
fn columns_as_they_lie_are_multiplied_as_packed_ones() {
    for kernels in levels() {
        let mut in_place = 0;
        for spec in cases() {
            let plan = ContractPlan::new(&spec, kernels).unwrap();
            let packed =
                ContractSpec { packed: Packed { left: plan.swapped(), right: !plan.swapped() }, ..spec.clone() };
            let packed = ContractPlan::with(&packed, kernels, &plan.choice()).unwrap();
            assert!(!is_in_place(&packed) && packed.order() == plan.order(), "{} {spec:?}", kernels.level);
            let tensors = Tensors::new(&spec);
            assert!(output(&plan, &spec, &tensors) == output(&packed, &spec, &tensors), "{} {spec:?}", kernels.level);
            in_place += usize::from(is_in_place(&plan));
        }
        assert!(in_place >= 8, "{}: {in_place} in place", kernels.level);
    }
    for spec in cases() {
        check_all(&spec);
    }
}

#[test]
fn what_lies_otherwise_is_packed() {
    let conv = Conv {
        batch: 1,
        groups: 1,
        channels: 5,
        outputs: 40,
        size: (16, 16),
        kernel: (1, 1),
        stride: 1,
        pad: 0,
        dilation: 1,
    };
    let others = [
        Conv { stride: 2, ..conv },
        Conv { pad: 1, ..conv },
        Conv { kernel: (3, 3), pad: 1, ..conv },
        Conv { kernel: (1, 3), ..conv },
    ];
    for kernels in levels() {
        for other in others {
            assert!(
                !is_in_place(&ContractPlan::new(&other.forward(), kernels).unwrap()),
                "{} {other:?}",
                kernels.level
            );
        }
        let transposed = dot(1, 45, 203, 37, false, true);
        assert!(!is_in_place(&ContractPlan::new(&transposed, kernels).unwrap()), "{}", kernels.level);
    }
}

/// Rows of a matrix: in several panels, the last with fewer; several k blocks, terms that are no multiple of four, a split
/// sum, batches; with as many columns as the widths of blocks, and others.
fn matrices() -> Vec<ContractSpec> {
    let sizes = [(64, 64, 70), (33, 48, 530), (20, 200, 33), (6, 130, 5), (64, 60, 6000), (40, 1, 90), (7, 300, 1)];
    let mut specs: Vec<_> = sizes.into_iter().map(|(m, n, k)| dot(1, m, n, k, false, false)).collect();
    specs.push(dot(3, 30, 66, 45, false, false));
    for spec in &mut specs {
        spec.epilogue = Epilogue { bias: Some(Along::N), residual: true, ..Epilogue::default() };
    }
    specs
}

#[test]
fn rows_as_they_lie_are_multiplied_as_packed_ones() {
    for kernels in levels() {
        let mut in_place = 0;
        for spec in matrices() {
            let plan = ContractPlan::new(&spec, kernels).unwrap();
            let (left, right) = plan.packing();
            let lie =
                (if plan.swapped() { right } else { left }).starts_with("nothing of rows") && !plan.choice().inner;
            let packed =
                ContractSpec { packed: Packed { left: !plan.swapped(), right: plan.swapped() }, ..spec.clone() };
            let packed = ContractPlan::with(&packed, kernels, &plan.choice()).unwrap();
            if lie {
                let tensors = Tensors::new(&spec);
                assert!(packed.order() == plan.order(), "{} {spec:?}", kernels.level);
                assert!(output(&plan, &spec, &tensors) == output(&packed, &spec, &tensors), "{}", kernels.level);
                in_place += 1;
            }
        }
        let vectors = [Level::Avx512, Level::Avx2].contains(&kernels.level);
        assert!(in_place >= if vectors { 5 } else { 0 }, "{}: {in_place} in place", kernels.level);
    }
    for spec in matrices() {
        check_all(&spec);
    }
}

#[test]
fn rows_are_packed_where_many_columns_need_them_and_where_they_meet_in_a_cache() {
    for kernels in levels() {
        let rows = |spec: &ContractSpec| {
            let plan = ContractPlan::new(spec, kernels).unwrap();
            let (left, right) = plan.packing();
            (if plan.swapped() { right } else { left }).starts_with("nothing of rows")
        };
        assert!(!rows(&dot(1, 1024, 1024, 1024, false, false)), "{}", kernels.level);
        assert!(!rows(&dot(1, 64, 64, 70, true, false)), "{}", kernels.level);
        if kernels.level == Level::Avx512 {
            // Rows 4 KiB apart are in one set: blocks of six of them.
            assert!(rows(&dot(1, 64, 64, 1024, false, false)) && rows(&dot(1, 64, 32, 70, false, false)));
            assert!(!rows(&dot(1, 64, 32, 1024, false, false)));
        }
    }
}
