#![allow(clippy::unwrap_used, reason = "tests may panic")]
#![allow(unsafe_code, reason = "kernels in place of compiled code")]
//! The fit loop over kernels written in Rust: a linear model `y = w * x` with the loss `mean((w x - t)^2)`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use indexmap::IndexMap;
use kiln_ir::{DType, TensorType};

use super::*;
use crate::executable::{Binding, Code, Executable, KernelFn, Launch, Slot};
use crate::session::tests::allocations;
use crate::train::options::{BatchPrograms, batch_sizes};
use crate::train::report::History;

/// Slots: x, t, w, loss, rate, size of the batch. With rate 0 nothing is learned.
unsafe extern "C" fn step(table: *const *mut u8, _: u64, _: u64) {
    // SAFETY: the launch below has these slots.
    unsafe {
        let slot = |i: usize| table.add(2 + i).read().cast::<f32>();
        let (x, t, w, loss, rate, batch) = (slot(0), slot(1), slot(2), slot(3), slot(4), slot(5));
        let (mut sum, mut gradient) = (0.0_f32, 0.0_f32);
        let n = *batch;
        for i in 0..n as usize {
            let error = *w * *x.add(i) - *t.add(i);
            sum += error * error;
            gradient += 2.0 * error * *x.add(i);
        }
        *loss = sum / n;
        *w -= *rate * gradient / n;
    }
}

struct Kernels;

impl Code for Kernels {
    fn entry(&self, _: usize) -> KernelFn {
        step
    }

    fn bytes(&self) -> usize {
        0
    }
}

fn executable(batch: usize, rate: f32) -> Executable {
    let vector = TensorType::new(DType::F32, [batch]);
    let scalar = TensorType::scalar(DType::F32);
    let slots =
        vec![Slot::Input(0), Slot::Input(1), Slot::State(0), Slot::Output(0), Slot::Constant(0), Slot::Constant(64)];
    let launch = Launch {
        name: "step".into(),
        entry: 0,
        slots,
        tiles: 1,
        forks: None,
        scratch_bytes: 0,
        flops: 0,
        bytes: 0,
        source: None,
        sites: Vec::new(),
    };
    let mut constants = vec![0; 128];
    constants[..4].copy_from_slice(&rate.to_ne_bytes());
    constants[64..68].copy_from_slice(&(batch as f32).to_ne_bytes());
    Executable {
        name: "step0".into(),
        inputs: vec![Binding::new("x", vector.clone()), Binding::new("t", vector)],
        outputs: vec![Binding::new("loss", scalar.clone())],
        states: vec![Binding::new("w", scalar)],
        launches: vec![launch],
        constants,
        arena_bytes: 0,
        code: Arc::new(Kernels),
        keep: Vec::new(),
        fingerprint: u64::from(rate.to_bits()),
    }
}

const EXAMPLES: usize = 23;

fn data(spoil: Option<usize>) -> Dataset {
    let x: Vec<f32> = (0..EXAMPLES).map(|i| 0.1 * i as f32 - 1.0).collect();
    let t = x.iter().enumerate().map(|(i, x)| if spoil == Some(i) { f32::INFINITY } else { 3.0 * x + 0.01 });
    let column = |values: Vec<f32>| Tensor::from_vec([EXAMPLES], values).unwrap();
    let t = column(t.collect());
    let arrays = IndexMap::from([("x".to_owned(), column(x)), ("t".to_owned(), t)]);
    Dataset::new("d.npz", arrays, &executable(1, 0.0).inputs).unwrap()
}

struct Training {
    session: Session,
    programs: TrainPrograms,
}

fn training(rate: f32) -> Training {
    let mut session = Session::new(2).unwrap();
    session.put_state("w", Tensor::scalar(0.0_f32).unwrap()).unwrap();
    let mut by_batch: BTreeMap<usize, BatchPrograms> = BTreeMap::new();
    // 18 or 19 examples to train on, 4 or 5 to test on.
    for examples in [EXAMPLES - 4, EXAMPLES - 5, 4, 5] {
        for size in batch_sizes(examples, 4) {
            let steps = vec![session.load(Arc::new(executable(size, rate))).unwrap()];
            let eval = Some(session.load(Arc::new(executable(size, 0.0))).unwrap());
            by_batch.insert(size, BatchPrograms { steps, eval });
        }
    }
    Training { session, programs: TrainPrograms { by_batch, prepare: None } }
}

fn options() -> FitOptions {
    FitOptions { batch: 4, epochs: 6, seed: 3, ..FitOptions::default() }
}

fn run(training: &mut Training, options: &FitOptions) -> Result<Report, TrainError> {
    fit(&mut training.session, &training.programs, &data(None), options, &mut ())
}

fn weight(training: &Training) -> f32 {
    training.session.states().get("w").unwrap().as_slice::<f32>().unwrap()[0]
}

/// The same training in a few lines.
fn naive(epochs: u64) -> (f32, Vec<f64>, Vec<f64>) {
    let data: Vec<(f32, f32)> = (0..EXAMPLES).map(|i| 0.1 * i as f32 - 1.0).map(|x| (x, 3.0 * x + 0.01)).collect();
    let train: Vec<usize> = (0..EXAMPLES).filter(|i| i % 5 != 4).collect();
    let (mut w, mut trained, mut tested) = (0.0_f32, vec![], vec![]);
    for epoch in 0..epochs {
        let mut sum = 0.0_f64;
        for batch in epoch_order(&train, 3, epoch, true).chunks(4) {
            let n = batch.len() as f32;
            let errors: Vec<(f32, f32)> = batch.iter().map(|&i| (w * data[i].0 - data[i].1, data[i].0)).collect();
            let loss = errors.iter().map(|(e, _)| e * e).sum::<f32>() / n;
            sum += f64::from(loss) * batch.len() as f64;
            w -= 0.1 * errors.iter().map(|(e, x)| 2.0 * e * x).sum::<f32>() / n;
        }
        trained.push(sum / train.len() as f64);
        let test = (0..EXAMPLES).filter(|i| i % 5 == 4).map(|i| f64::from(w * data[i].0 - data[i].1).powi(2));
        tested.push(test.sum::<f64>() / 4.0);
    }
    (w, trained, tested)
}

#[test]
fn a_training_is_what_its_definition_says() {
    let mut training = training(0.1);
    let report = run(&mut training, &options()).unwrap();
    let (w, trained, tested) = naive(6);
    assert_eq!(weight(&training), w);
    assert_eq!((report.outcome, report.epochs, report.steps), (Outcome::Done, 6, 30));
    assert_eq!(report.losses().len(), 30);
    let close = |found: Vec<f64>, expected: &[f64]| {
        assert!(found.len() == expected.len());
        found.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-6 * b.max(1e-3), "{a} {b}"));
    };
    close(report.history.train("loss").unwrap(), &trained);
    close(report.history.test("loss").unwrap(), &tested);
    assert_eq!(report.test_value("loss"), report.history.test("loss").unwrap().last().copied());
}

#[test]
fn steps_and_folds_are_obeyed() {
    let mut first = training(0.1);
    let options = FitOptions { steps: Some(7), test_fold: Some(0), ..options() };
    let report = run(&mut first, &options).unwrap();
    assert_eq!((report.steps, report.epochs, report.losses().len(), report.test.len()), (7, 1, 7, 1));
    let mut second = training(0.1);
    let options = FitOptions { shuffle: false, test_every: 0, steps: Some(1), ..options };
    let report = run(&mut second, &FitOptions { test_fold: None, ..options }).unwrap();
    // The first four targets in order, with w = 0: -2.99, -2.69, -2.39, -2.09.
    let expected = (2.99_f64.powi(2) + 2.69_f64.powi(2) + 2.39_f64.powi(2) + 2.09_f64.powi(2)) / 4.0;
    assert!((report.losses()[0] - expected).abs() < 1e-5);
    assert!(report.test.is_empty() && report.history.test_names.is_empty());
}

#[test]
fn losses_are_results_by_name() {
    let losses = |name: &str| FitOptions { losses: vec![name.into()], steps: Some(3), ..options() };
    let report = run(&mut training(0.1), &losses("loss")).unwrap();
    assert_eq!(report.losses(), run(&mut training(0.1), &FitOptions { steps: Some(3), ..options() }).unwrap().losses());
    let message = run(&mut training(0.1), &losses("lost")).unwrap_err().to_string();
    assert_eq!(message, "train: `losses = lost` is not a list of names of results");
}

/// As a module in graph form may have it; those of a model are one program.
#[test]
fn several_step_programs_run_in_order_on_each_batch() {
    let mut training = training(0.1);
    for (size, programs) in &mut training.programs.by_batch {
        let second = Executable { name: "again".into(), ..executable(*size, 0.1) };
        programs.steps.push(training.session.load(Arc::new(second)).unwrap());
    }
    let options = FitOptions { shuffle: false, test_every: 0, steps: Some(1), ..options() };
    let report = run(&mut training, &options).unwrap();
    // The first four examples, with w = 0 and then as the first program leaves it.
    let batch: Vec<(f64, f64)> = (0..4).map(|i| 0.1 * f64::from(i) - 1.0).map(|x| (x, 3.0 * x + 0.01)).collect();
    let mean = |term: &dyn Fn(f64, f64) -> f64| batch.iter().map(|(x, t)| term(*x, *t)).sum::<f64>() / 4.0;
    let loss = |w: f64| mean(&|x, t| (w * x - t).powi(2));
    let next = 0.1 * mean(&|x, t| 2.0 * t * x);
    let names: Vec<&str> = report.step_losses.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["step0.loss", "again.loss"]);
    for ((_, found), expected) in report.step_losses.iter().zip([loss(0.0), loss(next)]) {
        assert!((found[0] - expected).abs() < 1e-5, "{} {expected}", found[0]);
    }
}

/// Sets the stop flag after some steps.
struct StopAfter(u64, Arc<AtomicBool>);

impl Reporter for StopAfter {
    fn step(&mut self, _: StepEvent<'_>) {
        self.0 -= 1;
        if self.0 == 0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
    fn epoch(&mut self, _: u64, _: u64, _: &History) {}
    fn notice(&mut self, _: &str) {}
}

fn interrupted(directory: &tempfile::TempDir, steps: u64) -> PathBuf {
    let path = directory.path().join(format!("{steps}.ckpt"));
    let options = FitOptions { checkpoint: Some(path.clone()), ..options() };
    let mut stop = StopAfter(steps, options.stop.clone());
    let mut training = training(0.1);
    let Training { session, programs } = &mut training;
    let report = fit(session, programs, &data(None), &options, &mut stop).unwrap();
    assert_eq!((report.outcome, report.steps), (Outcome::Interrupted, steps));
    path
}

#[test]
fn a_resumed_training_ends_bit_by_bit_as_an_uninterrupted_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut whole = training(0.1);
    let expected = run(&mut whole, &options()).unwrap();
    // In the middle of an epoch, at its last step, and after some epochs.
    for steps in [1, 3, 5, 12, 29] {
        let path = interrupted(&directory, steps);
        let mut rest = training(0.1);
        let report = run(&mut rest, &FitOptions { resume: Some(path), ..options() }).unwrap();
        assert_eq!(weight(&rest).to_bits(), weight(&whole).to_bits());
        assert_eq!(report.resumed_from_step, Some(steps));
        assert_eq!(
            Report { seconds: 0.0, resumed_from_step: None, ..report },
            Report { seconds: 0.0, ..expected.clone() }
        );
    }
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let resume = Some(interrupted(&directory, 3));
    let refused = |options: FitOptions, rate: f32| run(&mut training(rate), &options).unwrap_err().to_string();
    let with = || FitOptions { resume: resume.clone(), ..options() };
    for (options, rate, part) in [
        (FitOptions { script: 5, ..with() }, 0.1, "script"),
        (FitOptions { seed: 4, ..with() }, 0.1, "seed"),
        (FitOptions { shuffle: false, ..with() }, 0.1, "order of examples"),
        (FitOptions { test_fold: Some(3), ..with() }, 0.1, "test split"),
        (with(), 0.2, "choice of kernels"),
    ] {
        let message = refused(options, rate);
        assert!(message.contains(&format!("was made with another {part}; ")), "{message}");
    }
    let mut training = training(0.1);
    let Training { session, programs } = &mut training;
    let message = fit(session, programs, &data(Some(2)), &with(), &mut ()).unwrap_err().to_string();
    assert!(message.contains("another data; "), "{message}");
}

#[test]
fn checkpoints_are_written_as_often_as_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.ckpt");
    let options = FitOptions { checkpoint: Some(path.clone()), checkpoint_every: Some(2), ..options() };
    // Two steps, then a failure that leaves no checkpoint of its own.
    let mut training = training(0.1);
    let Training { session, programs } = &mut training;
    let order = epoch_order(&Split::new(EXAMPLES, 5, 4).train, 3, 0, true);
    fit(session, programs, &data(Some(order[13])), &options, &mut ()).unwrap_err();
    assert_eq!(Checkpoint::read(&path).unwrap().position.step, 2);
}

/// With the states of the start of the epoch in memory, and with those of a checkpoint.
#[test]
fn a_loss_that_is_not_finite_stops_with_its_batch() {
    let directory = tempfile::tempdir().unwrap();
    non_finite_loss(&options());
    non_finite_loss(&FitOptions { checkpoint: Some(directory.path().join("c.ckpt")), ..options() });
}

fn non_finite_loss(with: &FitOptions) {
    let mut training = training(0.1);
    let order = epoch_order(&Split::new(EXAMPLES, 5, 4).train, 3, 0, true);
    let Training { session, programs } = &mut training;
    let error = fit(session, programs, &data(Some(order[9])), with, &mut ()).unwrap_err();
    let before = weight(&training);
    let TrainError::NonFinite { name, value, epoch, step, origin, indices } = error else { panic!("{error}") };
    assert_eq!((&*name, value, epoch, step, origin), ("loss", f64::INFINITY, 1, 3, 3));
    assert_eq!(indices, order[8..12]);
    // The states are those before the third step.
    let mut reference = super::tests::training(0.1);
    run(&mut reference, &FitOptions { steps: Some(2), ..options() }).unwrap();
    assert_eq!(before, weight(&reference));
}

#[test]
fn a_diverging_training_is_traced_to_the_step_that_overflowed() {
    // The weight overflows in an update long before the loss of the next step is computed.
    let mut training = training(1e30);
    let error = run(&mut training, &options()).unwrap_err();
    let TrainError::NonFinite { step, origin, .. } = error else { panic!("{error}") };
    assert!(origin <= step && weight(&training).is_finite(), "{origin} {step}");
}

#[test]
fn a_size_without_a_program_is_a_defect() {
    let mut training = training(0.1);
    training.programs.by_batch.remove(&2);
    training.programs.by_batch.remove(&3);
    let message = run(&mut training, &options()).unwrap_err().to_string();
    assert!(message.starts_with("no step program was compiled for batches of"), "{message}");
}

/// What a step allocates, loading of the batch and report included: nothing, but for the first of each size of batch.
#[test]
fn steps_allocate_nothing() {
    #[derive(Default)]
    struct Counts {
        last: u64,
        step: u64,
        allocating: Vec<u64>,
    }
    impl Reporter for Counts {
        fn step(&mut self, event: StepEvent<'_>) {
            let now = allocations();
            self.step += 1;
            // The first step of an epoch comes after its order of examples, which is a list of its own.
            if event.step > 1 && now != self.last {
                self.allocating.push(self.step);
            }
            self.last = allocations();
        }
        fn epoch(&mut self, _: u64, _: u64, _: &History) {}
        fn notice(&mut self, _: &str) {}
    }
    let mut training = training(0.1);
    let mut counts = Counts::default();
    fit(&mut training.session, &training.programs, &data(None), &options(), &mut counts).unwrap();
    assert_eq!(counts.step, 30);
    assert_eq!(counts.allocating.iter().filter(|&&step| step > 5).count(), 0, "{:?}", counts.allocating);
}
