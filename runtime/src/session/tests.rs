#![allow(clippy::unwrap_used, reason = "tests may panic")]
//! Sessions over kernels written in Rust, each with the interface of compiled code.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use kiln_ir::{DType, TensorType};

use super::*;
use crate::executable::{Code, KernelFn, Launch, Site, Slot};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has allocated.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

// SAFETY: forwards to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Elements of each tile of the test kernels.
const TILE: usize = 16;

unsafe fn slot(table: *const *mut u8, index: usize) -> *mut f32 {
    // SAFETY: the tests' launches have as many slots.
    unsafe { table.add(index).read().cast() }
}

/// `slot 3 = slot 2 * slot 2 + 1`, by way of the worker's scratch.
unsafe extern "C" fn square(table: *const *mut u8, begin: u64, end: u64) {
    // SAFETY: scratch holds a tile, the tensors `tiles * TILE` elements.
    unsafe {
        let (scratch, x, y) = (slot(table, 0), slot(table, 2), slot(table, 3));
        for tile in begin as usize..end as usize {
            for i in 0..TILE {
                let value = *x.add(tile * TILE + i);
                *scratch.add(i) = value * value;
            }
            for i in 0..TILE {
                *y.add(tile * TILE + i) = *scratch.add(i) + 1.0;
            }
        }
    }
}

/// `slot 2 += slot 3`: an update of a state in place.
unsafe extern "C" fn accumulate(table: *const *mut u8, begin: u64, end: u64) {
    // SAFETY: both hold `tiles * TILE` elements.
    unsafe {
        let (state, x) = (slot(table, 2), slot(table, 3));
        for i in begin as usize * TILE..end as usize * TILE {
            *state.add(i) += *x.add(i);
        }
    }
}

/// Reports every element of slot 2 above 10 that it meets first.
unsafe extern "C" fn check(table: *const *mut u8, begin: u64, end: u64) {
    // SAFETY: slot 1 is the status word, slot 2 holds `tiles * TILE` elements.
    unsafe {
        let (status, x) = (table.add(1).read().cast::<Status>(), slot(table, 2));
        for i in begin as usize * TILE..end as usize * TILE {
            let value = *x.add(i);
            if value > 10.0 && (*status).code == 0 {
                *status = Status { code: 2, value: value as u64, position: i as u64, spare: 0 };
            }
        }
    }
}

struct Kernels;

impl Code for Kernels {
    fn entry(&self, index: usize) -> KernelFn {
        [square, accumulate, check][index]
    }

    fn bytes(&self) -> usize {
        0
    }
}

fn launch(entry: usize, slots: Vec<Slot>, tiles: u64) -> Launch {
    Launch {
        name: format!("kernel{entry}"),
        entry,
        slots,
        tiles,
        forks: None,
        scratch_bytes: TILE * 4,
        // Large, so that every launch is forked.
        flops: 1 << 40,
        bytes: 0,
        source: Some("test.kiln:3:1".into()),
        sites: Vec::new(),
    }
}

/// A launch's second check; the first one is never violated.
fn sites(what: &str) -> Vec<Site> {
    let site =
        |what: &str| Site { op: "gather".into(), source: Some("test.kiln:3:1".into()), what: what.into(), limit: 11 };
    vec![site("index that is fine"), site(what)]
}

fn vector(tiles: u64) -> TensorType {
    TensorType::new(DType::F32, [tiles as usize * TILE])
}

/// `%y = %x^2 + 1` by way of the arena, then `@sum += %y`.
fn program(tiles: u64) -> Executable {
    Executable {
        name: "test".into(),
        inputs: vec![Binding::new("x", vector(tiles))],
        outputs: vec![Binding::new("y", vector(tiles))],
        states: vec![Binding::new("sum", vector(tiles))],
        launches: vec![
            launch(0, vec![Slot::Input(0), Slot::Arena(64)], tiles),
            launch(0, vec![Slot::Input(0), Slot::Output(0)], tiles),
            Launch {
                sites: sites("index of another launch"),
                ..launch(1, vec![Slot::State(0), Slot::Arena(64)], tiles)
            },
            Launch { sites: sites("index into %table"), ..launch(2, vec![Slot::Output(0)], tiles) },
        ],
        constants: Vec::new(),
        arena_bytes: 64 + tiles as usize * TILE * 4,
        code: Arc::new(Kernels),
        keep: Vec::new(),
        fingerprint: 1,
    }
}

fn session(threads: usize, tiles: u64) -> (Session, ProgramId) {
    let mut session = Session::new(threads).unwrap();
    session.put_state("sum", Tensor::zeros(vector(tiles)).unwrap()).unwrap();
    let id = session.load(Arc::new(program(tiles))).unwrap();
    (session, id)
}

fn ramp(tiles: u64) -> Tensor {
    let elements = (0..tiles as usize * TILE).map(|i| (i % 300) as f32 / 100.0).collect();
    Tensor::from_vec([tiles as usize * TILE], elements).unwrap()
}

#[test]
fn results_and_states_are_the_same_for_every_thread_count() {
    let tiles = 100;
    let input = ramp(tiles);
    let expected: Vec<f32> = input.as_slice::<f32>().unwrap().iter().map(|x| x * x + 1.0).collect();
    for threads in 1..=4 {
        let (mut session, id) = session(threads, tiles);
        let mut outputs = session.outputs(id).unwrap();
        session.run(id, &[&input], &mut outputs).unwrap();
        session.run(id, &[&input], &mut outputs).unwrap();
        assert_eq!(outputs[0].as_slice::<f32>().unwrap(), expected);
        let sum = session.states().get("sum").unwrap().as_slice::<f32>().unwrap();
        assert!(sum.iter().zip(&expected).all(|(sum, y)| *sum == 2.0 * y));
        assert_eq!(session.tiles_run().iter().sum::<u64>(), 2 * 4 * tiles);
    }
}

#[test]
fn a_violation_is_explained_and_the_session_goes_on() {
    for threads in [1, 3] {
        let (mut session, id) = session(threads, 50);
        let mut outputs = session.outputs(id).unwrap();
        let mut bad = ramp(50);
        for position in [70, 300, 799] {
            bad.as_mut_slice::<f32>().unwrap()[position] = 5.0;
        }
        let error = session.run(id, &[&bad], &mut outputs).unwrap_err().to_string();
        assert_eq!(
            error,
            "test.kiln:3:1: gather in @test: index into %table is 26 at position 70, but must lie in 0..11; \
             correct the data, or declare the input `below` that bound to have it checked at load"
        );
        session.run(id, &[&ramp(50)], &mut outputs).unwrap();
    }
}

#[test]
fn wrong_tensors_are_refused_by_name() {
    let (mut session, id) = session(1, 2);
    let mut outputs = session.outputs(id).unwrap();
    let error = session.run(id, &[], &mut outputs).unwrap_err().to_string();
    assert_eq!(error, "@test takes 1 inputs, 0 were given");
    let error = session.run(id, &[&ramp(3)], &mut outputs).unwrap_err().to_string();
    assert_eq!(error, "@test: %x is declared f32[32], but the tensor given is f32[48]; reshape or convert it");
}

#[test]
fn values_are_held_to_their_bound() {
    let mut session = Session::new(1).unwrap();
    let ty = TensorType::new(DType::I64, [3]);
    let mut executable = program(1);
    executable.inputs = vec![Binding { name: "label".into(), ty, below: Some(10) }];
    (executable.states, executable.launches) = (Vec::new(), Vec::new());
    let id = session.load(Arc::new(executable)).unwrap();
    let mut outputs = session.outputs(id).unwrap();
    let labels = |values: [i64; 3]| Tensor::from_vec([3], values.to_vec()).unwrap();
    session.run(id, &[&labels([0, 9, 3])], &mut outputs).unwrap();
    for (values, position, value) in [([0, 10, 3], 1, 10), ([-1, 9, 3], 0, -1)] {
        let error = session.run(id, &[&labels(values)], &mut outputs).unwrap_err();
        let (program, name) = ("test".into(), "label".into());
        assert_eq!(error, RunError::OutOfRange { program, name, position, value, limit: 10 });
    }
}

#[test]
fn states_must_be_there_and_of_the_type() {
    let mut session = Session::new(1).unwrap();
    let error = session.load(Arc::new(program(2))).unwrap_err();
    assert_eq!(error, LoadError::MissingState { program: "test".into(), state: "sum".into() });
    session.put_state("sum", Tensor::zeros(vector(3)).unwrap()).unwrap();
    assert!(matches!(session.load(Arc::new(program(2))), Err(LoadError::StateType { .. })));
    assert!(matches!(session.set_state("other", &ramp(1)), Err(LoadError::UnknownState { .. })));
}

#[test]
fn slots_outside_of_the_executable_are_refused() {
    for slot in [Slot::Arena(10_000), Slot::Constant(1), Slot::Input(1), Slot::Output(1), Slot::State(1)] {
        let mut executable = program(2);
        executable.launches[0].slots[0] = slot;
        let mut session = Session::new(1).unwrap();
        session.put_state("sum", Tensor::zeros(vector(2)).unwrap()).unwrap();
        assert!(matches!(session.load(Arc::new(executable)), Err(LoadError::Malformed { .. })), "{slot:?}");
    }
}

#[test]
fn a_larger_program_moves_the_arena_of_a_smaller_one() {
    let (mut session, small) = session(2, 2);
    let mut executable = program(2);
    executable.arena_bytes = 1 << 20;
    executable.launches[0].scratch_bytes = 1 << 16;
    let large = session.load(Arc::new(executable)).unwrap();
    assert_eq!(session.arena_bytes(), 1 << 20);
    let input = ramp(2);
    for id in [small, large, small] {
        let mut outputs = session.outputs(id).unwrap();
        session.run(id, &[&input], &mut outputs).unwrap();
    }
    let sum = session.states().get("sum").unwrap().get(31).unwrap();
    let x = input.get(31).unwrap();
    assert!((sum - 3.0 * (x * x + 1.0)).abs() < 1e-5);
}

#[test]
fn a_run_allocates_nothing() {
    for threads in [1, 2] {
        let (mut session, id) = session(threads, 40);
        let (input, mut outputs) = (ramp(40), session.outputs(id).unwrap());
        session.run(id, &[&input], &mut outputs).unwrap();
        let before = allocations();
        for _ in 0..20 {
            session.run(id, &[&input], &mut outputs).unwrap();
        }
        assert_eq!(allocations() - before, 0);
    }
}

#[test]
fn a_profile_has_every_launch() {
    let (mut session, id) = session(2, 40);
    let mut outputs = session.outputs(id).unwrap();
    let profile = session.profile(id, &[&ramp(40)], &mut outputs, 3).unwrap();
    let names: Vec<&str> = profile.launches.iter().map(|launch| launch.name.as_str()).collect();
    assert_eq!(names, ["kernel0", "kernel0", "kernel1", "kernel2"]);
    assert!(profile.launches.iter().all(|launch| launch.times.len() == 3));
    assert!(profile.min() <= profile.median());
}

#[test]
fn the_last_run_frees_what_only_it_uses() {
    // @b = @a^2 + 1, then @c = @b^2 + 1; another program reads @c.
    let vectors = |names: &[&str]| names.iter().map(|name| Binding::new(*name, vector(2))).collect::<Vec<_>>();
    let prepare = Executable {
        inputs: Vec::new(),
        outputs: Vec::new(),
        states: vectors(&["a", "b", "c"]),
        launches: vec![
            launch(0, vec![Slot::State(0), Slot::State(1)], 2),
            launch(0, vec![Slot::State(1), Slot::State(2)], 2),
        ],
        ..program(2)
    };
    let predict = Executable {
        inputs: Vec::new(),
        states: vectors(&["c"]),
        launches: vec![launch(0, vec![Slot::State(0), Slot::Output(0)], 2)],
        ..program(2)
    };
    let mut session = Session::new(2).unwrap();
    for name in ["c", "a", "unrelated", "b"] {
        session.put_state(name, Tensor::zeros(vector(2)).unwrap()).unwrap();
    }
    let (prepare, predict) = (session.load(Arc::new(prepare)).unwrap(), session.load(Arc::new(predict)).unwrap());
    session.run_last(prepare, &[], &mut []).unwrap();
    assert_eq!(session.states().iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["c", "unrelated"]);
    let error = session.run(prepare, &[], &mut []).unwrap_err();
    assert!(matches!(error, RunError::UnknownProgram { .. }), "it is unloaded: {error}");
    // Growing the arena renews the tables of the programs that are left.
    session
        .load(Arc::new(Executable { states: Vec::new(), launches: Vec::new(), arena_bytes: 1 << 16, ..program(2) }))
        .unwrap();
    let mut outputs = session.outputs(predict).unwrap();
    session.run(predict, &[], &mut outputs).unwrap();
    // 0 becomes 1, 2 and 5.
    assert!(outputs[0].as_slice::<f32>().unwrap().iter().all(|&y| y == 5.0));
}

#[test]
fn a_failed_last_run_unloads_too() {
    let (mut session, id) = session(1, 2);
    let mut outputs = session.outputs(id).unwrap();
    let mut bad = ramp(2);
    bad.as_mut_slice::<f32>().unwrap()[0] = 5.0;
    assert!(matches!(session.run_last(id, &[&bad], &mut outputs), Err(RunError::Kernel { .. })));
    assert!(matches!(session.run(id, &[&ramp(2)], &mut outputs), Err(RunError::UnknownProgram { .. })));
}
