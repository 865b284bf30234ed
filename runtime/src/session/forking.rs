//! Which launches are shared among the workers: by the time that whole runs take.
//!
//! What a fork costs is not known ahead. Two cores of one cache hand a line over in 100 nanoseconds, two without a common
//! cache in 400 to 900; then a depthwise convolution of 13 microseconds took 25 on two, and the next launch finds half of its
//! operands with the other core. A host may move virtual processors from one state to the other at any time. So launches are
//! timed on one core in a few runs, then whole runs by each of some thresholds, and the fastest threshold stays for a while.
//! A tile gives the same bits on any worker, so none depends on this.

use std::time::Duration;

use crate::executable::Launch;

/// A launch that one core finishes in less than the threshold in force, in nanoseconds, runs on the caller's thread.
const THRESHOLDS: [u64; 4] = [2_000, 6_000, 18_000, LONG];
/// The threshold of the first runs.
const FIRST: usize = 1;
/// A launch of so many nanoseconds on one core is shared by every threshold.
const LONG: u64 = 54_000;

/// Usual speed of one core, for the first run: operations and bytes per nanosecond.
const USUAL: [u64; 2] = [16, 12];
/// Speed that no core exceeds by much. A launch that is long even so is shared: to try it alone would be noticed.
const MOST: [u64; 2] = [150, 100];

/// Runs by estimate, which bring code and data into the caches.
const WARM_RUNS: usize = 1;
/// Runs in which each launch is timed on one core; the shortest time counts.
const LEARNING_RUNS: usize = 3;
/// How often the thresholds are tried in turn, so that all of them meet the same moods of the machine.
const ROUNDS: usize = 3;
/// Runs by a threshold in each round. In the first of them a worker that slept is woken, which takes as long as 3
/// milliseconds where its processor slept too: no part of what a fork costs.
const ROUND_RUNS: usize = 4;
/// Runs by each threshold of which the median counts.
const TRIALS: usize = ROUNDS * (ROUND_RUNS - 1);
/// Runs in which thresholds are tried.
const TRIAL_RUNS: usize = ROUNDS * ROUND_RUNS * THRESHOLDS.len();
/// Runs by the fastest threshold before the trials are repeated.
const SETTLED_RUNS: usize = 2_000;
/// What a threshold must take at most of the time by the one in force to replace it, in percent.
const BETTER: u64 = 98;

/// The decision for one program.
pub(super) struct Forking {
    launches: Vec<Sharing>,
    phase: Phase,
    /// Runs of this phase so far.
    runs: usize,
    /// Number of the threshold in force.
    threshold: usize,
    /// Nanoseconds of the trials by each threshold.
    trials: [[u64; TRIALS]; THRESHOLDS.len()],
}

/// How one launch is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Alone,
    Forked,
    /// By its nanoseconds on one core, first estimated, then measured.
    Judged(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Warm,
    Learning,
    Trials,
    Settled,
}

impl Forking {
    /// For the launches of a program on so many workers.
    pub(super) fn new(launches: &[Launch], workers: usize) -> Forking {
        let sharing = |launch: &Launch| {
            let time = |[flops, bytes]: [u64; 2]| (launch.flops / flops).max(launch.bytes / bytes);
            match launch.forks {
                _ if launch.tiles < 2 || workers < 2 => Sharing::Alone,
                Some(true) => Sharing::Forked,
                Some(false) => Sharing::Alone,
                None if time(MOST) >= LONG => Sharing::Forked,
                None => Sharing::Judged(time(USUAL)),
            }
        };
        let launches: Vec<Sharing> = launches.iter().map(sharing).collect();
        let judges = launches.iter().any(|sharing| matches!(sharing, Sharing::Judged(_)));
        Forking {
            launches,
            phase: if judges { Phase::Warm } else { Phase::Settled },
            runs: 0,
            threshold: FIRST,
            trials: Default::default(),
        }
    }

    /// Whether a launch is shared in the current run.
    pub(super) fn forks(&self, launch: usize) -> bool {
        let threshold = match self.phase {
            Phase::Learning => None,
            Phase::Trials => Some(tried(self.runs).0),
            Phase::Warm | Phase::Settled => Some(self.threshold),
        };
        match self.launches.get(launch) {
            Some(Sharing::Forked) => true,
            Some(Sharing::Judged(time)) => threshold.is_some_and(|threshold| *time >= THRESHOLDS[threshold]),
            _ => false,
        }
    }

    /// Whether the current run wants the time of each launch.
    pub(super) fn times_launches(&self) -> bool {
        self.phase == Phase::Learning
    }

    /// A launch of the current run has taken so long.
    pub(super) fn launch_took(&mut self, launch: usize, time: Duration) {
        let first = self.runs == 0;
        let Some(sharing) = self.launches.get_mut(launch) else { return };
        if let (Sharing::Judged(known), Phase::Learning) = (*sharing, self.phase) {
            let least = if first { nanoseconds(time) } else { known.min(nanoseconds(time)) };
            // A long one is not run alone again, not even to learn how long it takes.
            *sharing = if least >= LONG { Sharing::Forked } else { Sharing::Judged(least) };
        }
    }

    /// The current run is over and has taken so long. Decides about the next one.
    pub(super) fn run_took(&mut self, time: Duration) {
        let run = self.runs;
        self.runs += 1;
        let (end, next) = match self.phase {
            Phase::Warm => (WARM_RUNS, Phase::Learning),
            Phase::Learning => (LEARNING_RUNS, Phase::Trials),
            Phase::Trials => (TRIAL_RUNS, Phase::Settled),
            Phase::Settled => (SETTLED_RUNS, Phase::Trials),
        };
        if let (Phase::Trials, (threshold, Some(trial))) = (self.phase, tried(run)) {
            self.trials[threshold][trial] = nanoseconds(time);
        }
        if self.runs < end {
            return;
        }
        if self.phase == Phase::Trials {
            self.threshold = self.fastest();
        }
        let tries = next != Phase::Trials || self.thresholds_differ();
        (self.phase, self.runs) = (if tries { next } else { Phase::Settled }, 0);
    }

    /// Whether the thresholds share different launches.
    fn thresholds_differ(&self) -> bool {
        let between = THRESHOLDS[0]..LONG;
        self.launches.iter().any(|sharing| matches!(sharing, Sharing::Judged(time) if between.contains(time)))
    }

    /// The threshold of the fastest trials; the one in force where none is clearly faster.
    fn fastest(&self) -> usize {
        let median = |threshold: usize| {
            let mut times = self.trials[threshold];
            times.sort_unstable();
            times[TRIALS / 2]
        };
        let better = |best: usize, other: usize| {
            let limit = median(best).saturating_mul(if best == self.threshold { BETTER } else { 100 });
            if median(other).saturating_mul(100) < limit { other } else { best }
        };
        (0..THRESHOLDS.len()).fold(self.threshold, better)
    }
}

/// The threshold that a run of the trials goes by, and which of its trials it is, if it counts.
fn tried(run: usize) -> (usize, Option<usize>) {
    let (turn, place) = (run / ROUND_RUNS, run % ROUND_RUNS);
    let (round, threshold) = (turn / THRESHOLDS.len(), turn % THRESHOLDS.len());
    (threshold, place.checked_sub(1).map(|trial| round * (ROUND_RUNS - 1) + trial))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(tiles: u64, bytes: u64, forks: Option<bool>) -> Launch {
        Launch {
            name: "k".to_owned(),
            entry: 0,
            slots: Vec::new(),
            tiles,
            forks,
            scratch_bytes: 0,
            flops: 0,
            bytes,
            source: None,
            sites: Vec::new(),
        }
    }

    /// Runs a program whose launches take `alone` nanoseconds on one core, half of that and `fork` on two, and returns
    /// which of them are shared in the end.
    fn settle(forking: &mut Forking, alone: &[u64], fork: u64, runs: usize) -> Vec<bool> {
        let shared = |forking: &Forking| (0..alone.len()).map(|launch| forking.forks(launch)).collect::<Vec<bool>>();
        for _ in 0..runs {
            let times =
                alone.iter().zip(shared(forking)).map(|(time, forks)| if forks { time / 2 + fork } else { *time });
            let times: Vec<u64> = times.collect();
            if forking.times_launches() {
                times.iter().enumerate().for_each(|(i, time)| forking.launch_took(i, Duration::from_nanos(*time)));
            }
            forking.run_took(Duration::from_nanos(times.iter().sum()));
        }
        shared(forking)
    }

    const RUNS: usize = WARM_RUNS + LEARNING_RUNS + TRIAL_RUNS;

    #[test]
    fn the_first_run_goes_by_estimates() {
        let launches = [launch(1, 1 << 40, None), launch(64, 1000, None), launch(2, 1 << 20, None)];
        let forking = Forking::new(&launches, 2);
        assert_eq!([0, 1, 2].map(|launch| forking.forks(launch)), [false, false, true]);
        assert!(![0, 1, 2].iter().any(|&number| Forking::new(&launches, 1).forks(number)), "one worker");
    }

    #[test]
    fn what_a_fork_costs_decides() {
        let alone = [1_000, 5_000, 12_000, 30_000, 60_000];
        let launches = alone.map(|time| launch(8, 10 * time, None));
        // A fork pays from twice its cost on.
        for (fork, shared) in [
            (500, [false, true, true, true, true]),
            (2_400, [false, false, true, true, true]),
            (8_000, [false, false, false, true, true]),
            (20_000, [false, false, false, false, true]),
        ] {
            let mut forking = Forking::new(&launches, 2);
            assert_eq!(settle(&mut forking, &alone, fork, RUNS), shared, "a fork of {fork} ns");
        }
    }

    #[test]
    fn waking_a_worker_is_no_part_of_what_a_fork_costs() {
        let mut forking = Forking::new(&[launch(8, 48_000, None)], 2);
        let mut forked = false;
        for _ in 0..RUNS {
            let waked = forking.forks(0) && !forked;
            forked = forking.forks(0);
            let time = Duration::from_nanos(if forked { 2_500 } else { 4_000 } + if waked { 3_000_000 } else { 0 });
            if forking.times_launches() {
                forking.launch_took(0, time);
            }
            forking.run_took(time);
        }
        assert!(forking.forks(0));
    }

    #[test]
    fn another_state_of_the_machine_is_noticed() {
        let alone = [10_000, 30_000];
        let mut forking = Forking::new(&alone.map(|time| launch(8, 10 * time, None)), 2);
        assert_eq!(settle(&mut forking, &alone, 500, RUNS), [true, true]);
        assert_eq!(settle(&mut forking, &alone, 20_000, SETTLED_RUNS + RUNS), [false, false]);
        assert_eq!(settle(&mut forking, &alone, 500, SETTLED_RUNS + RUNS), [true, true]);
    }

    #[test]
    fn differences_within_the_noise_change_nothing() {
        // The larger launch hides what a fork of the smaller one costs or saves.
        let alone = [10_000, 4_000_000];
        let mut forking = Forking::new(&alone.map(|time| launch(8, 10 * time, None)), 2);
        assert_eq!(settle(&mut forking, &alone, 10_000, RUNS), [true, true]);
    }

    #[test]
    fn choices_of_the_plan_stay() {
        let launches = [launch(8, 1, Some(true)), launch(8, 1 << 40, Some(false)), launch(8, 1 << 40, None)];
        let mut forking = Forking::new(&launches, 2);
        assert_eq!(settle(&mut forking, &[1_000, 1_000_000, 1_000_000], 100_000, RUNS), [true, false, true]);
        assert!(!forking.times_launches());
    }

    #[test]
    fn a_long_launch_is_alone_once() {
        // Estimated at a microsecond.
        let mut forking = Forking::new(&[launch(8, 12_000, None)], 2);
        forking.run_took(Duration::ZERO);
        assert!(forking.times_launches() && !forking.forks(0));
        forking.launch_took(0, Duration::from_millis(1));
        forking.run_took(Duration::from_millis(1));
        assert!(forking.forks(0));
    }
}
