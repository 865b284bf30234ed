#![allow(clippy::unwrap_used, reason = "tests may panic")]

use super::*;

/// Four kernels: `a`, `b = f(a)`, `c = relu(a)` in place of `a`, `d = g(c)`; `b` and `d` are read later.
#[derive(Clone)]
struct Example {
    buffers: Vec<Buffer>,
    offsets: Vec<u64>,
    arena: u64,
    trace: Vec<Access>,
}

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const D: usize = 3;

fn example() -> Example {
    Example {
        buffers: vec![
            Buffer::new("a", 256, 0, 3),
            Buffer::new("b", 128, 1, 4),
            Buffer::new("c", 256, 2, 5).alias_of(A),
            Buffer::new("d", 64, 4, 6),
        ],
        offsets: vec![0, 256, 0, 256],
        arena: 384,
        trace: vec![
            Access::write(0, A),
            Access::read(1, A),
            Access::write(1, B),
            Access::read(2, A),
            Access::write(2, C),
            Access::read(3, B),
            Access::read(4, C),
            Access::write(4, D),
            Access::read(5, D),
        ],
    }
}

/// Labels and messages found after `seed` has spoilt the example.
fn faults_after(seed: impl FnOnce(&mut Example)) -> Vec<String> {
    let mut example = example();
    seed(&mut example);
    let problem = Problem::new(example.buffers).unwrap();
    check(&problem, &example.offsets, example.arena, &example.trace).iter().map(Fault::to_string).collect()
}

#[test]
fn a_good_plan_has_no_faults() {
    assert_eq!(faults_after(|_| {}), Vec::<String>::new());
}

#[test]
fn k1_overlap() {
    let faults = faults_after(|e| e.offsets[B] = 128);
    let overlap = "memory.K1: `b` (bytes 128..256, steps 1..4) overlaps `a` (bytes 0..256, steps 0..3)";
    assert_eq!(faults[0], overlap);
}

#[test]
fn k1_reuse_one_step_too_early() {
    let faults = faults_after(|e| e.buffers[D].lower = 3);
    assert_eq!(faults, ["memory.K1: `d` (bytes 256..320, steps 3..6) overlaps `b` (bytes 256..384, steps 1..4)"]);
}

#[test]
fn k1_size_larger_than_planned() {
    let faults = faults_after(|e| e.buffers[A].size = 320);
    assert!(faults[0].starts_with("memory.K1: `b`"), "{faults:?}");
}

#[test]
fn k1_an_alias_outlives_what_it_shares() {
    // The view of `a` is still live when `d` takes its bytes: only the alias says so.
    let faults = faults_after(|e| {
        e.buffers[C] = Buffer::new("c", 256, 2, 6).alias_of(A);
        e.offsets[D] = 64;
    });
    assert!(faults.iter().any(|f| f.starts_with("memory.K1: `d`") && f.contains("overlaps `c`")), "{faults:?}");
}

#[test]
fn k2_in_place_write_with_a_later_reader() {
    let faults = faults_after(|e| {
        e.buffers[A].upper = 4;
        e.trace.insert(6, Access::read(3, A));
    });
    let stale = "memory.K2: step 3 reads `a`, but bytes 0..256 hold `c` since step 2 and not `a` as step 0 wrote it";
    assert_eq!(faults, [stale]);
}

#[test]
fn k2_view_of_a_value_overwritten_in_place() {
    let faults = faults_after(|e| {
        e.buffers.push(Buffer::new("view", 64, 1, 5).alias_of(A));
        e.offsets.push(0);
        e.trace.insert(7, Access::read(4, 4));
    });
    let stale = "memory.K2: step 4 reads `view`, but bytes 0..64 hold `c` since step 2 and not `a` as step 0 wrote it";
    assert_eq!(faults, [stale]);
}

#[test]
fn k2_swapped_writes_of_one_step() {
    // The kernel's result lands before its operand is read.
    let faults = faults_after(|e| e.trace.swap(3, 4));
    assert!(faults[0].starts_with("memory.K2: step 2 reads `a`"), "{faults:?}");
}

#[test]
fn k3_out_of_arena() {
    assert_eq!(faults_after(|e| e.offsets[B] = 320), ["memory.K3: `b` reaches to byte 448, the arena ends at 384"]);
    assert!(faults_after(|e| e.arena = 383)[0].starts_with("memory.K3: `b`"));
    assert!(faults_after(|e| e.offsets[D] = u64::MAX - 63)[0].starts_with("memory.K3: `d`"));
}

#[test]
fn k4_misaligned() {
    assert_eq!(faults_after(|e| e.offsets[D] = 288), ["memory.K4: `d` is at 288, no multiple of 64"]);
}

#[test]
fn k5_alias_elsewhere() {
    let faults = faults_after(|e| {
        e.arena = 640;
        e.offsets[C] = 384;
    });
    assert_eq!(faults, ["memory.K5: `c` at 384 is an alias of `a`, which is at 0"]);
}

#[test]
fn k5_swapped_offsets() {
    let faults = faults_after(|e| e.offsets.swap(A, B));
    assert!(faults.iter().any(|f| f.starts_with("memory.K5: `c`")), "{faults:?}");
}

#[test]
fn k6_read_before_write() {
    let faults = faults_after(|e| e.trace = e.trace.split_off(1));
    assert_eq!(faults[0], "memory.K6: step 1 reads `a` before anybody has written it");
}

#[test]
fn k6_view_larger_than_the_value() {
    let faults = faults_after(|e| {
        e.buffers.push(Buffer::new("view", 300, 0, 1).alias_of(A));
        e.offsets.push(0);
        e.trace.insert(1, Access::read(0, 4));
    });
    let unwritten =
        "memory.K6: step 0 reads `view`, but bytes 256..300 were never written; `a` as step 0 wrote it is smaller";
    assert_eq!(faults, [unwritten]);
}

#[test]
fn k7_freed_early() {
    assert_eq!(
        faults_after(|e| e.buffers[A].upper = 2),
        ["memory.K7: step 2 uses `a`, which is live for 0 <= step < 2"]
    );
}

#[test]
fn k7_shifted_live_range() {
    let faults = faults_after(|e| (e.buffers[B].lower, e.buffers[B].upper) = (2, 4));
    assert_eq!(faults, ["memory.K7: step 1 uses `b`, which is live for 2 <= step < 4"]);
}

#[test]
fn k8_offsets_and_accesses_of_nobody() {
    assert_eq!(faults_after(|e| e.offsets.truncate(3)), ["memory.K8: the plan has 3 offsets for 4 buffers"]);
    let faults = faults_after(|e| e.trace.push(Access::read(5, 9)));
    assert_eq!(faults, ["memory.K8: step 5 uses buffer 9, but there are only 4"]);
}

#[test]
fn k9_trace_out_of_order() {
    let faults = faults_after(|e| e.trace.push(Access::read(4, D)));
    assert_eq!(faults, ["memory.K9: step 4 uses `d` after step 5 in the trace"]);
}

#[test]
fn all_faults_are_reported_at_once() {
    let faults = faults_after(|e| {
        e.offsets[B] = 32;
        e.arena = 128;
        e.trace.remove(0);
    });
    for label in ["K1", "K3", "K4", "K6"] {
        assert!(faults.iter().any(|f| f.contains(label)), "{label} is missing from {faults:?}");
    }
}
