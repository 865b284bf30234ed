//! How a plane of a depthwise convolution is cut into blocks: worked out once per plan, because in a small plane the
//! arithmetic of addresses, masks and borders takes longer than the sums.

use super::axis::Axis;
use super::depthwise_block::{BlockFn, BlockSet, Border};
use super::tables::WindowTable;

/// Some output rows by one vector.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(super) run: BlockFn,
    /// Element of the input plane that the first tap of the first output reads; what lies before or after is masked.
    pub(super) x: isize,
    /// First element of the output.
    pub(super) out: usize,
    /// Number of the first input row.
    pub(super) top: isize,
    /// First of the vector's masks, one for each column of the window.
    pub(super) masks: usize,
    /// Lanes that exist.
    pub(super) lanes: u16,
}

/// The blocks of a plane, row by row. `full` says which vectors of a row lie inside as a whole; without any, none.
pub(super) fn blocks(table: &WindowTable, rows: &Axis, columns: &Axis, full: &[bool]) -> Vec<Block> {
    if full.is_empty() {
        return Vec::new();
    }
    let at = columns.stride - 1;
    let special: &[BlockSet] = match (rows.kernel, columns.kernel) {
        (3, 3) if rows.stride == columns.stride => &table.depthwise3[at],
        (5, 5) if rows.stride == columns.stride => &table.depthwise5[at],
        _ => &[],
    };
    let mut blocks = Vec::with_capacity(full.len() * rows.output);
    let mut y = 0;
    while y < rows.output {
        let (set, border) = special
            .iter()
            .find_map(|set| Some((set, border(rows, y, set)?)))
            .unwrap_or_else(|| general(&table.depthwise[at], rows, y));
        let top = (y * rows.stride) as i64 + rows.offset;
        for (v, &full) in full.iter().enumerate() {
            let left = (v * table.lanes * columns.stride) as i64 + columns.offset;
            blocks.push(Block {
                run: set.function(border, full),
                x: (top * columns.input as i64 + left) as isize,
                out: y * columns.output + v * table.lanes,
                top: top as isize,
                masks: v * columns.kernel,
                lanes: super::lanes::first_lanes(columns.output - v * table.lanes, table.lanes),
            });
        }
        y += set.rows;
    }
    blocks
}

/// Which input rows of a block from output row `y` on lie outside; `None` if there are not so many outputs, or more rows
/// outside on a side than the functions allow.
fn border(rows: &Axis, y: usize, set: &BlockSet) -> Option<Border> {
    let count = set.rows;
    let top = (y * rows.stride) as i64 + rows.offset;
    let end = top + ((count - 1) * rows.stride + rows.kernel) as i64;
    let (above, below) = ((-top).max(0), (end - rows.input as i64).max(0));
    let exists = y + count <= rows.output && above.max(below) <= set.outside as i64;
    exists.then_some(Border { above: above > 0, below: below > 0 })
}

/// The functions for any border.
fn general<'a>(sets: &'a [BlockSet; 2], rows: &Axis, y: usize) -> (&'a BlockSet, Border) {
    let [many, one] = sets;
    let set = if y + many.rows <= rows.output { many } else { one };
    let inside = Border { above: false, below: false };
    (set, border(rows, y, set).unwrap_or(Border { above: true, ..inside }))
}
