//! Times of a program, launch by launch.

use std::time::Duration;

use crate::executable::Launch;

/// How long a program and each of its launches took.
#[derive(Clone, Debug)]
pub struct Profile {
    /// In order of execution.
    pub launches: Vec<LaunchTimes>,
    /// Time of each whole run, sorted; checks of the inputs included.
    pub totals: Vec<Duration>,
}

/// How long one launch took.
#[derive(Clone, Debug)]
pub struct LaunchTimes {
    /// Name of the kernel.
    pub name: String,
    /// Script line of the kernel's root.
    pub source: Option<String>,
    /// Arithmetic operations.
    pub flops: u64,
    /// Compulsory memory traffic in bytes.
    pub bytes: u64,
    /// Number of tiles.
    pub tiles: u64,
    /// Time of each run, sorted.
    pub times: Vec<Duration>,
}

impl LaunchTimes {
    pub(crate) fn new(launch: &Launch) -> LaunchTimes {
        LaunchTimes {
            name: launch.name.clone(),
            source: launch.source.clone(),
            flops: launch.flops,
            bytes: launch.bytes,
            tiles: launch.tiles,
            times: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, time: Duration) {
        self.times.push(time);
    }

    /// Median time.
    pub fn median(&self) -> Duration {
        median(&self.times)
    }

    /// Arithmetic operations per second at the median time, in units of 10^9.
    pub fn gflops(&self) -> f64 {
        self.flops as f64 / self.median().as_nanos().max(1) as f64
    }
}

impl Profile {
    pub(crate) fn new(mut launches: Vec<LaunchTimes>, mut totals: Vec<Duration>) -> Profile {
        launches.iter_mut().for_each(|launch| launch.times.sort_unstable());
        totals.sort_unstable();
        Profile { launches, totals }
    }

    /// Median time of a run.
    pub fn median(&self) -> Duration {
        median(&self.totals)
    }

    /// Shortest time of a run.
    pub fn min(&self) -> Duration {
        self.totals.first().copied().unwrap_or_default()
    }

    /// Arithmetic operations per second at the median time, in units of 10^9.
    pub fn gflops(&self) -> f64 {
        let flops: u64 = self.launches.iter().map(|launch| launch.flops).sum();
        flops as f64 / self.median().as_nanos().max(1) as f64
    }
}

/// The middle of sorted times; of an even number, the later of the two.
fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
