//! What a training reports: while it runs, and at the end.

use kiln_ir::Name;

/// How many losses of single steps are kept.
pub const KEPT_LOSSES: usize = 100;

/// Means of every epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Names of the training series: `loss`, then metrics.
    pub train_names: Vec<Name>,
    /// Names of the test series; empty without held out examples.
    pub test_names: Vec<Name>,
    /// Complete epochs in order.
    pub epochs: Vec<EpochSummary>,
}

/// Means of one epoch over its examples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EpochSummary {
    /// One per training series, while the parameters changed.
    pub train: Vec<f64>,
    /// One per test series, with the parameters at the end of the epoch.
    pub test: Vec<f64>,
}

impl History {
    /// A training series by name.
    pub fn train(&self, name: &str) -> Option<Vec<f64>> {
        series(&self.train_names, name, self.epochs.iter().map(|epoch| &epoch.train))
    }

    /// A test series by name.
    pub fn test(&self, name: &str) -> Option<Vec<f64>> {
        series(&self.test_names, name, self.epochs.iter().map(|epoch| &epoch.test))
    }
}

fn series<'a>(names: &[Name], name: &str, epochs: impl Iterator<Item = &'a Vec<f64>>) -> Option<Vec<f64>> {
    let index = names.iter().position(|other| &**other == name)?;
    Some(epochs.filter_map(|values| values.get(index).copied()).collect())
}

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs or steps are done.
    Done,
    /// The stop flag was set; the step was finished and the checkpoint written.
    Interrupted,
}

/// Result of a training.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// Complete epochs, those before a resume included.
    pub epochs: u64,
    /// Steps, those before a resume included.
    pub steps: u64,
    /// Step of the checkpoint that was resumed.
    pub resumed_from_step: Option<u64>,
    /// Wall time of this run in seconds.
    pub seconds: f64,
    /// Training values of the last epoch, or of the part of it that was run.
    pub train: Vec<f64>,
    /// Test values of the final parameters; empty without held out examples, or if interrupted before the first.
    pub test: Vec<f64>,
    /// For each step program the name of its loss, and this of each of the first [`KEPT_LOSSES`] batches.
    pub step_losses: Vec<(Name, Vec<f64>)>,
    /// Means of every epoch.
    pub history: History,
}

impl Report {
    /// A final test value by name.
    pub fn test_value(&self, name: &str) -> Option<f64> {
        let index = self.history.test_names.iter().position(|other| &**other == name)?;
        self.test.get(index).copied()
    }

    /// Loss of each of the first [`KEPT_LOSSES`] batches: of several step programs, the sum.
    pub fn losses(&self) -> Vec<f64> {
        let batches = self.step_losses.first().map_or(0, |(_, losses)| losses.len());
        (0..batches).map(|i| self.step_losses.iter().filter_map(|(_, losses)| losses.get(i)).sum()).collect()
    }

    /// The losses among `values`, which have `names`, added up; `None` if one is missing.
    fn total_loss(&self, names: &[Name], values: &[f64]) -> Option<f64> {
        let value = |loss: &Name| values.get(names.iter().position(|name| name == loss)?).copied();
        let losses: Vec<f64> = self.step_losses.iter().map(|(loss, _)| value(loss)).collect::<Option<_>>()?;
        (!losses.is_empty()).then(|| losses.iter().sum())
    }

    /// The report as one JSON object on one line; what does not exist is null. Losses are summed over the steps of a
    /// batch; if there are several, `step_losses` has each.
    pub fn to_json(&self) -> String {
        let mut object = serde_json::json!({
            "train_loss": self.total_loss(&self.history.train_names, &self.train),
            "test_loss": self.total_loss(&self.history.test_names, &self.test),
            "test_accuracy": self.test_value("accuracy"),
            "epochs": self.epochs,
            "steps": self.steps,
            "seconds": self.seconds,
            "losses": self.losses(),
            "resumed_from_step": self.resumed_from_step,
            "interrupted": self.outcome == Outcome::Interrupted,
        });
        if let (Some(object), true) = (object.as_object_mut(), self.step_losses.len() > 1) {
            let each = self.step_losses.iter().map(|(name, losses)| (name.to_string(), losses.clone().into()));
            object.insert("step_losses".into(), serde_json::Value::Object(each.collect()));
        }
        object.to_string()
    }
}

/// State of a training after a step.
#[derive(Clone, Copy, Debug)]
pub struct StepEvent<'a> {
    /// Epoch, from 1.
    pub epoch: u64,
    /// Epochs in all.
    pub epochs: u64,
    /// Step in the epoch, from 1.
    pub step: u64,
    /// Steps in an epoch.
    pub steps: u64,
    /// Names of the training series.
    pub names: &'a [Name],
    /// Their means over the epoch so far.
    pub means: &'a [f64],
}

/// Is told how a training goes on.
pub trait Reporter {
    /// A step is done.
    fn step(&mut self, event: StepEvent<'_>);

    /// An epoch (from 1, of `epochs`) is done; its means are the last of `history`.
    fn epoch(&mut self, epoch: u64, epochs: u64, history: &History);

    /// Something worth a line.
    fn notice(&mut self, text: &str);
}

/// Reports nothing.
impl Reporter for () {
    fn step(&mut self, _: StepEvent<'_>) {}
    fn epoch(&mut self, _: u64, _: u64, _: &History) {}
    fn notice(&mut self, _: &str) {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]
    use super::*;

    #[test]
    fn the_json_has_the_keys_of_the_command_line() {
        let history = History {
            train_names: vec!["loss".into(), "accuracy".into()],
            test_names: vec!["loss".into(), "accuracy".into()],
            epochs: vec![EpochSummary { train: vec![0.5, 0.75], test: vec![0.25, 1.0] }],
        };
        let report = Report {
            outcome: Outcome::Done,
            epochs: 1,
            steps: 3,
            resumed_from_step: None,
            seconds: 1.5,
            train: vec![0.5, 0.75],
            test: vec![0.25, 1.0],
            step_losses: vec![("loss".into(), vec![1.0, f64::NAN])],
            history,
        };
        assert_eq!(
            report.to_json(),
            r#"{"epochs":1,"interrupted":false,"losses":[1.0,null],"resumed_from_step":null,"seconds":1.5,"steps":3,"test_accuracy":1.0,"test_loss":0.25,"train_loss":0.5}"#
        );
        let mut several = report.clone();
        several.step_losses = vec![("loss".into(), vec![1.0, 2.0]), ("accuracy".into(), vec![0.5, 0.25])];
        assert_eq!(several.losses(), [1.5, 2.25]);
        let json: serde_json::Value = serde_json::from_str(&several.to_json()).unwrap();
        assert_eq!(json["step_losses"]["accuracy"][1], 0.25);
        assert_eq!((json["train_loss"].as_f64(), json["test_loss"].as_f64()), (Some(1.25), Some(1.25)));
        assert_eq!(report.history.test("accuracy").unwrap(), [1.0]);
        assert_eq!(report.history.train("recall"), None);
    }
}
