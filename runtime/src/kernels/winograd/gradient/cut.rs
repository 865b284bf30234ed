//! How the sum over tiles and the weights are cut: from shapes alone, never from thread counts, so that results are the
//! same everywhere.

use super::super::super::abi::{GROUP, Table};
use super::super::algorithm::Algorithm;
use super::shape::GradientShape;

/// Lengths and distances in elements. A *strip* is a row of tiles of one image, a *chunk* some strips whose tiles are
/// transformed and multiplied together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Cut {
    pub(in super::super) algorithm: Algorithm,
    /// Tiles of a strip, and strips of an image.
    pub(super) columns: usize,
    pub(super) rows: usize,
    pub(super) strips: usize,
    /// Strips of a chunk, and chunks.
    pub(in super::super) chunk: usize,
    pub(super) chunks: usize,
    /// Partial sums, and chunks of one.
    pub(in super::super) splits: usize,
    pub(in super::super) split_chunks: usize,
    /// A launch of its own transforms everything once; otherwise tiles transform what they multiply.
    pub(in super::super) shared: bool,
    /// Rows and columns of the register block, and the shapes for whole and for narrow panels.
    pub(in super::super) mr: usize,
    pub(in super::super) nr: usize,
    pub(super) wide: usize,
    pub(super) narrow: usize,
    /// Groups of sixteen outputs and of sixteen channels, in all and of one tile of the launch.
    pub(in super::super) output_groups: usize,
    pub(in super::super) channel_groups: usize,
    pub(super) output_part: usize,
    pub(super) channel_part: usize,
    /// Groups that are transformed in scratch, and distances from one position to the next.
    pub(super) dy_position: usize,
    pub(super) x_position: usize,
    pub(super) sums_position: usize,
    /// Strips whose pixels are turned into lanes together, and the elements that takes.
    pub(super) band: usize,
    pub(super) stage_len: usize,
}

/// Tiles that a launch should have at least, for any number of threads.
const WANTED: usize = 8;
/// Largest sum of transformed operands that is kept, in elements: the third-level cache holds it beside other data.
const SHARED: usize = 2 << 20;
/// Groups of outputs and of channels whose sums stay in the second-level cache, if operands are transformed ahead.
const NEAR: usize = 4;
/// The same for tiles that transform their operands: more, because other tiles repeat the transforms.
const FAR: usize = 8;
/// Tiles of a chunk: while sums are loaded and stored once for each chunk, its operands have to stay near.
const CHUNK: usize = 64;
const SHORTEST_CHUNK: usize = 32;
const SHARED_CHUNK: usize = 256;
/// Elements of pixels turned into lanes: two thirds of a first-level cache of 48 KiB.
const STAGE: usize = 8 << 10;

impl Cut {
    pub(super) fn new(shape: &GradientShape, algorithm: Algorithm, table: &Table<f32>, mr: usize) -> Cut {
        let (m, positions) = (algorithm.outputs(), algorithm.positions());
        let (wide, nr) = (0, table.shapes[0].nr);
        let narrow = table.shapes.iter().position(|s| s.nr == GROUP && !s.inner).unwrap_or(wide);
        let (rows, columns) = (shape.out_size.0.div_ceil(m.0), shape.out_size.1.div_ceil(m.1));
        let strips = shape.images * rows;
        let (output_groups, channel_groups) = (shape.outputs.div_ceil(GROUP), shape.channels.div_ceil(GROUP));
        let lanes = (output_groups + channel_groups) * GROUP;
        let shared = positions * lanes * strips * columns <= SHARED;

        let most = if shared { NEAR } else { FAR };
        let part = |groups: usize, most: usize| groups.div_ceil(groups.div_ceil(most));
        let output_part = part(output_groups, most);
        // Whole panels of columns, but for the last part.
        let pair = (nr / GROUP).max(1);
        let parts = |channel_part: usize| output_groups.div_ceil(output_part) * channel_groups.div_ceil(channel_part);
        let channels = |most: usize| part(channel_groups.div_ceil(pair), most / pair) * pair;
        let channel_part = if shared && parts(channels(NEAR)) < WANTED { channels(NEAR / 2) } else { channels(most) };

        // Short sums in shorter chunks, so that there are enough of them for all threads.
        let wanted = WANTED.div_ceil(parts(channel_part));
        let longest = if shared { SHARED_CHUNK } else { CHUNK.min(strips * columns / wanted).max(SHORTEST_CHUNK) };
        let chunk = strips.div_ceil(strips.div_ceil((longest / columns).max(1)));
        let chunks = strips.div_ceil(chunk);
        let splits = wanted.min(chunks);
        let split_chunks = chunks.div_ceil(splits);

        let halo = (algorithm.taps().0 - 1, algorithm.taps().1 - 1);
        let row = (columns * m.1 + halo.1) * GROUP;
        let band = ((STAGE / row).saturating_sub(halo.0) / m.0).clamp(1, chunk.min(rows));
        // Positions an odd number of cache lines apart do not meet in one set.
        let apart = |len: usize| (len.div_ceil(16) | 1) * 16;
        let transformed = |all: usize, part: usize| {
            let groups = if shared { all } else { part };
            apart(groups * GROUP * chunk * columns)
        };
        Cut {
            algorithm,
            columns,
            rows,
            strips,
            chunk,
            chunks,
            splits: chunks.div_ceil(split_chunks),
            split_chunks,
            shared,
            mr,
            nr,
            wide,
            narrow,
            output_groups,
            channel_groups,
            output_part,
            channel_part,
            dy_position: transformed(output_groups, output_part),
            x_position: transformed(channel_groups, channel_part),
            sums_position: apart(output_part * channel_part * GROUP * GROUP),
            band,
            stage_len: (band * m.0 + halo.0) * row,
        }
    }

    /// All tiles of `dy`.
    pub(in super::super) fn tiles(&self) -> usize {
        self.strips * self.columns
    }

    /// Strips of chunk `c`.
    pub(super) fn strips_of(&self, c: usize) -> (usize, usize) {
        (c * self.chunk, self.strips.min((c + 1) * self.chunk))
    }

    /// Parts of the outputs and of the channels.
    pub(in super::super) fn parts(&self) -> (usize, usize) {
        (self.output_groups.div_ceil(self.output_part), self.channel_groups.div_ceil(self.channel_part))
    }

    /// Elements of a chunk's transformed `dy`, and of both operands.
    pub(super) fn dy_len(&self) -> usize {
        self.algorithm.positions() * self.dy_position
    }

    pub(super) fn chunk_len(&self) -> usize {
        self.dy_len() + self.algorithm.positions() * self.x_position
    }

    /// Elements of all operands that are transformed ahead.
    pub(super) fn shared_len(&self) -> usize {
        if self.shared { self.chunks * self.chunk_len() } else { 0 }
    }

    /// Elements of one partial gradient, `[output][group][tap][lane]`.
    pub(super) fn partial_len(&self) -> usize {
        self.output_groups * GROUP * self.channel_groups * self.taps_len()
    }

    /// Elements of a partial gradient's output and group.
    pub(super) fn taps_len(&self) -> usize {
        self.algorithm.taps().0 * self.algorithm.taps().1 * GROUP
    }
}
