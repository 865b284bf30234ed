//! What this machine can do at most: multiply-adds, bandwidth of caches and memory, and the price of a fork.
//!
//! Each figure is the best of several rounds, since a ceiling is what is asked for. Threads are started for the
//! measurement, each with arrays of its own that it has touched first; a round begins at a barrier and ends when the last
//! thread is done.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_ir::{DType, TensorType};

use crate::arena::OutOfMemory;
use crate::kernels::limits::{CHUNK, Limits};
use crate::kernels::{Kernels, Level};
use crate::pool::Pool;
use crate::tensor::Tensor;

/// Ceilings for one number of threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Threads that work at the same time.
    pub threads: usize,
    /// Floating point operations on `f32` per second, in units of 10^9; a multiply-add is two.
    pub gflops: f64,
    /// Arrays that fit the second-level cache of each thread.
    pub l2: Bandwidth,
    /// Arrays that fit the last-level cache together.
    pub l3: Bandwidth,
    /// Arrays that fit no cache.
    pub dram: Bandwidth,
}

/// Bytes per second, read and written together, in units of 10^9. What the memory system moves unasked, such as the
/// old contents of a line that is written, is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bandwidth {
    /// One array read.
    pub read: f64,
    /// `a = b`
    pub copy: f64,
    /// `a = b + s c`
    pub triad: f64,
}

impl Bandwidth {
    /// The largest of the three: no mix of reads and writes was seen to be faster.
    pub fn most(&self) -> f64 {
        self.read.max(self.copy).max(self.triad)
    }
}

/// Sizes of the caches in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    /// Second level, of one core.
    pub l2: usize,
    /// Last level.
    pub l3: usize,
}

impl Caches {
    /// As the system describes the first processor; where it does not, 1 MiB and 32 MiB.
    pub fn detect() -> Caches {
        let size = |level: &str| {
            (0..8).find_map(|index| {
                let folder = format!("/sys/devices/system/cpu/cpu0/cache/index{index}");
                let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).ok();
                let found = read("level")?.trim() == level && read("type")?.trim() != "Instruction";
                found.then(|| parse_size(read("size")?.trim())).flatten()
            })
        };
        let l2 = size("2").unwrap_or(1 << 20);
        Caches { l2, l3: size("3").unwrap_or(32 << 20).max(l2) }
    }
}

/// What tells processors apart whose kernels differ in speed: as the system describes the first one, and its caches.
pub fn processor() -> String {
    const FIELDS: [&str; 8] =
        ["vendor_id", "cpu family", "model", "model name", "stepping", "CPU implementer", "CPU variant", "CPU part"];
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let fields = text.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
    let fields = fields.filter(|(name, _)| FIELDS.contains(&name.trim()));
    let named: Vec<&str> = fields.map(|(_, value)| value.trim()).collect();
    let Caches { l2, l3 } = Caches::detect();
    format!("{} {}, caches of {l2} and {l3} bytes", std::env::consts::ARCH, named.join(" "))
}

/// `32768K` in bytes.
fn parse_size(text: &str) -> Option<usize> {
    let (digits, unit) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

/// Measures this machine at one level of instructions.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// The instructions in use.
    pub level: Level,
    /// Sizes of its caches.
    pub caches: Caches,
    limits: Limits,
    budget: Duration,
}

/// Rounds of each figure: one to warm up, the rest to choose the best of, as many as the budget allows.
const FEWEST_ROUNDS: u32 = 3;
const MOST_ROUNDS: u32 = 40;
/// Length of one round, so long that starting together and the clock do not matter.
const ROUND: Duration = Duration::from_millis(6);
/// Arrays of a DRAM stream together, in last-level caches: what stays in the cache from one pass to the next is lost in
/// the noise then.
const CACHES_OF_DRAM: usize = 12;
/// They are not larger than this.
const MOST_BYTES: usize = 1 << 30;

impl Machine {
    /// The machine at a level; each figure may take about `budget`.
    pub fn new(level: Level, budget: Duration) -> Machine {
        let kernels = Kernels::for_level(level);
        let level = kernels.map_or(Level::None, |kernels| kernels.level);
        Machine { level, caches: Caches::detect(), limits: Limits::of(kernels), budget }
    }

    /// The ceilings of `threads` threads.
    ///
    /// # Errors
    /// [`OutOfMemory`] if there is no room for arrays that fit no cache.
    pub fn ceilings(&self, threads: usize) -> Result<Ceilings, OutOfMemory> {
        let threads = threads.max(1);
        let Caches { l2, l3 } = self.caches;
        // Half of a cache: the rest is for the stack, the system, and lines that fall on the same set.
        let in_l3 = (l3 / 4 / threads).max(2 * l2);
        let in_dram = (CACHES_OF_DRAM * l3).min(MOST_BYTES) / threads;
        Ok(Ceilings {
            threads,
            gflops: self.gflops(threads),
            l2: self.bandwidth(threads, l2 / 2)?,
            l3: self.bandwidth(threads, in_l3)?,
            dram: self.bandwidth(threads, in_dram.max(in_l3))?,
        })
    }

    fn gflops(&self, threads: usize) -> f64 {
        let rounds = calibrate(|rounds| self.limits.fma(rounds));
        let [seconds] = self.best(threads, || (), &[&|()| self.limits.fma(rounds)]);
        (self.limits.flops * rounds) as f64 * threads as f64 / seconds * 1e-9
    }

    /// The three streams, over arrays of `bytes` together for each thread.
    fn bandwidth(&self, threads: usize, bytes: usize) -> Result<Bandwidth, OutOfMemory> {
        // Whole chunks for one, two and three arrays.
        let len = (bytes / 4 / (6 * CHUNK)).max(1) * 6 * CHUNK;
        let moved = (4 * len) as f64;
        let passes = self.passes(moved);
        let read = |all: &mut Array| self.limits.read(all);
        let copy = |all: &mut Array| {
            let (to, from) = all.split_at_mut(len / 2);
            self.limits.copy(from, to);
        };
        let triad = |all: &mut Array| {
            let (to, from) = all.split_at_mut(len / 3);
            let (a, b) = from.split_at(len / 3);
            self.limits.triad(a, b, to);
        };
        let again = |body: &dyn Fn(&mut Array), all: &mut Array| (0..passes).for_each(|_| body(all));
        let arrays = Mutex::new((0..threads).map(|_| Array::new(len)).collect::<Result<Vec<_>, _>>()?);
        let own = || {
            let mut all = arrays.lock().unwrap_or_else(PoisonError::into_inner);
            let mut own = all.pop().unwrap_or_default();
            drop(all);
            // The thread that uses an array touches it first.
            own.fill(1.0);
            own
        };
        let bodies: [&(dyn Fn(&mut Array) + Sync); 3] =
            [&|all| again(&read, all), &|all| again(&copy, all), &|all| again(&triad, all)];
        let seconds = self.best(threads, own, &bodies);
        let [read, copy, triad] = seconds.map(|seconds| moved * passes as f64 * threads as f64 / seconds * 1e-9);
        Ok(Bandwidth { read, copy, triad })
    }

    /// How often a stream of `bytes` runs in one round, by the speed of a cache.
    fn passes(&self, bytes: f64) -> usize {
        const BYTES_PER_SECOND: f64 = 5e10;
        (ROUND.as_secs_f64() * BYTES_PER_SECOND / bytes).ceil().max(1.0) as usize
    }

    /// Seconds of the fastest round of each body on `threads` threads. Each thread makes its own state, then waits for the
    /// others before every round; a round takes as long as its slowest thread.
    fn best<S, const N: usize>(
        &self,
        threads: usize,
        state: impl Fn() -> S + Sync,
        bodies: &[&(dyn Fn(&mut S) + Sync); N],
    ) -> [f64; N] {
        let barrier = Barrier::new(threads);
        let rounds: Vec<Rounds> = bodies.iter().map(|_| Rounds::default()).collect();
        let work = || {
            let mut own = state();
            for (body, rounds) in bodies.iter().zip(&rounds) {
                body(&mut own);
                barrier.wait();
                rounds.run(&barrier, self.budget, || body(&mut own));
            }
        };
        std::thread::scope(|scope| {
            (1..threads).for_each(|_| {
                scope.spawn(work);
            });
            work();
        });
        std::array::from_fn(|number| rounds.get(number).map_or(f64::NAN, Rounds::best))
    }

    /// Microseconds from handing a launch of one tile per worker to the pool until all of them have run theirs, while
    /// the workers are awake: the median of many. 0 for one thread, which forks nothing.
    ///
    /// # Errors
    /// The system's, if a thread cannot be started.
    pub fn fork_join_us(&self, threads: usize) -> std::io::Result<f64> {
        if threads < 2 {
            return Ok(0.0);
        }
        let mut pool = Pool::new(threads)?;
        let mut times = Vec::new();
        let begin = Instant::now();
        while times.len() < 2000 && (times.is_empty() || begin.elapsed() < self.budget) {
            let inside = AtomicU64::new(0);
            let task = |_: usize, _: u64, _: u64| {
                // Nobody does another's tile: each waits until all have come.
                inside.fetch_add(1, Ordering::SeqCst);
                while inside.load(Ordering::SeqCst) < threads as u64 {
                    std::thread::yield_now();
                }
            };
            let start = Instant::now();
            // A task that does nothing cannot panic.
            let _ = pool.run(threads as u64, &task);
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Ok(times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e6))
    }
}

/// Elements of one thread, 64-byte aligned.
#[derive(Default)]
struct Array(Option<Tensor>);

impl Array {
    fn new(len: usize) -> Result<Array, OutOfMemory> {
        let out = |_| OutOfMemory { bytes: 4 * len };
        Ok(Array(Some(Tensor::zeros(TensorType::new(DType::F32, [len])).map_err(out)?)))
    }
}

impl Deref for Array {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.as_ref().and_then(|tensor| tensor.as_slice().ok()).unwrap_or_default()
    }
}

impl DerefMut for Array {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.0.as_mut().and_then(|tensor| tensor.as_mut_slice().ok()).unwrap_or_default()
    }
}

/// Times of the rounds of one body.
struct Rounds {
    /// Nanoseconds of each round's slowest thread; 0 for those that did not run.
    slowest: Vec<AtomicU64>,
    /// The last round.
    last: AtomicU64,
}

impl Default for Rounds {
    fn default() -> Rounds {
        let slowest = (0..MOST_ROUNDS).map(|_| AtomicU64::new(0)).collect();
        Rounds { slowest, last: AtomicU64::new(u64::from(MOST_ROUNDS)) }
    }
}

impl Rounds {
    /// Runs `body` round by round, together with the other threads of `barrier`, until the budget is used up.
    fn run(&self, barrier: &Barrier, budget: Duration, mut body: impl FnMut()) {
        let begin = Instant::now();
        for (round, slowest) in (1_u64..).zip(&self.slowest) {
            barrier.wait();
            if round > self.last.load(Ordering::SeqCst) {
                break;
            }
            let start = Instant::now();
            body();
            slowest.fetch_max(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            let leads = barrier.wait().is_leader();
            if leads && begin.elapsed() > budget && round >= u64::from(FEWEST_ROUNDS) {
                // Everyone sees it behind the next barrier.
                self.last.store(round, Ordering::SeqCst);
            }
        }
    }

    /// Seconds of the fastest round.
    fn best(&self) -> f64 {
        let measured = self.slowest.iter().map(|time| time.load(Ordering::Relaxed)).filter(|time| *time > 0);
        measured.min().map_or(f64::NAN, |nanoseconds| nanoseconds as f64 * 1e-9)
    }
}

/// How many rounds of `body` take about [`ROUND`].
fn calibrate(body: impl Fn(u64)) -> u64 {
    let mut rounds = 1024;
    loop {
        let start = Instant::now();
        body(rounds);
        let elapsed = start.elapsed();
        if elapsed * 4 > ROUND || rounds > 1 << 40 {
            let scale = ROUND.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
            return ((rounds as f64 * scale) as u64).max(1);
        }
        rounds *= 2;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]
    use super::*;

    #[test]
    fn sizes_are_read_as_the_system_writes_them() {
        assert_eq!(parse_size("48K"), Some(48 * 1024));
        assert_eq!(parse_size("32M"), Some(32 << 20));
        assert_eq!(parse_size("512"), Some(512));
        assert_eq!(parse_size("K"), None);
    }

    #[test]
    fn streams_do_what_their_names_say() {
        for level in Level::ALL.into_iter().filter(|level| level.available()) {
            let limits = Machine::new(level, Duration::ZERO).limits;
            let a: Vec<f32> = (0..3 * CHUNK).map(|i| i as f32).collect();
            let b = vec![4.0_f32; 3 * CHUNK];
            let mut to = vec![0.0_f32; 3 * CHUNK];
            limits.copy(&a, &mut to);
            assert_eq!(to, a, "{level}");
            limits.triad(&a, &b, &mut to);
            assert!((0..).zip(&to).all(|(i, x)| *x == i as f32 + 2.0), "{level}");
            limits.read(&to);
            // Whole chunks only: the rest stays as it was.
            let mut short = vec![-1.0_f32; CHUNK + 5];
            limits.copy(&a, &mut short);
            assert_eq!((short[CHUNK - 1], short[CHUNK]), ((CHUNK - 1) as f32, -1.0), "{level}");
        }
    }

    #[test]
    fn every_ceiling_is_a_number_above_zero() {
        let mut machine = Machine::new(Level::Portable, Duration::ZERO);
        machine.caches = Caches { l2: 64 << 10, l3: 256 << 10 };
        let Ceilings { gflops, l2, l3, dram, .. } = machine.ceilings(2).unwrap();
        for figure in [gflops, l2.most(), l3.most(), dram.read, dram.copy, dram.triad] {
            assert!(figure.is_finite() && figure > 0.0, "{figure}");
        }
        assert_eq!(machine.fork_join_us(1).unwrap(), 0.0);
        assert!(machine.fork_join_us(2).unwrap() > 0.0);
    }
}
