//! Where a contraction's time should go, from its plan: what a reader of a profile is told about a slow one.

use super::abi::{Descriptor, GROUP};
use super::gather::{GatherTables, OutTables};
use super::tiling::block_cost;

/// Estimated cycles of all tiles of a contraction, on a machine with two FMA ports whose data is in its caches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Multiply-adds if every lane of every cycle were useful.
    pub ideal: f64,
    /// Lanes past the last column.
    pub idle_lanes: f64,
    /// Register blocks with too few rows to hide the latency of an addition.
    pub latency: f64,
    /// Packing both operands.
    pub packing: f64,
    /// Storing the output, run by run.
    pub stores: f64,
    /// Whether an operand is packed element by element.
    pub gathers: bool,
}

/// Measured on Zen 5: packing sixteen lanes of one step from one run, storing one run of one row.
const PACK: f64 = 5.0;
const STORE: f64 = 2.0;
/// A group of more runs is gathered; see `pack_avx512.rs`.
const MOST_RUNS: f64 = 4.0;

impl Estimate {
    pub(crate) fn of(d: &Descriptor, rows: &GatherTables, columns: &GatherTables, out: &OutTables) -> Estimate {
        let steps = (d.g * d.k) as f64;
        let ideal = steps * (d.m * d.n) as f64 / (2 * d.lanes()) as f64;
        let vectors = d.vectors;
        let panels = d.n.div_ceil(d.nr);
        let filled = steps * (d.m * (panels.saturating_sub(1) * vectors + d.last_vectors)) as f64 / 2.0;
        let blocks = steps * block_cost(d.m, d.mr, panels, vectors, d.last_vectors) as f64 / 2.0;
        let packing = |operand: &GatherTables, free: usize, times: usize| {
            let groups = steps * (free * times) as f64 / GROUP as f64;
            if operand.packed { 0.0 } else { groups * PACK * operand.runs_per_group().min(2.0 * MOST_RUNS) }
        };
        let gathered = |operand: &GatherTables| !operand.packed && operand.runs_per_group() > MOST_RUNS;
        // A tile packs its own rows, and each of its column panels once, unless tiles share them or read them as they lie.
        let column_packs = match (d.columns_in_place || d.inner, d.columns_shared) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => d.m_tiles,
        };
        Estimate {
            ideal,
            idle_lanes: filled - ideal,
            latency: blocks - filled,
            packing: packing(rows, d.m, if d.rows_step > 0 { 0 } else { d.n_tiles })
                + packing(columns, d.n, column_packs),
            stores: STORE * (d.g * d.m * out.segments.len()) as f64 * d.n as f64 / out.n_period.len as f64,
            gathers: gathered(rows) && d.rows_step == 0 || gathered(columns) && !d.columns_in_place && !d.inner,
        }
    }

    /// All of it.
    pub fn total(&self) -> f64 {
        self.ideal + self.idle_lanes + self.latency + self.packing + self.stores
    }
}
