//! Products of few rows: wide blocks over columns as they lie, inner products, and which products get them.

use super::super::{
    Activation, Along, ContractChoice, ContractPlan, ContractSpec, Element, Epilogue, Kernels, Level, Packed, Stored,
};
use super::cases::{dot, naive};
use super::contract::check_all;
use super::run::{Tensors, from_bytes, levels, operands_of, output};

fn epilogue() -> Epilogue {
    Epilogue { bias: Some(Along::N), residual: true, activation: Activation::Relu, ..Epilogue::default() }
}

/// Whole panels of every width and a cut last one, several k blocks, batches, rows in more than one panel.
fn specs() -> Vec<ContractSpec> {
    let mut specs = Vec::new();
    for m in [1, 2, 3, 4, 5, 6, 8, 12] {
        for (n, k) in [(256, 37), (611, 530), (96, 64), (200, 5), (64, 1), (127, 9)] {
            specs.push(ContractSpec { epilogue: epilogue(), ..dot(1, m, n, k, false, false) });
        }
    }
    specs.push(dot(3, 1, 512, 40, false, false));
    specs.push(dot(2, 3, 400, 700, true, false));
    // A vector that takes columns from the left operand.
    specs.push(dot(1, 300, 1, 90, true, false));
    specs
}

#[test]
fn few_rows_are_multiplied_in_wide_blocks() {
    for spec in specs() {
        check_all(&spec);
        check_all(&ContractSpec { element: Element::F64, ..spec });
    }
}

/// The vectors of the epilogue are widened for a block as wide as any.
#[test]
fn wide_blocks_store_half_types() {
    for out in [Element::Bf16, Element::F16] {
        let stored = Stored { out: Some(out), ..Stored::default() };
        check_all(&ContractSpec { stored, epilogue: epilogue(), ..dot(1, 1, 530, 40, false, false) });
    }
}

fn kernel(spec: &ContractSpec, level: Level) -> Option<String> {
    let kernels = Kernels::for_level(level)
        .filter(|kernels| kernels.level == level && levels().iter().any(|own| own.level == level))?;
    Some(ContractPlan::new(spec, kernels).unwrap().kernel().to_owned())
}

#[test]
fn the_fewer_rows_the_wider_the_block() {
    let of = |m: usize, level: Level| kernel(&dot(1, m, 1024, 1024, false, false), level);
    let expected = [
        (Level::Avx512, "avx512-f32", [(1, "1x256"), (2, "2x96"), (4, "4x96"), (8, "8x48")]),
        (Level::Avx2, "avx2-f32", [(1, "1x64"), (2, "2x32"), (4, "4x16"), (8, "4x16")]),
    ];
    for (level, name, blocks) in expected {
        for (m, block) in blocks {
            if let Some(kernel) = of(m, level) {
                assert_eq!(kernel, format!("{name}-{block}"), "{m} rows");
            }
        }
    }
}

fn by_packed_columns(spec: ContractSpec) -> ContractSpec {
    ContractSpec { packed: Packed { left: false, right: true }, ..spec }
}

/// Whole panels and cut last ones of several widths, several k blocks.
#[test]
fn few_rows_are_multiplied_by_wide_panels() {
    for m in [1, 3, 4, 6, 7] {
        for (n, k) in [(256, 64), (192, 37), (611, 530), (100, 9)] {
            let spec = by_packed_columns(ContractSpec { epilogue: epilogue(), ..dot(1, m, n, k, false, false) });
            check_all(&spec);
            check_all(&ContractSpec { stored: Stored { out: Some(Element::Bf16), ..Stored::default() }, ..spec });
        }
    }
}

#[test]
fn panels_are_wide_where_one_block_holds_the_rows() {
    let of = |m: usize| kernel(&by_packed_columns(dot(1, m, 512, 128, false, false)), Level::Avx512);
    for (m, block) in [(1, "1x96"), (4, "4x96")] {
        assert!(of(m).is_none_or(|kernel| kernel == format!("avx512-f32-{block}")), "{m} rows: {:?}", of(m));
    }
    assert!(of(128).is_none_or(|kernel| !kernel.ends_with("x64") && !kernel.ends_with("x96")), "{:?}", of(128));
}

/// Panels would have to be packed, and blocks without runs to store have no room for as many columns.
#[test]
fn wide_blocks_are_for_runs_only() {
    let plain = dot(1, 1, 1024, 64, false, false);
    let apart = ContractSpec { out_strides: vec![0, 0, 2], ..plain.clone() };
    let halves = ContractSpec { stored: Stored { right: Some(Element::Bf16), ..Stored::default() }, ..plain.clone() };
    let packed_halves = by_packed_columns(halves.clone());
    let turned = dot(1, 1, 1024, 64, false, true);
    for kernels in levels() {
        for spec in [&apart, &packed_halves, &halves, &turned] {
            let plan = ContractPlan::new(spec, kernels).unwrap();
            let others = plan.alternatives(true);
            assert!(others.iter().chain([&plan.choice()]).all(|choice| choice.columns <= 48), "{}", kernels.level);
        }
        check_all(&apart);
    }
}

/// Products of operands that both run along the sum: rows and columns that come out even or do not, sums shorter than a
/// register and in several blocks, batches, a split sum.
fn inner_specs() -> Vec<ContractSpec> {
    let mut specs = Vec::new();
    for m in [1, 2, 3, 4, 5, 6, 7, 9] {
        for (n, k) in [(64, 96), (50, 37), (1, 300), (17, 5), (33, 16), (3, 2100)] {
            specs.push(ContractSpec { epilogue: epilogue(), ..dot(1, m, n, k, false, true) });
        }
    }
    specs.push(dot(3, 2, 40, 70, false, true));
    specs.push(dot(1, 2, 3, 40_000, false, true));
    // Rows that have to be packed one by one; a matrix by a vector, and by few of them.
    specs.push(dot(2, 3, 90, 700, true, true));
    specs.push(dot(1, 200, 1, 90, false, false));
    specs.push(ContractSpec { epilogue: epilogue(), ..dot(1, 200, 4, 90, false, false) });
    specs
}

fn is_inner(spec: &ContractSpec, kernels: &Kernels) -> bool {
    ContractPlan::new(spec, kernels).unwrap().choice().inner
}

#[test]
fn inner_products_are_sums() {
    for kernels in levels() {
        let inner = inner_specs().iter().filter(|spec| is_inner(spec, kernels)).count();
        assert!(inner >= 20, "{}: {inner} of them", kernels.level);
    }
    for spec in inner_specs() {
        check_all(&spec);
        check_all(&ContractSpec { element: Element::F64, ..spec.clone() });
        check_all(&ContractSpec { stored: Stored { out: Some(Element::Bf16), ..Stored::default() }, ..spec });
    }
}

/// In several row panels and either orientation, too, where the cost model would choose otherwise.
#[test]
fn inner_products_in_any_orientation_are_sums() {
    for kernels in levels() {
        let specs = [(1, 7, 6, 70, false), (2, 8, 5, 2500, false), (1, 3, 7, 40, true)];
        for (b, m, n, k, turned) in specs {
            let (spec, along) = (dot(b, m, n, k, turned, true), [!turned, true]);
            let usual = ContractPlan::new(&spec, kernels).unwrap();
            for swapped in [false, true] {
                let choice = ContractChoice { swapped, columns: 16, inner: true, ..usual.choice() };
                let plan = ContractPlan::with(&spec, kernels, &choice).unwrap();
                let out = from_bytes(&output(&plan, &spec, &Tensors::new(&spec)), Element::F32);
                let [(left, _), (right, _)] = operands_of(&spec);
                // Columns have to lie along the sum.
                assert_eq!(plan.choice().inner, along[usize::from(!swapped)], "{} {choice:?}", kernels.level);
                for sum in naive(&spec, &left, &right) {
                    let bound = f64::from(f32::EPSILON) * (16.0 + 4.0 * sum.size);
                    assert!((out[sum.at] - sum.value).abs() <= bound, "{} {choice:?}", kernels.level);
                }
            }
        }
    }
}

#[test]
fn inner_products_are_for_few_rows_along_the_sum() {
    for kernels in levels() {
        assert!(is_inner(&dot(1, 1, 1024, 1024, false, true), kernels), "{}", kernels.level);
        assert!(is_inner(&dot(1, 1024, 1, 1024, false, false), kernels), "{}", kernels.level);
        let plain = dot(1, 1, 1024, 1024, false, true);
        let halves = Stored { right: Some(Element::Bf16), ..Stored::default() };
        for other in [
            dot(1, 1, 1024, 1024, false, false),
            dot(1, 64, 1024, 1024, false, true),
            ContractSpec { packed: Packed { left: false, right: true }, ..plain.clone() },
            ContractSpec { stored: halves, ..plain.clone() },
        ] {
            assert!(!is_inner(&other, kernels), "{} {other:?}", kernels.level);
        }
    }
}

/// Lanes are added in an order of their own, which depends on how long blocks are.
#[test]
fn inner_products_have_an_order_of_their_own() {
    let spec = dot(1, 4, 16, 3000, false, true);
    for kernels in levels() {
        let usual = ContractPlan::new(&spec, kernels).unwrap();
        assert!(usual.choice().inner, "{}", kernels.level);
        let of = |choice: ContractChoice| ContractPlan::with(&spec, kernels, &choice).unwrap().order();
        let plain = ContractPlan::new(&dot(1, 4, 16, 3000, false, false), kernels).unwrap().choice();
        let shorter = ContractChoice { k_block: 512, ..usual.choice() };
        assert!(of(usual.choice()) == usual.order());
        assert!(of(plain) != usual.order() && of(shorter) != usual.order(), "{}", kernels.level);
    }
}
