//! The fit loop.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use kiln_ir::Name;

use super::checkpoint::{self, Checkpoint, Identity, Position};
use super::error::TrainError;
use super::feed::{Feed, Kind};
use super::options::{FitOptions, TrainPrograms};
use super::report::{EpochSummary, KEPT_LOSSES, Outcome, Report, Reporter, StepEvent};
use crate::data::{DataError, Dataset, Split, epoch_order};
use crate::session::Session;
use crate::tensor::Tensor;

/// Trains: runs the step programs over the training examples epoch by epoch, and the eval program over those held out
/// after each epoch. Everything that is reported, except for the time, is a function of program, data and options;
/// neither threads nor an interruption with a resume change a bit.
///
/// # Errors
/// [`TrainError`]. After [`TrainError::NonFinite`] the session's states are those before the step to replay.
pub fn fit(
    session: &mut Session,
    programs: &TrainPrograms,
    data: &Dataset,
    options: &FitOptions,
    reporter: &mut dyn Reporter,
) -> Result<Report, TrainError> {
    let start = Instant::now();
    let mut fit = Fit::new(session, programs, data, options)?;
    let resumed_from_step = fit.resume()?;
    if let Some(step) = resumed_from_step {
        reporter.notice(&format!("resumed from step {step}"));
    }
    let outcome = fit.train(reporter)?;
    fit.finish(outcome, resumed_from_step, start)
}

struct Fit<'a> {
    session: &'a mut Session,
    data: &'a Dataset,
    options: &'a FitOptions,
    split: Split,
    feed: Feed,
    identity: Identity,
    position: Position,
    snapshot: Snapshot,
    /// Step of the last checkpoint.
    saved: Option<u64>,
    /// Results of the last batch.
    values: Vec<f64>,
    /// Means over the examples of the current epoch: kept, since a step allocates nothing.
    means: Vec<f64>,
    /// Which of the results of a step are losses.
    losses: Vec<usize>,
    /// Test values of the current parameters, if they have been computed.
    tested: Option<Vec<f64>>,
}

/// States at a step of the current epoch, from which later steps can be repeated: in memory, unless a checkpoint has them.
#[derive(Default)]
struct Snapshot {
    step_in_epoch: u64,
    states: Vec<(Name, Tensor)>,
}

impl<'a> Fit<'a> {
    fn new(
        session: &'a mut Session,
        programs: &TrainPrograms,
        data: &'a Dataset,
        options: &'a FitOptions,
    ) -> Result<Fit<'a>, TrainError> {
        let split = Split::new(data.examples(), options.test_every, options.fold()?);
        if split.train.is_empty() {
            return Err(TrainError::Data(DataError::Empty {
                file: data.file().to_owned(),
                what: format!("no example is left to train on, {} are held out", split.test.len()),
                help: ", or hold out fewer with `test_every`".into(),
            }));
        }
        let feed = Feed::new(session, programs)?;
        let identity = identity(session, programs, data, options)?;
        let mut position = Position::default();
        position.history.train_names = feed.names(Kind::Step);
        if !split.test.is_empty() {
            position.history.test_names = feed.names(Kind::Eval);
        }
        position.sums = vec![0.0; position.history.train_names.len()];
        let (means, losses) = (position.sums.clone(), feed.losses(&options.losses)?);
        position.losses.reserve(KEPT_LOSSES * losses.len());
        let (snapshot, saved, values, tested) = (Snapshot::default(), None, Vec::new(), None);
        Ok(Fit {
            session,
            data,
            options,
            split,
            feed,
            identity,
            position,
            snapshot,
            saved,
            values,
            means,
            losses,
            tested,
        })
    }

    /// Goes on from a checkpoint, if one is given; returns its step.
    fn resume(&mut self) -> Result<Option<u64>, TrainError> {
        let Some(path) = &self.options.resume else { return Ok(None) };
        let checkpoint = Checkpoint::read(path)?;
        checkpoint.check(&self.identity)?;
        checkpoint.restore(self.session)?;
        self.position = checkpoint.position;
        Ok(Some(self.position.step))
    }

    fn train(&mut self, reporter: &mut dyn Reporter) -> Result<Outcome, TrainError> {
        while self.position.epoch < self.options.epochs && !self.enough_steps() {
            if let Some(outcome) = self.epoch(reporter)? {
                return Ok(outcome);
            }
        }
        self.save()?;
        Ok(Outcome::Done)
    }

    /// Trains to the end of the current epoch; an outcome if the training ends before.
    fn epoch(&mut self, reporter: &mut dyn Reporter) -> Result<Option<Outcome>, TrainError> {
        let order = epoch_order(&self.split.train, self.options.seed, self.position.epoch, self.options.shuffle);
        let batches: Vec<&[usize]> = order.chunks(self.options.batch.max(1)).collect();
        self.take_snapshot()?;
        while let Some(batch) = usize::try_from(self.position.step_in_epoch).ok().and_then(|step| batches.get(step)) {
            self.step(batch, &batches)?;
            self.report_step(batches.len() as u64, reporter);
            if self.stopped() {
                self.save()?;
                return Ok(Some(Outcome::Interrupted));
            }
            if self.enough_steps() && self.position.step_in_epoch < batches.len() as u64 {
                self.save()?;
                return Ok(Some(Outcome::Done));
            }
            if self.options.checkpoint_every.is_some_and(|every| self.position.step.is_multiple_of(every.max(1))) {
                self.save()?;
            }
        }
        self.end_epoch(reporter)?;
        self.save()?;
        Ok(self.stopped().then_some(Outcome::Interrupted))
    }

    fn step(&mut self, batch: &[usize], batches: &[&[usize]]) -> Result<(), TrainError> {
        self.tested = None;
        self.feed.run(self.session, self.data, Kind::Step, batch, &mut self.values)?;
        if let Some(index) = self.values.iter().position(|value| !value.is_finite()) {
            return Err(self.non_finite(index, batches)?);
        }
        let position = &mut self.position;
        for (sum, value) in position.sums.iter_mut().zip(&self.values) {
            *sum += value * batch.len() as f64;
        }
        if position.losses.len() < KEPT_LOSSES * self.losses.len() {
            position.losses.extend(self.losses.iter().filter_map(|&i| self.values.get(i)));
        }
        position.examples += batch.len() as u64;
        position.step_in_epoch += 1;
        position.step += 1;
        Ok(())
    }

    fn report_step(&mut self, steps: u64, reporter: &mut dyn Reporter) {
        self.means.clear();
        self.means.extend(self.position.train_means());
        reporter.step(StepEvent {
            epoch: self.position.epoch + 1,
            epochs: self.options.epochs,
            step: self.position.step_in_epoch,
            steps,
            names: &self.position.history.train_names,
            means: &self.means,
        });
    }

    fn end_epoch(&mut self, reporter: &mut dyn Reporter) -> Result<(), TrainError> {
        let (train, test) = (self.position.train_means().collect(), self.test()?);
        let position = &mut self.position;
        position.history.epochs.push(EpochSummary { train, test });
        position.epoch += 1;
        position.step_in_epoch = 0;
        position.examples = 0;
        position.sums.fill(0.0);
        reporter.epoch(position.epoch, self.options.epochs, &position.history);
        Ok(())
    }

    /// Means over the held out examples with the current parameters.
    fn test(&mut self) -> Result<Vec<f64>, TrainError> {
        if let Some(tested) = &self.tested {
            return Ok(tested.clone());
        }
        let mut sums = vec![0.0; self.position.history.test_names.len()];
        if !sums.is_empty() {
            if let Some(prepare) = self.feed.prepare() {
                self.session.run(prepare, &[], &mut [])?;
            }
            for batch in self.split.test.chunks(self.options.batch.max(1)) {
                self.feed.run(self.session, self.data, Kind::Eval, batch, &mut self.values)?;
                sums.iter_mut().zip(&self.values).for_each(|(sum, value)| *sum += value * batch.len() as f64);
            }
            sums.iter_mut().for_each(|sum| *sum /= self.split.test.len() as f64);
        }
        self.tested = Some(sums.clone());
        Ok(sums)
    }

    /// Losses of the first steps, by the names of the losses.
    fn step_losses(&self) -> Vec<(Name, Vec<f64>)> {
        let names = self.losses.iter().filter_map(|&i| self.position.history.train_names.get(i));
        let kept = |i: usize| self.position.losses.iter().skip(i).step_by(self.losses.len().max(1)).copied().collect();
        names.enumerate().map(|(i, name)| (name.clone(), kept(i))).collect()
    }

    fn enough_steps(&self) -> bool {
        self.options.steps.is_some_and(|steps| self.position.step >= steps)
    }

    fn stopped(&self) -> bool {
        self.options.stop.load(Ordering::Relaxed)
    }

    fn save(&mut self) -> Result<(), TrainError> {
        if let Some(path) = &self.options.checkpoint {
            checkpoint::save(path, &self.identity, &self.position, self.session.states())?;
            self.saved = Some(self.position.step);
        }
        Ok(())
    }

    /// The checkpoint that has the states at the start of an epoch. None if there are others within epochs: they may come
    /// between a step that spoils a state and the loss that shows it.
    fn snapshot_file(&self) -> Option<&'a Path> {
        self.options.checkpoint.as_deref().filter(|_| self.options.checkpoint_every.is_none())
    }

    fn take_snapshot(&mut self) -> Result<(), TrainError> {
        if self.snapshot_file().is_none() {
            self.snapshot.take(self.session, self.position.step_in_epoch);
            return Ok(());
        }
        self.snapshot.step_in_epoch = self.position.step_in_epoch;
        if self.saved != Some(self.position.step) { self.save() } else { Ok(()) }
    }

    fn restore_snapshot(&mut self) -> Result<(), TrainError> {
        match self.snapshot_file() {
            Some(path) => Ok(Checkpoint::read(path)?.restore(self.session)?),
            None => self.snapshot.restore(self.session),
        }
    }

    /// The error for result number `index` of the current step. Steps are deterministic, so those since the snapshot
    /// are repeated up to the one at fault: the current one, or the last one that found all states finite.
    fn non_finite(&mut self, index: usize, batches: &[&[usize]]) -> Result<TrainError, TrainError> {
        let name = self.position.history.train_names.get(index).cloned().unwrap_or_else(|| "loss".into());
        let value = self.values.get(index).copied().unwrap_or(f64::NAN);
        let (epoch, step) = (self.position.epoch + 1, self.position.step + 1);
        let mut last = self.position.step_in_epoch;
        loop {
            self.restore_snapshot()?;
            for batch in (self.snapshot.step_in_epoch..last).filter_map(|i| batches.get(usize::try_from(i).ok()?)) {
                self.feed.run(self.session, self.data, Kind::Step, batch, &mut self.values)?;
            }
            if last == self.snapshot.step_in_epoch || self.session.states().iter().all(|(_, state)| finite(state)) {
                break;
            }
            last -= 1;
        }
        let indices = usize::try_from(last).ok().and_then(|last| batches.get(last)).map(|batch| batch.to_vec());
        let origin = step - (self.position.step_in_epoch - last);
        Ok(TrainError::NonFinite { name, value, epoch, step, origin, indices: indices.unwrap_or_default() })
    }

    fn finish(mut self, outcome: Outcome, resumed: Option<u64>, start: Instant) -> Result<Report, TrainError> {
        let last = self.position.history.epochs.last();
        let train = match last {
            Some(last) if self.position.examples == 0 => last.train.clone(),
            _ if self.position.step == 0 => Vec::new(),
            _ => self.position.train_means().collect(),
        };
        let test = match outcome {
            Outcome::Done => self.test()?,
            // Whoever interrupts does not want to wait.
            Outcome::Interrupted => last.map(|last| last.test.clone()).unwrap_or_default(),
        };
        Ok(Report {
            outcome,
            epochs: self.position.epoch,
            steps: self.position.step,
            resumed_from_step: resumed,
            seconds: start.elapsed().as_secs_f64(),
            train,
            test,
            step_losses: self.step_losses(),
            history: self.position.history,
        })
    }
}

impl Snapshot {
    fn take(&mut self, session: &Session, step_in_epoch: u64) {
        self.step_in_epoch = step_in_epoch;
        let states = session.states().iter();
        if self.states.len() == states.len() {
            for ((_, kept), (_, state)) in self.states.iter_mut().zip(states) {
                kept.bytes_mut().copy_from_slice(state.bytes());
            }
        } else {
            self.states = states.map(|(name, state)| (name.clone(), state.clone())).collect();
        }
    }

    fn restore(&self, session: &mut Session) -> Result<(), TrainError> {
        self.states.iter().try_for_each(|(name, state)| Ok(session.set_state(name, state)?))
    }
}

fn finite(tensor: &Tensor) -> bool {
    match (tensor.as_slice::<f32>(), tensor.dtype().is_float()) {
        (Ok(elements), _) => elements.iter().all(|element| element.is_finite()),
        (Err(_), true) => (0..tensor.len()).all(|i| tensor.get(i).is_some_and(f64::is_finite)),
        (Err(_), false) => true,
    }
}

/// What must be the same for a training to go on bit by bit. The number of threads is not part of it.
fn identity(
    session: &Session,
    programs: &TrainPrograms,
    data: &Dataset,
    options: &FitOptions,
) -> Result<Identity, TrainError> {
    let mut kernels = crc32fast::Hasher::new();
    for (size, programs) in &programs.by_batch {
        kernels.update(&size.to_le_bytes());
        for &id in programs.steps.iter().chain(&programs.eval) {
            kernels.update(&session.executable(id)?.fingerprint.to_le_bytes());
        }
    }
    let parts = [
        ("script", options.script),
        ("data", u64::from(data.checksum())),
        ("seed", options.seed),
        ("batch size", options.batch as u64),
        ("order of examples", u64::from(options.shuffle)),
        ("test split", ((options.test_every as u64) << 32) + options.fold()? as u64),
        ("choice of kernels", u64::from(kernels.finalize())),
    ];
    Ok(Identity(parts.into_iter().map(|(name, value)| (name.into(), value)).collect()))
}

#[cfg(test)]
#[path = "fit_tests.rs"]
mod tests;
