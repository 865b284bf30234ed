//! Whether the processors were shared with other programs while something was measured.

use std::time::Instant;

/// Processor time of the system and of this process when a measurement began.
pub(super) struct Load {
    start: Instant,
    busy: Option<u64>,
    own: Option<u64>,
}

/// Ticks a second of the times in `/proc`, on every Linux that Rust supports.
const TICKS: f64 = 100.0;

impl Load {
    pub(super) fn start() -> Load {
        Load { start: Instant::now(), busy: busy(), own: own() }
    }

    /// Processors that other programs kept busy since the start, on average; `None` where the system does not say.
    pub(super) fn others(&self) -> Option<f64> {
        let busy = busy()?.saturating_sub(self.busy?);
        let own = own()?.saturating_sub(self.own?);
        let ticks = self.start.elapsed().as_secs_f64() * TICKS;
        Some(busy.saturating_sub(own) as f64 / ticks.max(1.0))
    }
}

/// Ticks that any processor was not idle: all of the first eight columns but idle time and waiting for disks.
fn busy() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let columns: Vec<u64> =
        text.lines().next()?.split_whitespace().skip(1).map_while(|word| word.parse().ok()).collect();
    Some(columns.iter().take(8).sum::<u64>() - columns.get(3)? - columns.get(4)?)
}

/// Ticks of this process, in user and system mode: columns 14 and 15, counted behind the name in parentheses.
fn own() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut columns = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || columns.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}
