//! Panels that tiles share: the sums of the loops, and the same bits whoever packs which panel.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::{
    Arguments, ContractChoice, ContractPlan, ContractSpec, Kernels, Packed, contract_begin, contract_tiles,
};
use super::cases::{dot, naive, numbers, out_len, read_len};
use super::contract::levels;

/// Products whose columns several tiles need: storage orders, a batch with panels of its own, one shared by the batch, cut
/// last panels, several k blocks.
fn cases() -> Vec<ContractSpec> {
    let mut one_right = dot(2, 300, 200, 300, false, false);
    one_right.right.dims.remove(0);
    let mut cases = vec![
        dot(1, 300, 200, 300, false, false),
        dot(1, 300, 203, 1100, false, false),
        dot(1, 300, 200, 300, true, true),
        dot(2, 300, 90, 300, false, false),
        one_right,
    ];
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

/// Runs `plan` on `threads` threads, with flags and panels full of ones at first.
fn run(plan: &ContractPlan, spec: &ContractSpec, threads: usize) -> Vec<f32> {
    let floats = |read, seed| numbers(read_len(read), seed).into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    let (left, right) = (floats(&spec.left, 1), floats(&spec.right, 2));
    let mut out = vec![0.0f32; out_len(spec)];
    let lines = |bytes: usize| vec![[u64::MAX; 8]; bytes.div_ceil(64)];
    let mut partials = lines(plan.partial_bytes());
    let mut scratches: Vec<_> = (0..threads).map(|_| lines(plan.scratch_bytes())).collect();
    let (out_at, partials_at) = (out.as_mut_ptr() as usize, partials.as_mut_ptr() as usize);
    let arguments = |scratch: &mut Vec<[u64; 8]>| Arguments {
        left: left.as_ptr().cast(),
        right: right.as_ptr().cast(),
        out: out_at as *mut u8,
        bias: std::ptr::null(),
        scale: std::ptr::null(),
        residual: std::ptr::null(),
        partials: partials_at as *mut u8,
        scratch: scratch.as_mut_ptr().cast(),
    };
    // SAFETY: the buffers have the sizes that spec and plan state.
    unsafe { contract_begin(plan.descriptor(), &arguments(&mut scratches[0]), 0, 1) };
    let (next, descriptor) = (AtomicU64::new(0), plan.descriptor() as usize);
    std::thread::scope(|scope| {
        for scratch in &mut scratches {
            let (next, arguments) = (&next, &arguments);
            scope.spawn(move || {
                loop {
                    let tile = next.fetch_add(1, Ordering::Relaxed);
                    if tile >= plan.tiles() {
                        return;
                    }
                    // SAFETY: likewise, with a scratch for each thread and each tile once.
                    unsafe { contract_tiles(descriptor as *const _, &arguments(scratch), tile, tile + 1) };
                }
            });
        }
    });
    out
}

#[test]
fn sums_are_right_and_bits_do_not_depend_on_who_packs() {
    for spec in cases() {
        let expected = naive(&spec, &numbers(read_len(&spec.left), 1), &numbers(read_len(&spec.right), 2));
        for kernels in levels() {
            let plan = sharing(&spec, kernels);
            let what = format!("{} {spec:?}", kernels.level);
            assert!(plan.shares_panels() && plan.reduce_tiles() == 0, "{what}");
            let out = run(&plan, &spec, 1);
            for sum in &expected {
                let bound = f64::from(f32::EPSILON) * (16.0 + 4.0 * sum.size);
                assert!((f64::from(out[sum.at]) - sum.value).abs() <= bound, "{what}");
            }
            for threads in [2, 3, 7] {
                let bits = |out: &[f32]| out.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
                assert_eq!(bits(&run(&plan, &spec, threads)), bits(&out), "{what}");
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
