//! Worker threads and the fork-join over the tiles of a launch.
//!
//! The tiles are divided into one contiguous range per worker, so that a worker meets the same part of a tensor in
//! launch after launch; who is done early takes what is left of the others' ranges. Tiles are independent, therefore
//! no result depends on who ran them.
//!
//! The caller is worker 0. It opens a *gate* that the others pass by incrementing a count, closes it when no tile is
//! left to take, and waits for those who passed. A worker that is asleep or without a processor never delays a launch.
#![allow(unsafe_code, reason = "lends the caller's closure to the workers")]

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};

/// How often a worker looks at the gate before it parks: about 40 microseconds, longer than the gap between launches.
const SPINS: u32 = 2000;

/// Bit of the gate word that says that workers may still pass.
const OPEN: u64 = 1 << 16;
/// Bits of the gate word that count the workers that passed.
const PASSED: u64 = OPEN - 1;
/// One more launch, in the gate word.
const EPOCH: u64 = 1 << 17;

/// What a worker runs: `(worker, begin, end)`.
type Task<'a> = dyn Fn(usize, u64, u64) + Sync + 'a;

/// A worker panicked: a defect in Kiln, since kernels report through their status word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker {worker} panicked; this is a defect in Kiln")]
pub struct WorkerPanicked {
    /// Which worker; 0 is the caller.
    pub worker: usize,
}

/// A fixed number of workers, the calling thread included.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    handles: Vec<Thread>,
}

struct Shared {
    gate: AtomicU64,
    finished: AtomicU64,
    stop: AtomicBool,
    task: UnsafeCell<Option<&'static Task<'static>>>,
    workers: Vec<Worker>,
    spins: u32,
}

// SAFETY: `task` is written only while the gate is closed and nobody is behind it, and read only behind it.
unsafe impl Sync for Shared {}
// SAFETY: the task it may hold is Sync, and its lifetime is ended by `Pool::run`.
unsafe impl Send for Shared {}

/// A cache line of its own for each worker.
#[repr(align(128))]
#[derive(Default)]
struct Worker {
    next: AtomicU64,
    end: AtomicU64,
    tiles: AtomicU64,
    parked: AtomicBool,
    panicked: AtomicBool,
}

impl Pool {
    /// A pool of `threads` workers, at least one: the caller.
    ///
    /// # Errors
    /// The system's, if a thread cannot be started.
    pub fn new(threads: usize) -> std::io::Result<Pool> {
        let threads = threads.clamp(1, PASSED as usize);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            task: UnsafeCell::new(None),
            workers: (0..threads).map(|_| Worker::default()).collect(),
            spins: if threads <= processors { SPINS } else { 0 },
        });
        let mut pool = Pool { shared, threads: Vec::new(), handles: Vec::new() };
        for worker in 1..threads {
            let shared = pool.shared.clone();
            let name = format!("kiln-worker-{worker}");
            let thread = std::thread::Builder::new().name(name).spawn(move || shared.work(worker))?;
            pool.handles.push(thread.thread().clone());
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Number of workers, the caller included.
    pub fn threads(&self) -> usize {
        self.shared.workers.len()
    }

    /// Tiles that each worker has run since the pool was made.
    pub fn tiles_run(&self) -> Vec<u64> {
        self.shared.workers.iter().map(|worker| worker.tiles.load(Ordering::Relaxed)).collect()
    }

    /// Runs `task(worker, begin, end)` over a partition of `0..tiles`, and returns when all of it is done. No two
    /// calls at the same time have the same worker. Allocates nothing.
    ///
    /// # Errors
    /// [`WorkerPanicked`] if the task panicked anywhere; its tiles are then incomplete.
    pub fn run(&mut self, tiles: u64, task: &Task<'_>) -> Result<(), WorkerPanicked> {
        if self.threads() == 1 || tiles <= 1 {
            return self.run_here(tiles, task);
        }
        let shared = &*self.shared;
        shared.divide(tiles);
        // SAFETY: only the lifetime changes; `close` below ends all use of the task before this function returns,
        // since `take_tiles` does not unwind.
        let lent = unsafe { std::mem::transmute::<&Task<'_>, &'static Task<'static>>(task) };
        // SAFETY: the gate is closed and everyone who passed has finished, so nobody reads it now.
        unsafe { *shared.task.get() = Some(lent) };
        shared.finished.store(0, Ordering::Relaxed);
        let epoch = shared.gate.load(Ordering::Relaxed) & !(OPEN | PASSED);
        shared.gate.store(epoch.wrapping_add(EPOCH) | OPEN, Ordering::SeqCst);
        for (worker, thread) in shared.workers.iter().skip(1).zip(&self.handles) {
            if worker.parked.load(Ordering::SeqCst) && worker.parked.swap(false, Ordering::SeqCst) {
                thread.unpark();
            }
        }
        shared.take_tiles(0, lent);
        shared.close();
        self.shared.report()
    }

    /// Runs all tiles on the calling thread.
    ///
    /// # Errors
    /// [`WorkerPanicked`] if the task panicked.
    pub fn run_here(&mut self, tiles: u64, task: &Task<'_>) -> Result<(), WorkerPanicked> {
        if tiles == 0 {
            return Ok(());
        }
        self.shared.call(0, 0, tiles, task);
        self.shared.report()
    }
}

impl Shared {
    /// One contiguous range per worker, the first ones larger by one tile.
    fn divide(&self, tiles: u64) {
        let count = self.workers.len() as u64;
        let (share, rest) = (tiles / count, tiles % count);
        let mut begin = 0;
        for (i, worker) in (0_u64..).zip(&self.workers) {
            let end = begin + share + u64::from(i < rest);
            worker.next.store(begin, Ordering::Relaxed);
            worker.end.store(end, Ordering::Relaxed);
            begin = end;
        }
    }

    /// Runs the worker's own range in a few pieces, then pieces of the others' until nothing is left.
    fn take_tiles(&self, me: usize, task: &Task<'_>) {
        let (before, from) = self.workers.split_at(me);
        for victim in from.iter().chain(before) {
            let end = victim.end.load(Ordering::Relaxed);
            let left = end.saturating_sub(victim.next.load(Ordering::Relaxed));
            let piece = left.div_ceil(4).max(1);
            loop {
                let begin = victim.next.fetch_add(piece, Ordering::Relaxed);
                if begin >= end {
                    break;
                }
                self.call(me, begin, end.min(begin + piece), task);
            }
        }
    }

    /// One call of the task; a panic is kept for [`Shared::report`].
    fn call(&self, me: usize, begin: u64, end: u64, task: &Task<'_>) {
        let Some(worker) = self.workers.get(me) else { return };
        if catch_unwind(AssertUnwindSafe(|| task(me, begin, end))).is_err() {
            worker.panicked.store(true, Ordering::Relaxed);
        }
        worker.tiles.fetch_add(end - begin, Ordering::Relaxed);
    }

    /// Lets nobody else pass and waits for those who did.
    fn close(&self) {
        let passed = self.gate.fetch_and(!OPEN, Ordering::AcqRel) & PASSED;
        let mut looks = 0_u32;
        while self.finished.load(Ordering::Acquire) != passed {
            looks = looks.saturating_add(1);
            if looks > self.spins { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }

    fn report(&self) -> Result<(), WorkerPanicked> {
        match self.workers.iter().position(|worker| worker.panicked.swap(false, Ordering::Relaxed)) {
            Some(worker) => Err(WorkerPanicked { worker }),
            None => Ok(()),
        }
    }

    /// Life of a worker thread.
    fn work(&self, me: usize) {
        let mut seen = 0;
        while let Some(gate) = self.wait(me, seen) {
            seen = gate & !(OPEN | PASSED);
            if let Some(task) = self.pass(seen) {
                self.take_tiles(me, task);
                self.finished.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// Waits for a launch after `seen`; `None` when the pool is dropped.
    fn wait(&self, me: usize, seen: u64) -> Option<u64> {
        let worker = self.workers.get(me)?;
        let mut looks = 0_u32;
        loop {
            if self.stop.load(Ordering::Acquire) {
                return None;
            }
            let gate = self.gate.load(Ordering::SeqCst);
            if gate & OPEN != 0 && gate & !(OPEN | PASSED) != seen {
                worker.parked.store(false, Ordering::Relaxed);
                return Some(gate);
            }
            looks = looks.saturating_add(1);
            if looks <= self.spins {
                std::hint::spin_loop();
            } else if worker.parked.swap(true, Ordering::SeqCst) {
                // Parked was set one look ago, and the gate has been looked at since: a launch after that unparks.
                std::thread::park();
                looks = 0;
            }
        }
    }

    /// Passes the gate if launch `epoch` is still open.
    fn pass(&self, epoch: u64) -> Option<&'static Task<'static>> {
        let mut gate = self.gate.load(Ordering::Acquire);
        while gate & OPEN != 0 && gate & !(OPEN | PASSED) == epoch {
            match self.gate.compare_exchange_weak(gate, gate + 1, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: behind the gate nobody writes the task, and the caller waits for us to finish.
                Ok(_) => return unsafe { *self.task.get() },
                Err(now) => gate = now,
            }
        }
        None
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn every_tile_runs_once_for_every_count() {
        for threads in [1, 2, 3, 5] {
            let mut pool = Pool::new(threads).unwrap();
            for tiles in [0, 1, 2, 3, 7, 64, 1000] {
                let counts: Vec<AtomicU64> = (0..tiles).map(|_| AtomicU64::new(0)).collect();
                let task = |_: usize, begin: u64, end: u64| {
                    for tile in begin..end {
                        counts[tile as usize].fetch_add(1, Ordering::Relaxed);
                    }
                };
                for _ in 0..50 {
                    pool.run(tiles, &task).unwrap();
                }
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 50), "{threads} {tiles}");
            }
            assert_eq!(pool.tiles_run().iter().sum::<u64>(), 50 * (1 + 2 + 3 + 7 + 64 + 1000));
        }
    }

    #[test]
    fn every_worker_takes_part() {
        let mut pool = Pool::new(3).unwrap();
        // Each tile waits until all three workers are inside, which only ends if each of them takes one.
        let inside = AtomicU64::new(0);
        let task = |_: usize, _: u64, _: u64| {
            inside.fetch_add(1, Ordering::SeqCst);
            while inside.load(Ordering::SeqCst) < 3 {
                std::thread::yield_now();
            }
        };
        pool.run(3, &task).unwrap();
        assert_eq!(pool.tiles_run(), [1, 1, 1]);
    }

    #[test]
    fn parked_workers_come_back() {
        let mut pool = Pool::new(2).unwrap();
        let seen = Mutex::new([false; 2]);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            let inside = AtomicU64::new(0);
            let task = |worker: usize, _: u64, _: u64| {
                seen.lock().unwrap()[worker] = true;
                inside.fetch_add(1, Ordering::SeqCst);
                while inside.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
            };
            pool.run(2, &task).unwrap();
        }
        assert_eq!(*seen.lock().unwrap(), [true; 2]);
    }

    #[test]
    fn a_panic_is_reported_and_the_pool_goes_on() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let mut pool = Pool::new(2).unwrap();
        let task = |_: usize, begin: u64, end: u64| assert!(!(begin..end).contains(&5), "tile 5");
        assert!(pool.run(8, &task).is_err());
        std::panic::set_hook(hook);
        pool.run(4, &task).unwrap();
    }
}
