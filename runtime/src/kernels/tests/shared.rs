//! Panels that tiles share: the sums of the loops, and the same bits whoever packs which panel.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::{
    Arguments, ContractChoice, ContractPlan, ContractSpec, Element, Kernels, Packed, contract_begin, contract_tiles,
};
use super::cases::{dot, naive, out_len};
use super::run::{Tensors, buffer, from_bytes, levels, operands_of, with_arguments};
use super::types::with_types;

/// Products whose columns several tiles need: storage orders, a batch with panels of its own, one shared by the batch, cut
/// last panels, several k blocks; and element types that are converted, joined, or read as words.
fn cases() -> Vec<ContractSpec> {
    use Element::{Bf16, F16, F32, F64, I8, I32, U8};
    let mut one_right = dot(2, 300, 200, 300, false, false);
    one_right.right.dims.remove(0);
    let mut cases = vec![
        dot(1, 300, 200, 300, false, false),
        dot(1, 300, 203, 1100, false, false),
        dot(1, 300, 200, 300, true, true),
        dot(2, 300, 90, 300, false, false),
        one_right,
    ];
    let types = [
        (Bf16, Bf16, F32, F32),
        (F16, F16, F32, F32),
        (F32, Bf16, F32, F32),
        (F64, F64, F64, F64),
        (I8, I8, I32, I32),
        (U8, I8, I32, I32),
        (I32, I32, I32, I32),
    ];
    for types in types {
        for (transposed, k) in [(false, 1100), (true, 2300)] {
            cases.push(with_types(&dot(1, 75, 70, k, transposed, transposed), types));
        }
    }
    for case in &mut cases {
        case.shares_panels = true;
    }
    cases
}

/// The plan whose tiles share columns and pack their rows, whatever the cost model would do.
fn sharing(spec: &ContractSpec, kernels: &Kernels) -> ContractPlan {
    let usual = ContractPlan::new(spec, kernels).unwrap().choice();
    let ahead = Packed { left: usual.swapped, right: !usual.swapped };
    let plan = ContractPlan::with(spec, kernels, &ContractChoice { ahead, tiles: [5, 1, 1], ..usual }).unwrap();
    assert!(plan.tiles() > 1 && plan.packed() == Packed::default());
    plan
}

/// Arguments of several threads.
struct Common(Arguments);

// SAFETY: the threads share what the contract of the entry points lets them share.
unsafe impl Sync for Common {}

/// Runs `plan` on `threads` threads, with flags and panels full of ones at first.
fn run(plan: &ContractPlan, spec: &ContractSpec, tensors: &Tensors, threads: usize) -> Vec<u8> {
    let mut out = vec![0; out_len(spec) * spec.output().bytes()];
    let (next, descriptor) = (AtomicU64::new(0), plan.descriptor() as usize);
    with_arguments(plan, tensors, &mut out, |arguments| {
        // SAFETY: the buffers have the sizes that spec and plan state.
        unsafe { contract_begin(plan.descriptor(), arguments, 0, 1) };
        let common = &Common(*arguments);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut scratch = buffer(plan.scratch_bytes());
                    let own = Arguments { scratch: scratch.as_mut_ptr().cast(), ..{ common }.0 };
                    loop {
                        let tile = next.fetch_add(1, Ordering::Relaxed);
                        if tile >= plan.tiles() {
                            return;
                        }
                        // SAFETY: likewise, with a scratch for each thread and each tile once.
                        unsafe { contract_tiles(descriptor as *const _, &own, tile, tile + 1) };
                    }
                });
            }
        });
    });
    out
}

#[test]
fn sums_are_right_and_bits_do_not_depend_on_who_packs() {
    for spec in cases() {
        let tensors = Tensors::new(&spec);
        let [(left, _), (right, _)] = operands_of(&spec);
        let expected = naive(&spec, &left, &right);
        let epsilon = match spec.element {
            Element::F64 => f64::EPSILON,
            Element::I32 => 0.0,
            _ => f64::from(f32::EPSILON),
        };
        for kernels in levels() {
            let plan = sharing(&spec, kernels);
            let what = format!("{} {spec:?}", kernels.level);
            assert!(plan.shares_panels() && plan.reduce_tiles() == 0, "{what}");
            let bits = run(&plan, &spec, &tensors, 1);
            let out = from_bytes(&bits, spec.output());
            for sum in &expected {
                let bound = epsilon * (16.0 + 4.0 * sum.size);
                assert!((out[sum.at] - sum.value).abs() <= bound, "{what}");
            }
            for threads in [2, 3, 7] {
                assert!(run(&plan, &spec, &tensors, threads) == bits, "{what}");
            }
        }
    }
}

#[test]
fn columns_that_nobody_shares() {
    let few = ContractSpec { shares_panels: true, ..dot(1, 4, 200, 300, false, false) };
    for kernels in levels() {
        assert!(!ContractPlan::new(&few, kernels).unwrap().shares_panels());
    }
}
