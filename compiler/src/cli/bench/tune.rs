//! `kiln bench --tune`: measures alternatives to the cost model's choices, in the model that they belong to.
//!
//! A round compiles the model with the next alternative of every kernel and profiles it alternating with the model as the
//! cost model makes it, so that each kernel meets the caches as its neighbours leave them, and both meet the same state of the
//! machine. An alternative counts if it was faster in every alternation. The winners are then measured again, all in one
//! model; those that do not win twice are dropped, and so are all if the model as a whole is not faster.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indexmap::IndexMap;
use kiln::roofline::sources;
use kiln::tuning::cached::CachedChoices;
use kiln::tuning::{Choice, Decision, Measured, Rounding, Trial, Tuned, Tuning};
use kiln::{Options, Program};
use kiln_ir::graph::Graph;
use kiln_ir::{Module, Name};
use kiln_rt::Tensor;
use kiln_rt::cache::{Cache, FOLDER_VARIABLE};
use serde_json::{Value, json};

use super::super::failure::Failure;
use super::super::load::Script;
use super::super::machine::Machine;
use super::super::output::{print, print_json};
use super::{Run, profiles};

/// Choices that may be tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Which {
    /// Those that keep every bit.
    Exact,
    /// Also those that change how results are rounded.
    Bits,
}

/// What is tuned.
pub(super) struct Setting<'a> {
    pub(super) script: &'a Script,
    pub(super) module: &'a Module,
    pub(super) graphs: &'a [Graph],
    pub(super) inputs: &'a IndexMap<Name, Tensor>,
    pub(super) weights: Option<&'a Path>,
}

/// Time of one profile, and its runs.
const PROFILE: Duration = Duration::from_millis(120);
const RUNS: std::ops::RangeInclusive<usize> = 2..=60;
/// Alternations of a round, and of the last measurements.
const ALTERNATIONS: usize = 2;
const THOROUGH: usize = 4;
/// An alternative that takes more than this part of the usual time is not worth another choice.
const WORTH: f64 = 0.98;

/// Measures, writes the cache, and reports.
pub(super) fn run(
    setting: &Setting<'_>,
    which: Which,
    options: &Options,
    threads: usize,
    as_json: bool,
) -> Result<(), Failure> {
    let no_cache =
        || Failure::Usage(format!("there is no cache to keep choices in: set {FOLDER_VARIABLE} to a folder, or HOME"));
    let cache = Cache::of_user().ok_or_else(no_cache)?;
    let rounding = if which == Which::Bits { Rounding::Tuned } else { Rounding::Kept };
    let choices = CachedChoices::new(&cache, threads, rounding);
    let mut tuner = Tuner::new(setting, options, rounding, threads)?;
    let found = tuner.search()?;
    let report = tuner.confirm(found)?;
    let failed = report.kernels.iter().find_map(|kernel| choices.put(&kernel.key, &kernel.tuned).err());
    let folder = choices.folder(rounding);
    let place = match failed {
        None => format!("written to {}", folder.display()),
        Some(error) => format!("nothing is cached, {} cannot be written: {error}", folder.display()),
    };
    if as_json { print_json(&report.to_json(&place)) } else { print(&report.to_text(&place)) }
}

/// A compiled model that runs.
struct Contender<'a> {
    program: Program,
    names: Vec<Name>,
    machine: Machine,
    runs: Vec<Run<'a>>,
    /// Results of the first run, as bytes.
    first: Vec<Vec<u8>>,
}

/// Microseconds of each kernel, all of its launches in all graphs together.
type Times = HashMap<String, f64>;

impl<'a> Contender<'a> {
    fn new(setting: &Setting<'a>, options: &Options, tuning: Tuning, threads: usize) -> Result<Contender<'a>, Failure> {
        let program = setting.script.compile(setting.module, &Options { tuning, ..options.clone() })?;
        let (machine, _) = Machine::quiet(&program, None, setting.weights, threads)?;
        let names = setting.graphs.iter().map(|graph| Name::from(graph.name())).collect();
        let runs = setting.graphs.iter().map(|graph| Run::new(&machine, graph, setting.inputs));
        let runs = runs.collect::<Result<_, _>>()?;
        let mut contender = Contender { program, names, machine, runs, first: Vec::new() };
        contender.once()?;
        let outputs = contender.runs.iter().flat_map(|run| &run.outputs);
        contender.first = outputs.map(|tensor| tensor.bytes().to_vec()).collect();
        Ok(contender)
    }

    fn once(&mut self) -> Result<Duration, Failure> {
        let start = Instant::now();
        for run in &mut self.runs {
            self.machine.session.run(run.id, &run.inputs, &mut run.outputs)?;
        }
        Ok(start.elapsed())
    }

    /// Runs that take about [`PROFILE`].
    fn runs_of_a_profile(&mut self) -> Result<usize, Failure> {
        let runs = PROFILE.as_nanos() / self.once()?.as_nanos().max(1);
        Ok((runs as usize).clamp(*RUNS.start(), *RUNS.end()))
    }

    fn decisions(&self) -> impl Iterator<Item = (&str, &Arc<Decision>)> {
        let lowered = self.program.graphs.values().flat_map(|compiled| &compiled.lowered);
        lowered.filter_map(|lowered| Some((&*lowered.name, lowered.decision.as_ref()?)))
    }

    /// Adds the median time of every kernel to `times`.
    fn profile(&mut self, runs: usize, times: &mut Times) -> Result<(), Failure> {
        let profiles = profiles(&self.program, &mut self.machine, &self.names, &mut self.runs, runs)?;
        for (_, compiled, profile) in &profiles {
            for (launch, source) in profile.launches.iter().zip(sources(compiled)) {
                let decision = source.and_then(|source| source.lowered.decision.as_ref());
                let Some(decision) = decision else { continue };
                *times.entry(decision.kernel.clone()).or_default() += launch.median().as_secs_f64() * 1e6;
            }
        }
        Ok(())
    }

    /// Median time of a whole run in milliseconds.
    fn median(&mut self, runs: usize) -> Result<f64, Failure> {
        let mut times: Vec<Duration> = (0..runs).map(|_| self.once()).collect::<Result<_, _>>()?;
        times.sort_unstable();
        Ok(times.get(runs / 2).copied().unwrap_or_default().as_secs_f64() * 1e3)
    }
}

/// Sums of the times of several alternations, and whether the other was faster in each.
#[derive(Clone, Copy, Debug)]
struct Duel {
    usual: f64,
    other: f64,
    always: bool,
}

impl Duel {
    fn won(&self) -> bool {
        self.always && self.other < WORTH * self.usual
    }

    fn ratio(&self) -> f64 {
        self.other / self.usual.max(f64::MIN_POSITIVE)
    }
}

/// Profiles two contenders in turn.
fn duels(
    usual: &mut Contender<'_>,
    other: &mut Contender<'_>,
    alternations: usize,
) -> Result<HashMap<String, Duel>, Failure> {
    let runs = usual.runs_of_a_profile()?;
    let mut duels: HashMap<String, Duel> = HashMap::new();
    for _ in 0..alternations {
        let (mut before, mut after) = (Times::new(), Times::new());
        usual.profile(runs, &mut before)?;
        other.profile(runs, &mut after)?;
        for (kernel, usual) in before {
            let Some(&other) = after.get(&kernel) else { continue };
            let duel = duels.entry(kernel).or_insert(Duel { usual: 0.0, other: 0.0, always: true });
            duel.usual += usual;
            duel.other += other;
            duel.always &= other < usual;
        }
    }
    let mean = |sum: f64| sum / alternations.max(1) as f64;
    duels.values_mut().for_each(|duel| (duel.usual, duel.other) = (mean(duel.usual), mean(duel.other)));
    Ok(duels)
}

struct Tuner<'a> {
    setting: &'a Setting<'a>,
    options: &'a Options,
    rounding: Rounding,
    threads: usize,
    usual: Contender<'a>,
    /// Every kernel once, with the names of those that are alike.
    kernels: IndexMap<String, (Vec<String>, Arc<Decision>)>,
}

impl<'a> Tuner<'a> {
    fn new(
        setting: &'a Setting<'a>,
        options: &'a Options,
        rounding: Rounding,
        threads: usize,
    ) -> Result<Tuner<'a>, Failure> {
        let usual = Contender::new(setting, options, Tuning::default().exploring(rounding), threads)?;
        let mut kernels: IndexMap<String, (Vec<String>, Arc<Decision>)> = IndexMap::new();
        for (name, decision) in usual.decisions() {
            let entry = kernels.entry(decision.kernel.clone());
            entry.or_insert_with(|| (Vec::new(), decision.clone())).0.push(name.to_owned());
        }
        Ok(Tuner { setting, options, rounding, threads, usual, kernels })
    }

    fn contender(&self, choices: impl IntoIterator<Item = (String, Choice)>) -> Result<Contender<'a>, Failure> {
        let tuning = Tuning::of(Arc::new(Trial::new(self.rounding, choices)));
        Contender::new(self.setting, self.options, tuning, self.threads)
    }

    /// The best alternative of each kernel that won its round.
    fn search(&mut self) -> Result<IndexMap<String, (Choice, f64)>, Failure> {
        let mut best: IndexMap<String, (Choice, f64)> = IndexMap::new();
        let rounds = self.kernels.values().map(|(_, decision)| decision.alternatives.len()).max().unwrap_or(0);
        for round in 0..rounds {
            let tried: Vec<(String, Choice)> = self
                .kernels
                .iter()
                .filter_map(|(key, (_, decision))| Some((key.clone(), *decision.alternatives.get(round)?)))
                // Sharing launches means nothing on one thread.
                .filter(|(_, choice)| self.threads > 1 || choice.forks.is_none())
                .collect();
            if tried.is_empty() {
                continue;
            }
            eprint!("\rround {} of {rounds}", round + 1);
            let mut other = self.contender(tried.iter().cloned())?;
            let duels = duels(&mut self.usual, &mut other, ALTERNATIONS)?;
            for (key, choice) in tried {
                let Some(duel) = duels.get(&key).filter(|duel| duel.won()) else { continue };
                if best.get(&key).is_none_or(|(_, ratio)| duel.ratio() < *ratio) {
                    best.insert(key, (choice, duel.ratio()));
                }
            }
        }
        eprintln!();
        Ok(best)
    }

    /// Measures the winners together, again.
    fn confirm(&mut self, found: IndexMap<String, (Choice, f64)>) -> Result<Report, Failure> {
        let mut choices: IndexMap<String, Choice> = found.into_iter().map(|(key, (choice, _))| (key, choice)).collect();
        let mut together = self.contender(choices.clone())?;
        let again = duels(&mut self.usual, &mut together, THOROUGH)?;
        choices.retain(|key, _| again.get(key).is_some_and(Duel::won));
        drop(together);
        let mut tuned = self.contender(choices.clone())?;
        if self.rounding == Rounding::Kept && tuned.first != self.usual.first {
            return Err(Failure::Defect("a choice that keeps bits has changed a result".to_owned()));
        }
        let runs = 2 * self.usual.runs_of_a_profile()?;
        let (mut before, mut after) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..THOROUGH {
            before = before.min(self.usual.median(runs)?);
            after = after.min(tuned.median(runs)?);
        }
        if after >= before {
            choices.clear();
        }
        let kernels = self.kernels.iter().filter_map(|(key, (names, _))| {
            let duel = again.get(key)?;
            let choice = choices.get(key).copied();
            let tuned = if choice.is_some() { duel.other } else { duel.usual };
            let per_run = |us: f64| us / names.len() as f64;
            let measured = Measured { tuned: per_run(tuned), usual: per_run(duel.usual), threads: self.threads };
            let rounding = self.rounding;
            Some(Kernel { key: key.clone(), names: names.clone(), tuned: Tuned { choice, rounding, measured } })
        });
        Ok(Report { kernels: kernels.collect(), before, after, threads: self.threads })
    }
}

/// A kernel and what is cached for it.
struct Kernel {
    key: String,
    names: Vec<String>,
    tuned: Tuned,
}

struct Report {
    kernels: Vec<Kernel>,
    /// Milliseconds of a run.
    before: f64,
    after: f64,
    threads: usize,
}

impl Report {
    fn chosen(&self) -> Vec<&Kernel> {
        let saved =
            |kernel: &Kernel| (kernel.tuned.measured.usual - kernel.tuned.measured.tuned) * kernel.names.len() as f64;
        let mut chosen: Vec<&Kernel> = self.kernels.iter().filter(|kernel| kernel.tuned.choice.is_some()).collect();
        chosen.sort_by(|a, b| saved(b).total_cmp(&saved(a)));
        chosen
    }

    fn to_text(&self, place: &str) -> String {
        let chosen = self.chosen();
        let mut text = format!(
            "{} of {} kernels have a faster choice on {} thread{}\n",
            chosen.len(),
            self.kernels.len(),
            self.threads,
            if self.threads == 1 { "" } else { "s" }
        );
        if !chosen.is_empty() {
            let _ =
                writeln!(text, "{:>10} {:>10} {:>7} {:>6}  kernel: choice", "us before", "us after", "gain", "times");
        }
        // Writing to a String cannot fail.
        for kernel in chosen {
            let (Measured { tuned, usual, .. }, Some(choice)) = (kernel.tuned.measured, kernel.tuned.choice) else {
                continue;
            };
            let gain = 100.0 * (1.0 - tuned / usual);
            let name = kernel.names.first().map_or("", |name| name);
            let _ =
                writeln!(text, "{usual:>10.1} {tuned:>10.1} {gain:>5.1} % {:>6}  {name}: {choice}", kernel.names.len());
        }
        let gain = 100.0 * (1.0 - self.after / self.before);
        let _ = writeln!(text, "whole run: {:.3} ms before, {:.3} ms after, {gain:.1} %", self.before, self.after);
        if gain <= 0.0 {
            text.push_str("no choice is kept, since the whole is not faster\n");
        }
        let _ = writeln!(text, "{place}");
        text
    }

    fn to_json(&self, place: &str) -> Value {
        let kernel = |kernel: &Kernel| {
            json!({
                "kernels": kernel.names,
                "choice": kernel.tuned.choice.map(|choice| choice.to_string()),
                "before_us": kernel.tuned.measured.usual,
                "after_us": kernel.tuned.measured.tuned,
            })
        };
        json!({
            "threads": self.threads,
            "before_ms": self.before,
            "after_ms": self.after,
            "kernels": self.kernels.iter().map(kernel).collect::<Vec<_>>(),
            "cache": place,
        })
    }
}
