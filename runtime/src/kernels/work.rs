//! A contraction before it is cut: its sizes, operands and output, and what each register block would make of it.

use super::abi::{GROUP, Shape, Table};
use super::gather::{OutAxis, Read};
use super::simd::Real;
use super::source::Source;
use super::spec::{ContractError, ContractSpec, Side};
use super::tiling::block_cost;

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
        let mut blocks = blocks(table, [(&out_m, left_cost), (&out_n, right_cost)], steps);
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
}

/// All blocks, those first whose rows are the left operand's. Operands are given as what their free index is in the output,
/// and the cycles of packing sixteen lanes of one step.
fn blocks<T: Real>(
    table: &Table<T>,
    [(out_m, pack_left), (out_n, pack_right)]: [(&OutAxis<'_>, f64); 2],
    k: usize,
) -> Vec<Block> {
    // Measured on Zen 5: storing one run of one row.
    const STORE: f64 = 2.0;
    // One column of a block that is turned before it is stored.
    const TURN: f64 = 10.0;
    let k = k as f64;
    let breaks = [out_m.breaks, out_n.breaks];
    let of = |swapped: bool, shape: usize| {
        let candidate = &table.shapes[shape];
        let (m, n) = if swapped { (out_n.len, out_m.len) } else { (out_m.len, out_n.len) };
        let [row_breaks, column_breaks] = if swapped { [breaks[1], breaks[0]] } else { breaks };
        let (pack_rows, pack_columns) = if swapped { (pack_right, pack_left) } else { (pack_left, pack_right) };
        let straight = STORE * (column_breaks + n.div_ceil(GROUP)) as f64 * m as f64;
        let turns = row_breaks == 0 && column_breaks + 1 == n;
        let panels = m.div_ceil(candidate.rows.len());
        let mr = m.div_ceil(panels);
        let last = last_shape(table, shape, n, mr);
        let widest = table.shapes[last].vectors;
        let sums = block_cost(m, mr, n.div_ceil(candidate.nr), candidate.vectors, widest) as f64 / 2.0;
        let groups = |len: usize, width: usize| (len.div_ceil(width) * width.div_ceil(GROUP)) as f64;
        let packs = pack_rows * groups(m, mr) + pack_columns * groups(n, candidate.nr);
        let stores = if turns { straight.min(TURN * (n * panels) as f64) } else { straight };
        Block { cycles: k * (sums + packs) + stores, swapped, shape, last, mr }
    };
    [false, true]
        .into_iter()
        .flat_map(|swapped| (0..table.shapes.len()).map(move |shape| (swapped, shape)))
        .map(|(swapped, shape)| of(swapped, shape))
        .collect()
}

/// The narrowest shape that holds the columns left for the last panel: 196 are six panels of 32 and four columns.
fn last_shape<T: Real>(table: &Table<T>, shape: usize, n: usize, mr: usize) -> usize {
    let widest = table.shapes[shape].nr;
    let columns = n - n.saturating_sub(1) / widest * widest;
    let fits = |(at, other): (usize, &Shape<T>)| {
        // Panels are packed in groups.
        let holds = (columns..widest).contains(&other.nr) && other.nr.is_multiple_of(GROUP);
        (holds && other.rows.len() >= mr).then_some((other.nr, at))
    };
    table.shapes.iter().enumerate().filter_map(fits).min().map_or(shape, |(_, narrow)| narrow)
}
