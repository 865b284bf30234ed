//! Progress for people: a bar on stderr if that is a terminal, and a line per epoch on stdout.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kiln_ir::Name;

use super::report::{History, Reporter, StepEvent};

/// Reports to the terminal.
pub struct Progress {
    bar: Option<ProgressBar>,
    lines: Box<dyn Write>,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new(std::io::stderr().is_terminal(), Box::new(std::io::stdout()))
    }
}

impl Progress {
    /// With or without a bar on stderr; lines go to `lines`.
    pub fn new(bar: bool, lines: Box<dyn Write>) -> Progress {
        let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg}  {eta} left");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
        let new = || ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
        Progress { bar: bar.then(new), lines }
    }

    /// A line on stdout, above the bar. Nobody listening is no reason to stop the training.
    fn line(&mut self, text: &str) {
        let lines = &mut self.lines;
        let mut write = || {
            let _ = writeln!(lines, "{text}").and_then(|()| lines.flush());
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Reporter for Progress {
    fn step(&mut self, event: StepEvent<'_>) {
        let Some(bar) = &self.bar else { return };
        if event.step == 1 {
            bar.reset_eta();
        }
        bar.set_length(event.steps);
        bar.set_prefix(format!("epoch {}/{}", event.epoch, event.epochs));
        bar.set_message(values("", event.names, event.means));
        bar.set_position(event.step);
    }

    fn epoch(&mut self, epoch: u64, epochs: u64, history: &History) {
        let Some(last) = history.epochs.last() else { return };
        let train = values("", &history.train_names, &last.train);
        let test = values("test_", &history.test_names, &last.test);
        self.line(format!("epoch {epoch}/{epochs}  {train}  {test}").trim_end());
    }

    fn notice(&mut self, text: &str) {
        self.line(text);
    }
}

/// `loss 0.1234  accuracy 0.9876`.
fn values(prefix: &str, names: &[Name], values: &[f64]) -> String {
    let mut text = String::new();
    for (i, (name, value)) in names.iter().zip(values).enumerate() {
        let space = if i > 0 { "  " } else { "" };
        // Small losses would all read 0.0000.
        let written = match value.abs() {
            magnitude if magnitude > 0.0 && magnitude < 1e-3 => write!(text, "{space}{prefix}{name} {value:.3e}"),
            _ => write!(text, "{space}{prefix}{name} {value:.4}"),
        };
        debug_assert!(written.is_ok(), "a String takes any text");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]
    use super::*;
    use crate::train::report::EpochSummary;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_epoch_is_one_plain_line() {
        let lines = Lines::default();
        let names: Vec<Name> = vec!["loss".into(), "accuracy".into()];
        let history = History {
            train_names: names.clone(),
            test_names: names.clone(),
            epochs: vec![EpochSummary { train: vec![0.000_123_4, 0.5], test: vec![2.0, 0.25] }],
        };
        let mut progress = Progress::new(false, Box::new(lines.clone()));
        progress.step(StepEvent { epoch: 1, epochs: 3, step: 1, steps: 9, names: &names, means: &[1.0, 0.0] });
        progress.epoch(1, 3, &history);
        progress.notice("resumed from step 3");
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text,
            "epoch 1/3  loss 1.234e-4  accuracy 0.5000  test_loss 2.0000  test_accuracy 0.2500\nresumed from step 3\n"
        );
    }
}
