//! Block sizes from shapes: never from thread counts, so that results are the same everywhere.

/// How a contraction is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Rows of a register block.
    pub mr: usize,
    /// Columns of a register block.
    pub nr: usize,
    /// Rows of a macro tile, a multiple of `mr` or all of them.
    pub mc: usize,
    /// Columns of a macro tile, a multiple of `nr`.
    pub nc: usize,
    /// Length of a k block: a multiple of 16, or all of K.
    pub kc: usize,
    /// Length of one k split: a multiple of 16, or all of K.
    pub k_chunk: usize,
    /// Macro tiles along m.
    pub m_tiles: usize,
    /// Macro tiles along n.
    pub n_tiles: usize,
    /// Partial sums along k.
    pub k_splits: usize,
}

/// Multiply-adds that one tile should have at least.
const TILE_WORK: usize = 1 << 21;
/// Row panels of one k block fit half of a 1 MiB second-level cache.
const ROW_BLOCK: usize = 96 * 1024;
/// Longest k block.
const LONGEST_K: usize = 512;

/// Plans the blocks of `g` products `[m, k] x [k, n]` for a register block of `mr x nr`.
pub fn plan_tiles(g: usize, m: usize, n: usize, k: usize, mr: usize, nr: usize) -> Tiling {
    let (g, m, n, k) = (g.max(1), m.max(1), n.max(1), k.max(1));
    let work = g.saturating_mul(m).saturating_mul(n).saturating_mul(k);
    let wanted = if work <= TILE_WORK { 1 } else { (work / TILE_WORK).clamp(8, 32) };

    let k_blocks = k.div_ceil(LONGEST_K);
    let kc = if k_blocks == 1 { k } else { k.div_ceil(k_blocks).next_multiple_of(16) };

    let m_tiles = m.div_ceil((ROW_BLOCK / kc).max(mr));
    let mut mc = m.div_ceil(m_tiles).next_multiple_of(mr);
    let mut m_tiles = m.div_ceil(mc);

    let n_panels = n.div_ceil(nr);
    // A tile narrower than four panels spends its time packing rows.
    let most_n_tiles = n_panels.div_ceil(4);
    let n_tiles = wanted.div_ceil(g * m_tiles).clamp(1, most_n_tiles);
    let nc = n_panels.div_ceil(n_tiles) * nr;
    let n_tiles = n.div_ceil(nc);

    let mut k_splits = 1;
    let mut k_chunk = k;
    if g * m_tiles * n_tiles < 8 && wanted >= 8 {
        let missing = wanted.min(16).div_ceil(g * m_tiles * n_tiles);
        let splits = missing.min(k / 256).max(1);
        if splits > 1 {
            k_chunk = k.div_ceil(splits).next_multiple_of(16);
            k_splits = k.div_ceil(k_chunk);
        } else if missing > 1 {
            mc = m.div_ceil(missing.min(m.div_ceil(mr))).next_multiple_of(mr);
            m_tiles = m.div_ceil(mc);
        }
    }
    let kc = if k_splits > 1 {
        let blocks = k_chunk.div_ceil(LONGEST_K);
        k_chunk.div_ceil(blocks).next_multiple_of(16)
    } else {
        kc
    };
    Tiling { mr, nr, mc, nc, kc, k_chunk, m_tiles, n_tiles, k_splits }
}

/// Estimated cycles per k step of a grid of `mr x nr` blocks on a machine with two FMA and two load ports of four
/// cycles latency: `vectors` registers wide, `mr` rows high, over `m x n`.
pub(crate) fn block_cost(m: usize, n: usize, mr: usize, nr: usize, vectors: usize) -> usize {
    let block = |rows: usize| (rows * vectors).max(rows + vectors).max(8);
    let full = m / mr * block(mr);
    let edge = if m.is_multiple_of(mr) { 0 } else { block(m % mr) };
    (full + edge) * n.div_ceil(nr)
}
