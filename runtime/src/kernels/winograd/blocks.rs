//! Block sizes from shapes: never from thread counts, so that results are the same everywhere.

use super::super::abi::{GROUP, Table};
use super::super::tile::chains;
use super::algorithm::Algorithm;
use super::shape::Shape;

/// Most groups of a block: bounds the geometry on the stack.
pub(super) const MOST_GROUPS: usize = 8;

/// How a Winograd convolution is cut. Lengths and distances in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    pub(super) algorithm: Algorithm,
    /// Groups of sixteen tiles, in all and in a block.
    pub(super) all_groups: usize,
    pub(super) groups: usize,
    /// Blocks of tiles.
    pub(super) blocks: usize,
    /// Rows and columns of the register block, and the shapes for whole and for narrow panels.
    pub(super) mr: usize,
    pub(super) nr: usize,
    pub(super) wide: usize,
    pub(super) narrow: usize,
    /// Row panels of the weights.
    pub(super) panels: usize,
    /// Outputs whose sums are in scratch together, a multiple of `mr`.
    pub(super) output_block: usize,
    /// Outputs of one tile of the launch, and their count for each block.
    pub(super) output_part: usize,
    pub(super) output_parts: usize,
    /// A launch of its own transforms the input, because several tiles use it.
    pub(super) shared_input: bool,
    /// Channels of one tile of that launch, and their count for each block.
    pub(super) channel_chunk: usize,
    pub(super) channel_chunks: usize,
    pub(super) weights_position: usize,
    pub(super) weights_len: usize,
    pub(super) input_position: usize,
    pub(super) input_len: usize,
    pub(super) sums_position: usize,
    pub(super) sums_len: usize,
}

/// Tiles that a launch should have at least, for any number of threads.
const WANTED: usize = 8;
/// Groups of a block whose weights lie in a cache: whole panels of columns, and not so many that a launch has few tiles.
const FEWEST_GROUPS: usize = 2;
const NEAR_GROUPS: usize = 4;
/// Elements of transformed weights that the third-level cache cannot be trusted to hold.
const FAR: usize = 4 << 20;
/// Outputs whose sums are kept together.
const OUTPUT_BLOCK: usize = 64;

impl Blocks {
    /// The blocks of a shape; `wish` are groups of a block and parts of the outputs, in place of those that follow from it.
    pub(super) fn new(shape: &Shape, algorithm: Algorithm, table: &Table<f32>, wish: Option<(usize, usize)>) -> Blocks {
        let wide = 0;
        let nr = table.shapes[wide].nr;
        let narrow = table.shapes.iter().position(|s| s.nr == GROUP && !s.inner).unwrap_or(wide);
        let (m, positions) = (algorithm.outputs(), algorithm.positions());
        let tiles = shape.images * shape.out_size.0.div_ceil(m.0) * shape.out_size.1.div_ceil(m.1);
        let all_groups = tiles.div_ceil(GROUP);
        // Positions an odd number of cache lines apart do not meet in one set.
        let apart = |len: usize| (len.div_ceil(16) | 1) * 16;
        let weights_position = apart(shape.outputs * shape.channels);
        let weights_len = positions * weights_position;
        // Weights that no cache holds are read once for as many tiles as possible; threads then share the outputs.
        let groups = match wish {
            Some((groups, _)) => groups.clamp(1, MOST_GROUPS),
            None if far(weights_len) => MOST_GROUPS,
            None => (all_groups / (2 * WANTED)).clamp(FEWEST_GROUPS, NEAR_GROUPS),
        };
        let blocks = all_groups.div_ceil(groups);
        let groups = all_groups.div_ceil(blocks);
        let blocks = all_groups.div_ceil(groups);

        let rows = table.shapes[wide].rows.len();
        let panels = shape.outputs.div_ceil(rows);
        let mr = shape.outputs.div_ceil(panels);
        let panels = shape.outputs.div_ceil(mr);
        // Several parts read an input that was transformed for all of them first, which then comes from a farther cache or
        // from memory: only where blocks alone are too few. A tile of a single panel would spend its time fetching the
        // input. Few panels do not come out even: five parts of them keep two threads only three quarters busy.
        let parts = match wish {
            Some((_, parts)) => parts.min(panels),
            None if blocks >= WANTED => 1,
            None => (2 * WANTED).div_ceil(blocks).min(panels.div_ceil(2)),
        };
        let output_parts = parts.max(1);
        let output_part = panels.div_ceil(output_parts) * mr;
        let output_parts = shape.outputs.div_ceil(output_part);
        let in_part = output_part / mr;
        let output_block = in_part.div_ceil(in_part.div_ceil((OUTPUT_BLOCK / mr).max(1))) * mr;

        let shared_input = output_parts > 1;
        let chunks = WANTED.div_ceil(blocks).min(shape.channels.div_ceil(16)).max(1);
        let channel_chunk = shape.channels.div_ceil(chunks);
        let input_position = apart(shape.channels * groups * GROUP);
        let sums_position = apart(output_block.min(shape.outputs) * groups * GROUP);
        Blocks {
            algorithm,
            all_groups,
            groups,
            blocks,
            mr,
            nr,
            wide,
            narrow,
            panels,
            output_block,
            output_part,
            output_parts,
            shared_input,
            channel_chunk,
            channel_chunks: shape.channels.div_ceil(channel_chunk),
            weights_position,
            weights_len,
            input_position,
            input_len: positions * input_position,
            sums_position,
            sums_len: positions * sums_position,
        }
    }

    /// Groups of a block, if the order of sums depends on it: where a register block keeps several sums of each element.
    pub(super) fn chained(&self, outputs: usize, table: &Table<f32>) -> Option<usize> {
        let kept = |rows: usize, shape: usize| rows > 0 && chains(rows, table.shapes[shape].vectors) > 1;
        let rows = [self.mr.min(outputs), outputs % self.mr];
        let any = rows.iter().any(|&rows| kept(rows, self.wide) || kept(rows, self.narrow));
        any.then_some(self.groups)
    }

    /// Whether the transformed weights come from memory each time.
    pub(super) fn weights_are_far(&self) -> bool {
        far(self.weights_len)
    }
}

fn far(weights_len: usize) -> bool {
    weights_len > FAR
}
