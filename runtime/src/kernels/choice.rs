//! What a contraction leaves open: the ways to compute it among which the cost model chooses, and which of them add each
//! sum in the same order.

use super::abi::{Shape, Table};
use super::simd::Real;
use super::spec::{Packed, Side};
use super::tile::chains;
use super::tiling::{Columns, LONGEST_K, Product, Tiling};
use super::work::Block;

/// One way to compute a contraction: what the cost model decides, and a measurement may decide otherwise. Counts are
/// wishes, rounded as [`Product::tiling`] rounds its own, so that no choice is out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContractChoice {
    /// Whether register blocks take their rows from the right operand.
    pub swapped: bool,
    /// Columns of a register block: one of the widths that the level has.
    pub columns: usize,
    /// Whether register blocks are inner products of operands that run along the sum.
    pub inner: bool,
    /// Macro tiles along rows and columns of the blocks, and partial sums.
    pub tiles: [usize; 3],
    /// Longest k block.
    pub k_block: usize,
    /// Operands that are packed once for all tiles: rows in a pass before them, columns by the tiles themselves, which share
    /// panels. Those that come as panels are not counted.
    pub ahead: Packed,
}

/// In which order a plan adds the terms of its sums. Plans of one contraction that have equal orders compute equal bits:
/// multiply-adds are exact in which factor is which, and a partial sum that waits in memory is not rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SumOrder {
    /// Terms of one partial sum.
    k_chunk: usize,
    /// How register blocks lie and how long they are, if any of them keeps several sums of each element.
    chained: Option<(bool, [usize; 4])>,
    /// Whether these are lanes.
    inner: bool,
}

impl SumOrder {
    pub(super) fn new<T: Real>(table: &Table<T>, (m, n): (usize, usize), block: &Block, tiling: &Tiling) -> SumOrder {
        let Block { swapped, shape, last, mr, .. } = *block;
        let edge = m % mr.max(1);
        let widths = [table.shapes.get(shape), table.shapes.get(last)];
        let kept =
            |rows: usize, shape: Option<&Shape<T>>| shape.is_some_and(|s| rows > 0 && chains(rows, s.vectors) > 1);
        let inner = widths[0].is_some_and(|shape| shape.inner);
        let chained = inner || widths.iter().any(|&width| kept(mr.min(m), width) || kept(edge, width));
        let widths = widths.map(|shape| shape.map_or(n, |shape| shape.nr));
        SumOrder {
            k_chunk: tiling.k_chunk,
            chained: chained.then_some((swapped, [mr, widths[0], widths[1], tiling.kc])),
            inner,
        }
    }
}

/// Sizes of a contraction, by operand: what choices are about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extents {
    pub(super) g: usize,
    pub(super) left: usize,
    pub(super) right: usize,
    pub(super) k: usize,
    /// Operands that come as panels.
    pub(super) packed: Packed,
    /// Operands that may be packed once for all tiles.
    pub(super) may_pack: Packed,
}

impl Extents {
    /// The product for a register block, with these operands packed once for all tiles.
    pub(super) fn product(&self, block: &Block, nr: usize, ahead: Packed) -> Product {
        let Extents { g, left, right, k, .. } = *self;
        let (m, n) = if block.swapped { (right, left) } else { (left, right) };
        let (rows_come_packed, columns_packed) = turned(self.packed, block.swapped);
        let rows_packed = rows_come_packed || block.rows_in_place;
        let (rows_ahead, columns_shared) = turned(ahead, block.swapped);
        let columns = match (columns_packed, columns_shared) {
            (true, _) => Columns::Packed,
            (false, true) => Columns::Shared,
            (false, false) if block.inner => Columns::Inner,
            (false, false) if block.in_place => Columns::InPlace,
            (false, false) => Columns::ByTile,
        };
        Product { g, m, n, k, mr: block.mr, nr, rows_packed: rows_packed | rows_ahead, columns }
    }

    /// What the cost model does with a register block.
    pub(super) fn estimate(&self, block: &Block, nr: usize) -> (ContractChoice, Tiling) {
        let (swapped, inner) = (block.swapped, block.inner);
        let of = |ahead: Packed| {
            let product = self.product(block, nr, ahead);
            let (tiles, tiling) = product.counted_tiling();
            let cycles = product.cycles(&tiling) + passes(&product, ahead, swapped);
            let k_block = product.longest_k();
            (cycles, ContractChoice { swapped, columns: nr, inner, tiles, k_block, ahead }, tiling)
        };
        let none = of(Packed::default());
        let best =
            self.packings(block).skip(1).map(of).fold(none, |best, next| if next.0 < best.0 { next } else { best });
        (best.1, best.2)
    }

    /// The tiling of a choice; `None` if the block's panels would be too large.
    pub(super) fn cut(&self, block: &Block, choice: &ContractChoice) -> Option<Tiling> {
        self.product(block, choice.columns, self.with(block, choice.ahead)).cut_at(choice.k_block, choice.tiles)
    }

    /// Those of `ahead` that may be: what blocks read as it must lie is never packed.
    pub(super) fn with(&self, block: &Block, ahead: Packed) -> Packed {
        let (left_lies, right_lies) = turned(Packed { left: block.rows_in_place, right: block.inner }, block.swapped);
        let [left, right] = [(ahead.left, left_lies, Side::Left), (ahead.right, right_lies, Side::Right)]
            .map(|(wanted, lies, side)| wanted && !lies && self.may_pack.side(side) && !self.packed.side(side));
        Packed { left, right }
    }

    fn packings(&self, block: &Block) -> impl Iterator<Item = Packed> + use<> {
        let (extents, block) = (*self, *block);
        let all = [false, true].into_iter().flat_map(|left| [false, true].map(|right| Packed { left, right }));
        all.filter(move |&packed| extents.with(&block, packed) == packed)
    }
}

/// Estimated cycles of the passes before the tiles.
fn passes(product: &Product, ahead: Packed, swapped: bool) -> f64 {
    if turned(ahead, swapped).0 { product.row_pass() } else { 0.0 }
}

/// Rows and columns of what is said of left and right, or the other way round.
pub(super) fn turned(packed: Packed, swapped: bool) -> (bool, bool) {
    if swapped { (packed.right, packed.left) } else { (packed.left, packed.right) }
}

/// Alternatives of one register block and one set of packed operands, and in all: neighbours differ little.
const OF_A_KIND: usize = 5;
const MOST: usize = 24;
/// Estimates are not so wrong that what should take longer than this part of the best is worth a measurement.
const HOPELESS: f64 = 1.5;
/// Tiles that are tried along rows and columns.
const TILES: [usize; 11] = [1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32];
/// Longest k blocks that are tried beside the usual one.
const K_BLOCKS: [usize; 4] = [LONGEST_K, 192, 256, 384];
/// Numbers of partial sums that are tried if rounding may change.
const SPLITS: [usize; 5] = [1, 2, 4, 8, 16];

/// A way to compute a contraction, and what it comes to: other wishes may come to the same.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    cycles: f64,
    choice: ContractChoice,
    tiling: Tiling,
    ahead: Packed,
}

impl Candidate {
    fn is_like(&self, other: &Candidate) -> bool {
        let kind = |c: &ContractChoice| (c.swapped, c.columns, c.inner, c.ahead);
        kind(&self.choice) == kind(&other.choice)
    }

    fn comes_to(&self, choice: &ContractChoice, tiling: &Tiling, ahead: Packed) -> bool {
        let kind = |c: &ContractChoice| (c.swapped, c.inner);
        kind(&self.choice) == kind(choice) && self.tiling == *tiling && self.ahead == ahead
    }
}

/// The ways to compute a contraction that may be faster than `chosen`, best first by estimate, without it: with `order`
/// those only that add in that order.
pub(super) fn alternatives<T: Real>(
    table: &Table<T>,
    extents: &Extents,
    blocks: &[Block],
    chosen: &ContractChoice,
    order: Option<SumOrder>,
) -> Vec<ContractChoice> {
    let splits: &[usize] = if order.is_some() { &chosen.tiles[2..] } else { &SPLITS };
    let mut candidates: Vec<Candidate> =
        blocks.iter().flat_map(|block| candidates(table, extents, block, splits, order)).collect();
    candidates.sort_by(|a, b| a.cycles.total_cmp(&b.cycles));
    let best = candidates.first().map_or(0.0, |first| first.cycles);
    let current = blocks.iter().find(|block| is_of(table, block, chosen));
    let current = current.and_then(|block| Some((extents.cut(block, chosen)?, extents.with(block, chosen.ahead))));
    let mut kept: Vec<Candidate> = Vec::new();
    for one in candidates.into_iter().take_while(|one| one.cycles <= HOPELESS * best) {
        let is_current = current.is_some_and(|(tiling, ahead)| one.comes_to(chosen, &tiling, ahead));
        let again = kept.iter().any(|other| one.comes_to(&other.choice, &other.tiling, other.ahead));
        let alike = kept.iter().filter(|other| one.is_like(other)).count();
        if !is_current && !again && alike < OF_A_KIND && kept.len() < MOST {
            kept.push(one);
        }
    }
    kept.into_iter().map(|one| one.choice).collect()
}

/// All ways with one register block.
fn candidates<T: Real>(
    table: &Table<T>,
    extents: &Extents,
    block: &Block,
    splits: &[usize],
    order: Option<SumOrder>,
) -> Vec<Candidate> {
    let Some(shape) = table.shapes.get(block.shape) else { return Vec::new() };
    let (swapped, columns) = (block.swapped, shape.nr);
    let sizes = if swapped { (extents.right, extents.left) } else { (extents.left, extents.right) };
    let mut found = Vec::new();
    for ahead in extents.packings(block) {
        let product = extents.product(block, columns, ahead);
        let passes = passes(&product, ahead, swapped);
        let counts = TILES.iter().flat_map(|&m| TILES.iter().map(move |&n| (m, n)));
        let counts = counts.flat_map(|(m, n)| splits.iter().map(move |&k| [m, n, k]));
        let k_blocks = K_BLOCKS.map(|k_block| if k_block == LONGEST_K { product.longest_k() } else { k_block });
        for (tiles, k_block) in counts.flat_map(|tiles| k_blocks.map(|k_block| (tiles, k_block))) {
            let Some(tiling) = product.cut_at(k_block, tiles) else { continue };
            if order.is_none_or(|order| order == SumOrder::new(table, sizes, block, &tiling)) {
                let cycles = block.cycles + product.cycles(&tiling) + passes;
                let choice = ContractChoice { swapped, columns, inner: block.inner, tiles, k_block, ahead };
                found.push(Candidate { cycles, choice, tiling, ahead });
            }
        }
    }
    found
}

/// Whether a choice wants this register block.
pub(super) fn is_of<T: Real>(table: &Table<T>, block: &Block, choice: &ContractChoice) -> bool {
    let nr = table.shapes.get(block.shape).map(|shape| shape.nr);
    (block.swapped, block.inner, nr) == (choice.swapped, choice.inner, Some(choice.columns))
}
