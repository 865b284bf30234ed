//! Products of few rows: wide blocks over columns as they lie, and which products get them.

use super::super::{Activation, Along, ContractPlan, ContractSpec, Element, Epilogue, Kernels, Level, Packed, Stored};
use super::cases::dot;
use super::contract::check_all;
use super::run::levels;

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
    let kernels = Kernels::for_level(level).filter(|kernels| levels().iter().any(|own| own.level == kernels.level))?;
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

/// Panels would have to be packed, and blocks without runs to store have no room for as many columns.
#[test]
fn wide_blocks_are_for_runs_only() {
    let plain = dot(1, 1, 1024, 64, false, false);
    let apart = ContractSpec { out_strides: vec![0, 0, 2], ..plain.clone() };
    let packed = ContractSpec { packed: Packed { left: false, right: true }, ..plain.clone() };
    let halves = ContractSpec { stored: Stored { right: Some(Element::Bf16), ..Stored::default() }, ..plain.clone() };
    let turned = dot(1, 1, 1024, 64, false, true);
    for kernels in levels() {
        for spec in [&apart, &packed, &halves, &turned] {
            let plan = ContractPlan::new(spec, kernels).unwrap();
            let others = plan.alternatives(true);
            assert!(others.iter().chain([&plan.choice()]).all(|choice| choice.columns <= 48), "{}", kernels.level);
        }
        check_all(&apart);
    }
}
