//! Block sizes from shapes: never from thread counts, so that results are the same everywhere.

use super::tile::chains;

/// How a contraction is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Rows of a register block.
    pub mr: usize,
    /// Columns of a register block.
    pub nr: usize,
    /// Rows of the largest macro tile, a multiple of `mr`.
    pub mc: usize,
    /// Columns of the largest macro tile, a multiple of `nr`.
    pub nc: usize,
    /// Length of a k block: a multiple of 16, or all of K.
    pub kc: usize,
    /// Length of one k split: a multiple of `kc`, or all of K.
    pub k_chunk: usize,
    /// Macro tiles along m.
    pub m_tiles: usize,
    /// Macro tiles along n.
    pub n_tiles: usize,
    /// Partial sums along k.
    pub k_splits: usize,
}

/// What is to be cut: `g` products `[m, k] x [k, n]` in register blocks of `mr x nr`.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Independent products.
    pub g: usize,
    /// Rows.
    pub m: usize,
    /// Columns.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
    /// Rows of a register block.
    pub mr: usize,
    /// Columns of a register block.
    pub nr: usize,
    /// Whether the rows come as panels, so that no tile packs them.
    pub rows_packed: bool,
    /// Who packs the columns.
    pub columns: Columns,
}

/// Who packs column panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// Each tile those that it needs.
    ByTile,
    /// The first tile that needs them.
    Shared,
    /// The caller.
    Packed,
    /// Nobody: blocks read them as they lie.
    InPlace,
    /// Nobody: inner products read them as they lie, along the sum, the longer the faster.
    Inner,
}

/// Row panels of one k block fit half of a 1 MiB second-level cache.
const ROW_BLOCK: usize = 96 * 1024;
/// Longest k block of panels, unless one is asked for.
pub(super) const LONGEST_K: usize = 512;
/// Longest k block.
const MOST_K: usize = 4 * LONGEST_K;
/// Row panels that make tiles enough by themselves: five tiles of 64 rows kept one of two threads waiting for a fifth of the
/// time.
const ENOUGH_PANELS: usize = 16;
/// Shortest sum that is split.
const SHORTEST_SPLIT: usize = 256;
/// Counts that are tried along m, n and k.
const COUNTS: [usize; 13] = [1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64];

impl Product {
    /// The cheapest cut by estimated cycles.
    pub fn tiling(&self) -> Tiling {
        self.counted_tiling().1
    }

    /// The same, with the counts along m, n and k that give it.
    pub(super) fn counted_tiling(&self) -> ([usize; 3], Tiling) {
        let product = self.not_empty();
        let Product { mr, nr, m, n, k, .. } = product;
        let splits = k / SHORTEST_SPLIT;
        // Tiles along m that make row blocks small enough, before and after rounding.
        let fitting = m.saturating_mul(k.min(LONGEST_K)).div_ceil(ROW_BLOCK);
        let block = |extent: usize, size: usize| extent.div_ceil(size) * size;
        let (mc, nc) = (block(m, mr), block(n, nr));
        let whole = Tiling { mr, nr, mc, nc, kc: k, k_chunk: k, m_tiles: 1, n_tiles: 1, k_splits: 1 };
        let mut best = (f64::INFINITY, [1; 3], whole);
        for &k_splits in COUNTS.iter().take_while(|&&count| count <= splits.max(1)) {
            for m_tiles in COUNTS.into_iter().chain([fitting, fitting + fitting / 8 + 1]) {
                // Rows are packed again for each part of the columns: where they give tiles enough, there is one part.
                let enough = self.columns == Columns::Shared && m.div_ceil(mr) >= ENOUGH_PANELS;
                let most = if enough { 1 } else { usize::MAX };
                for n_tiles in COUNTS.into_iter().take_while(|&count| count <= most) {
                    let Some(tiling) = product.cut(m_tiles, n_tiles, k_splits) else { continue };
                    let cycles = product.cycles(&tiling);
                    if cycles < best.0 {
                        best = (cycles, [m_tiles, n_tiles, k_splits], tiling);
                    }
                }
            }
        }
        (best.1, best.2)
    }

    /// Estimated cycles of packing the rows in a pass of its own.
    pub(super) fn row_pass(&self) -> f64 {
        // Cycles per element, measured on Zen 5: panels that stay in the second-level cache, and those that do not (1024 x
        // 1024: 400 us).
        const NEAR: f64 = 0.5;
        const FAR: f64 = 1.5;
        let elements = self.m * self.k;
        let cycles = if elements <= ROW_BLOCK { NEAR } else { FAR };
        cycles * elements as f64
    }

    /// Longest k block, unless one is asked for.
    pub(super) fn longest_k(&self) -> usize {
        if self.columns == Columns::Inner { MOST_K } else { LONGEST_K }
    }

    fn not_empty(self) -> Product {
        Product { g: self.g.max(1), m: self.m.max(1), n: self.n.max(1), k: self.k.max(1), ..self }
    }

    /// The cut into so many tiles, or fewer where blocks do not come out even; `None` if a row block is too large.
    fn cut(&self, m_tiles: usize, n_tiles: usize, k_splits: usize) -> Option<Tiling> {
        self.not_empty().cut_at(self.longest_k(), [m_tiles, n_tiles, k_splits])
    }

    /// The same, in k blocks of at most `longest`; whatever the numbers are, the cut is a valid one.
    pub(super) fn cut_at(&self, longest: usize, counts: [usize; 3]) -> Option<Tiling> {
        let Product { m, n, k, mr, nr, .. } = self.not_empty();
        let [m_tiles, n_tiles, k_splits] = counts.map(|count| count.max(1));
        let k_splits = k_splits.min(COUNTS[COUNTS.len() - 1]);
        let longest = longest.clamp(16, MOST_K);
        let (row_panels, column_panels) = (m.div_ceil(mr), n.div_ceil(nr));
        let (m_tiles, n_tiles) = (m_tiles.min(row_panels), n_tiles.min(column_panels));
        let mc = row_panels.div_ceil(m_tiles) * mr;
        let nc = column_panels.div_ceil(n_tiles) * nr;
        let chunk = if k_splits == 1 { k } else { k.div_ceil(k_splits).next_multiple_of(16) };
        let blocks = chunk.div_ceil(longest);
        let kc = if blocks == 1 { chunk } else { chunk.div_ceil(blocks).next_multiple_of(16) };
        // Panels packed ahead are cut at multiples of kc: splits begin at such.
        let k_chunk = if k_splits == 1 { k } else { kc * blocks };
        let k_splits = k.div_ceil(k_chunk);
        let fits = mc == mr || mc * kc <= ROW_BLOCK;
        fits.then_some(Tiling { mr, nr, mc, nc, kc, k_chunk, m_tiles, n_tiles, k_splits })
    }

    /// Estimated cycles, but for those of the multiply-adds, which no cut changes.
    pub(super) fn cycles(&self, t: &Tiling) -> f64 {
        // Per element, measured on Zen 5: packing, streaming panels through the second-level cache beside the
        // arithmetic, storing and adding a partial sum; per tile, its start.
        const PACK: f64 = 0.4;
        const STREAM: f64 = 0.03;
        // The same of panels that the tiles before have packed, in part on another processor.
        const STREAM_SHARED: f64 = 0.06;
        const PARTIAL: f64 = 1.5;
        const TILE: f64 = 500.0;
        // How much of the last tile's time several threads wait for it.
        const LAST: f64 = 0.5;
        let Product { g, m, n, k, .. } = *self;
        let (rows, columns) = ((m * k) as f64, (n * k) as f64);
        let partial = if t.k_splits > 1 { PARTIAL * (m * n * (t.k_splits + 1)) as f64 } else { 0.0 };
        let tiles = t.m_tiles * t.n_tiles * t.k_splits;
        let tile_work = (t.mc * t.nc) as f64 * t.k_chunk as f64 / 32.0;
        let row_reads = if self.rows_packed { STREAM } else { PACK } * t.n_tiles as f64;
        let column_reads = match self.columns {
            Columns::ByTile => PACK * t.m_tiles as f64,
            Columns::Shared => PACK + STREAM_SHARED * t.m_tiles as f64,
            Columns::Packed | Columns::InPlace | Columns::Inner => STREAM * t.m_tiles as f64,
        };
        row_reads * rows + column_reads * columns + partial + TILE * tiles as f64 + LAST * tile_work / g as f64
    }
}

/// Estimated cycles per k step of a grid of blocks of `mr` rows over `m` rows, on a machine with two FMA and two load ports of
/// four cycles latency: `panels` panels of columns, `vectors` registers wide but for the last one, which is `last` wide.
pub(crate) fn block_cost(m: usize, mr: usize, panels: usize, vectors: usize, last: usize) -> usize {
    let panel = |vectors: usize| {
        let block = |rows: usize| (rows * vectors).max(rows + vectors).max(8 / chains(rows, vectors));
        let edge = if m.is_multiple_of(mr) { 0 } else { block(m % mr) };
        m / mr * block(mr) + edge
    };
    panel(vectors) * panels.saturating_sub(1) + panel(last)
}
