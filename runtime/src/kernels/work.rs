//! A contraction before it is cut: its sizes, operands and output, and what each register block would make of it.

use super::abi::{GROUP, Shape, Table};
use super::gather::{OutAxis, Read};
use super::in_place::{InPlace, arrival, few_meet};
use super::simd::Real;
use super::source::Source;
use super::spec::{ContractError, ContractSpec, Side};
use super::store::MAX_WIDTH;
use super::tiling::{LONGEST_K, block_cost};

/// A contraction as the register blocks of one table see it.
pub(super) struct Work<'a> {
    /// Batches, rows and columns as they were asked for, terms of the sums.
    pub(super) sizes: [usize; 4],
    /// Steps of the sums.
    pub(super) steps: usize,
    /// The output along the free index of each operand, left first.
    pub(super) out: [OutAxis<'a>; 2],
    pub(super) operands: [Source; 2],
    pub(super) blocks: Vec<Block>,
    pub(super) cheapest: Block,
}

impl<'a> Work<'a> {
    /// With blocks in both orientations, unless `right_has_rows` says which.
    pub(super) fn new<T: Real>(
        spec: &'a ContractSpec,
        table: &Table<T>,
        right_has_rows: Option<bool>,
    ) -> Result<Self, ContractError> {
        let (b, m, n) = (spec.batch.len(), spec.m.len(), spec.n.len());
        if spec.out_strides.len() != b + m + n {
            return Err(ContractError::WrongDimension);
        }
        let size = |extents: &[usize]| {
            extents
                .iter()
                .try_fold(1usize, |product, e| product.checked_mul(*e))
                .filter(|product| *product < i32::MAX as usize)
                .ok_or(ContractError::TooLarge)
        };
        let sizes = [size(&spec.batch)?, size(&spec.m)?, size(&spec.n)?, size(&spec.k)?];
        if sizes[..3].contains(&0) {
            return Err(ContractError::Empty);
        }
        let out_m = OutAxis::new(&spec.m, &spec.out_strides[b..b + m])?;
        let out_n = OutAxis::new(&spec.n, &spec.out_strides[b + m..])?;
        let source = |side, first: usize, extents: &[usize]| {
            let (batch, free, k) = (spec.batch.clone(), extents.to_vec(), spec.k.clone());
            Source::new(spec, side, Read { batch, free, free_first: first, k, k_first: b + m + n }, table.terms)
        };
        let operands = [source(Side::Left, b, &spec.m), source(Side::Right, b + m, &spec.n)];
        let [left_cost, right_cost] = [0, 1].map(|side: usize| operands[side].pack_cost(spec, table.terms));
        let steps = sizes[3].div_ceil(table.terms);
        let free = |side: usize| Free {
            out: [&out_m, &out_n][side],
            packing: [left_cost, right_cost][side],
            in_place: operands[side].in_place,
            along_sum: operands[side].along_sum,
            comes_packed: operands[side].native && spec.packed.side(operands[side].side),
        };
        let mut blocks = blocks(table, [&free(0), &free(1)], steps);
        blocks.retain(|block| right_has_rows.is_none_or(|right| block.swapped == right));
        let cheapest = blocks.iter().copied().reduce(|best, next| if next.cycles < best.cycles { next } else { best });
        let cheapest = cheapest.ok_or(ContractError::Empty)?;
        Ok(Self { sizes, steps, out: [out_m, out_n], operands, blocks, cheapest })
    }
}

/// A register block in one orientation, and the estimated cycles of the whole contraction with it, but for those of tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) cycles: f64,
    /// Rows are those of the right operand.
    pub(super) swapped: bool,
    pub(super) shape: usize,
    /// Of the last panel of columns.
    pub(super) last: usize,
    pub(super) mr: usize,
    /// Columns are read as they lie, unless tiles share their panels.
    pub(super) in_place: bool,
    /// An inner product: columns are read as they lie, along the sum.
    pub(super) inner: bool,
    /// Rows are read as they lie, along the sum.
    pub(super) rows_in_place: bool,
}

/// The free index of an operand.
struct Free<'a> {
    /// In the output.
    out: &'a OutAxis<'a>,
    /// Cycles of packing sixteen lanes of one step.
    packing: f64,
    /// How the operand lies.
    in_place: Option<InPlace>,
    /// From one index to the next, if the operand lies along the sum.
    along_sum: Option<usize>,
    /// Whether the caller passes panels of elements that are not converted.
    comes_packed: bool,
}

/// All blocks, those first whose rows are the left operand's.
fn blocks<T: Real>(table: &Table<T>, [left, right]: [&Free<'_>; 2], steps: usize) -> Vec<Block> {
    let both = [false, true].into_iter();
    let all = both.flat_map(|swapped| (0..table.shapes.len()).map(move |shape| (swapped, shape)));
    all.filter_map(|(swapped, shape)| {
        let (rows, columns) = if swapped { (right, left) } else { (left, right) };
        block(table, (swapped, shape), rows, columns, steps)
    })
    .collect()
}

/// What blocks lose that read their rows as they lie, measured on Zen 5: 512^3 in 8 x 48 blocks 257 GFLOP/s instead of 264.
const ROWS_IN_PLACE: f64 = 0.02;

/// Widest panels that are packed, for rows that one block holds: fewer blocks to begin. 1 x 256 reads columns in long runs as
/// they lie, and gains nothing where panels are one run: 28 steps of an LSTM by 128 x 512 took 54 us on Zen 5 in panels of 48,
/// 59 in those of 256, 53 in those of 96; 100 steps by 64 x 256 78, 77, 70.
const WIDEST_PACKED: usize = 96;

/// One of them, unless it is too wide for what it would have to do.
fn block<T: Real>(
    table: &Table<T>,
    (swapped, shape): (bool, usize),
    rows: &Free<'_>,
    columns: &Free<'_>,
    steps: usize,
) -> Option<Block> {
    let grid = Grid::new(table, shape, (rows.out.len, columns.out.len));
    if table.shapes[shape].inner {
        let few = grid.row_panels <= MOST_INNER_PANELS;
        return (columns.along_sum.is_some() && few)
            .then(|| inner(&grid, (swapped, shape), rows, columns, (steps, size_of::<T>())));
    }
    let bytes = size_of::<T>();
    let groups = |len: usize, width: usize| (len.div_ceil(width) * width.div_ceil(GROUP)) as f64;
    let k_block = (steps.div_ceil(steps.div_ceil(LONGEST_K).max(1)), bytes);
    let lies = columns.in_place.map(|lies| (lies, lies.cost(grid.nr, grid.row_panels, k_block, columns.packing)));
    let lies = lies.filter(|(_, cycles)| *cycles < columns.packing);
    let reads_wide = lies.is_some() || columns.comes_packed && grid.nr <= WIDEST_PACKED && grid.row_panels == 1;
    if grid.nr > MAX_WIDTH && !(reads_wide && columns.out.breaks == 0 && grid.n >= grid.nr) {
        return None;
    }
    let sums = match lies {
        Some((lies, _)) => grid.step().max(grid.step_after_first() + lies.reading(grid.n, grid.nr, bytes)),
        None => grid.step(),
    };
    let row_packs = rows.packing * groups(grid.m, grid.mr);
    let most_rows = [shape, grid.last].map(|shape| table.shapes[shape].in_place.len());
    let rows_lie = most_rows.iter().all(|most| grid.mr <= *most)
        && rows.along_sum.is_some_and(|step| few_meet(step * bytes, grid.mr))
        && ROWS_IN_PLACE * sums < row_packs;
    let packs = if rows_lie { ROWS_IN_PLACE * sums } else { row_packs }
        + lies.map_or(columns.packing, |(_, cycles)| cycles) * groups(grid.n, grid.nr);
    Some(Block {
        cycles: steps as f64 * (sums + packs) + grid.ends(rows.out, columns.out),
        swapped,
        shape,
        last: grid.last,
        mr: grid.mr,
        in_place: lies.is_some(),
        inner: false,
        rows_in_place: rows_lie,
    })
}

/// Row panels of inner products: each reads all columns again, from a farther cache where they are many.
const MOST_INNER_PANELS: usize = 4;

/// A block that adds inner products.
fn inner(
    grid: &Grid,
    (swapped, shape): (bool, usize),
    rows: &Free<'_>,
    columns: &Free<'_>,
    (steps, bytes): (usize, usize),
) -> Block {
    // Measured on Zen 5: what loads take beside multiply-adds, the sum of a register's lanes.
    const LOADS: f64 = 1.3;
    const TOTAL: f64 = 4.0;
    // Columns that are summed at a time.
    const SIDE_BY_SIDE: usize = 4;
    let Grid { m, n, mr, .. } = *grid;
    let lanes = grid.nr / grid.vectors;
    let sums = |rows: usize| LOADS * (rows * n.next_multiple_of(SIDE_BY_SIDE)) as f64 / (2 * lanes) as f64;
    // All rows are read for the first columns, all columns for the first rows.
    let arrives = arrival(if rows.along_sum.is_some() { m + n } else { n }, bytes);
    let step = sums(m).max(sums(m - mr.min(m)) + arrives);
    let packs = if rows.along_sum.is_some() { 0.0 } else { rows.packing * m as f64 };
    Block {
        cycles: steps.next_multiple_of(lanes) as f64 * (step + packs)
            + TOTAL * (m * n) as f64
            + grid.ends(rows.out, columns.out),
        swapped,
        shape,
        last: shape,
        mr,
        in_place: false,
        inner: true,
        rows_in_place: rows.along_sum.is_some(),
    }
}

/// Register blocks of one shape over `m` rows and `n` columns.
struct Grid {
    m: usize,
    n: usize,
    mr: usize,
    nr: usize,
    row_panels: usize,
    column_panels: usize,
    /// Registers of a row of a block, of the last panel too.
    vectors: usize,
    last_vectors: usize,
    /// Shape of the last panel.
    last: usize,
}

impl Grid {
    fn new<T: Real>(table: &Table<T>, shape: usize, (m, n): (usize, usize)) -> Grid {
        let Shape { nr, vectors, rows, .. } = table.shapes[shape];
        let row_panels = m.div_ceil(rows.len());
        let mr = m.div_ceil(row_panels);
        let last = last_shape(table, shape, n, mr);
        Grid {
            m,
            n,
            mr,
            nr,
            row_panels,
            column_panels: n.div_ceil(nr),
            vectors,
            last_vectors: table.shapes[last].vectors,
            last,
        }
    }

    /// Estimated cycles of one step of all blocks but those of the first row panel.
    fn step_after_first(&self) -> f64 {
        let first = Grid { m: self.mr.min(self.m), row_panels: 1, ..*self };
        self.step() - first.step()
    }

    /// Estimated cycles of one step of all blocks.
    fn step(&self) -> f64 {
        // What a load takes from multiply-adds that go on beside it, measured on Zen 5: 14 x 32 blocks reach 88 % of the
        // peak, 8 x 48 blocks 91 %.
        const LOAD: f64 = 0.125;
        let busy = block_cost(self.m, self.mr, self.column_panels, self.vectors, self.last_vectors) as f64 / 2.0;
        let columns = self.row_panels * (self.vectors * (self.column_panels - 1) + self.last_vectors);
        busy + LOAD * (self.m * self.column_panels + columns) as f64
    }

    /// Estimated cycles of beginning and storing all blocks.
    fn ends(&self, rows: &OutAxis<'_>, columns: &OutAxis<'_>) -> f64 {
        // Measured on Zen 5: a block by itself, one run of one row, one column of a block that is turned before it is stored.
        const BLOCK: f64 = 20.0;
        const STORE: f64 = 2.0;
        const TURN: f64 = 10.0;
        let straight = STORE * (columns.breaks + self.n.div_ceil(GROUP)) as f64 * self.m as f64;
        let turns = rows.breaks == 0 && columns.breaks + 1 == self.n;
        let stores = if turns { straight.min(TURN * (self.n * self.row_panels) as f64) } else { straight };
        BLOCK * (self.row_panels * self.column_panels) as f64 + stores
    }
}

/// The narrowest shape that holds the columns left for the last panel: 196 are six panels of 32 and four columns.
fn last_shape<T: Real>(table: &Table<T>, shape: usize, n: usize, mr: usize) -> usize {
    let widest = table.shapes[shape].nr;
    let columns = n - n.saturating_sub(1) / widest * widest;
    let fits = |(at, other): (usize, &Shape<T>)| {
        // Panels are packed in groups.
        let holds = (columns..widest).contains(&other.nr) && other.nr.is_multiple_of(GROUP) && !other.inner;
        (holds && other.rows.len() >= mr).then_some((other.nr, at))
    };
    table.shapes.iter().enumerate().filter_map(fits).min().map_or(shape, |(_, narrow)| narrow)
}
