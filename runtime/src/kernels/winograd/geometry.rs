//! Where the pixels of sixteen tiles lie.
//!
//! Tiles are numbered through images, rows and columns. A group is sixteen neighbours in this order: the lanes of a
//! vector. A row of output pixels of a group (`m` columns of each tile, one if only columns are filtered) is `m` vectors,
//! the *parts*; within a part, tiles of the same row of an image are a *run* that one masked load or store covers. A row of
//! input pixels is as many vectors, shifted by 0, `m`, `2 m`, ... columns until they have covered the `m + r - 1` columns of
//! each tile.

use super::super::abi::GROUP;
use super::algorithm::Algorithm;
use super::shape::{Shape, Strides};

/// Most runs of a part: one a tile, of which a part has 8 if they are two columns wide and 4 if four. Of tiles of one
/// column it has 16, which is why those take planes of [`FEWEST_COLUMNS`].
const MOST_RUNS: usize = 8;
/// Columns of a plane whose tiles have one: two tiles to a run.
pub(super) const FEWEST_COLUMNS: usize = 2;
/// Most shifts: 3 for F(2, 5), 2 for the others.
const MOST_SHIFTS: usize = 3;

/// Offsets and masks of one part.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) runs: usize,
    /// Where lane 0 would be in the first row if the run began there.
    pub(super) from: [isize; MOST_RUNS],
    pub(super) to: [isize; MOST_RUNS],
    /// For each shift and row, lanes inside the tile and the image.
    pub(super) inside: [[[u16; MOST_RUNS]; 6]; MOST_SHIFTS],
    /// Lanes inside the output.
    pub(super) out: [[u16; MOST_RUNS]; 4],
}

/// The parts of one group.
#[derive(Clone, Copy)]
pub(super) struct Geometry {
    pub(super) parts: [Part; 4],
}

impl Geometry {
    pub(super) const EMPTY: Geometry = Geometry {
        parts: [Part {
            runs: 0,
            from: [0; MOST_RUNS],
            to: [0; MOST_RUNS],
            inside: [[[0; MOST_RUNS]; 6]; MOST_SHIFTS],
            out: [[0; MOST_RUNS]; 4],
        }; 4],
    };

    /// Tiles `first..first + 16`, as far as they exist, in place of [`Self::EMPTY`].
    pub(super) fn set(&mut self, shape: &Shape, algorithm: Algorithm, first: usize) {
        let m = algorithm.outputs();
        let (rows, columns) = (shape.out_size.0.div_ceil(m.0), shape.out_size.1.div_ceil(m.1));
        let (per_part, tiles) = (GROUP / m.1, shape.images * rows * columns);
        for (p, part) in self.parts.iter_mut().take(m.1).enumerate() {
            let first = first + p * per_part;
            let count = per_part.min(tiles.saturating_sub(first));
            let (mut line, mut column, mut i) = (first / columns, first % columns, 0);
            while i < count {
                let run =
                    Run { image: line / rows, row: line % rows, column, at: i, len: (columns - column).min(count - i) };
                part.add(shape, algorithm, &run);
                (line, column, i) = (line + 1, 0, i + run.len);
            }
        }
    }
}

/// Neighbouring tiles of a row of tiles of an image, `len` from `at` on in a part.
struct Run {
    image: usize,
    row: usize,
    column: usize,
    at: usize,
    len: usize,
}

impl Part {
    fn add(&mut self, shape: &Shape, algorithm: Algorithm, tiles: &Run) {
        let (m, inputs) = (algorithm.outputs(), algorithm.inputs());
        let (first, end) = ((tiles.at * m.1) as isize, ((tiles.at + tiles.len) * m.1) as isize);
        let (y, x) = ((tiles.row * m.0) as isize, (tiles.column * m.1) as isize);
        let (in_y, in_x) = (y + shape.origin.0, x + shape.origin.1);
        let offset = |s: &Strides, y: isize, x: isize| s.base + tiles.image as isize * s.image + y * s.row + x - first;
        let run = self.runs;
        self.runs += 1;
        self.from[run] = offset(&shape.image, in_y, in_x);
        self.to[run] = offset(&shape.out, y, x);
        // Columns of neighbouring tiles are neighbours: lanes whose columns, `x` being the first, lie in a plane.
        let lanes = |x: isize, width: usize| bits(first + (-x).max(0), end.min(first + width as isize - x));
        let inside = |at: isize, len: usize| at >= 0 && at < len as isize;
        for (shift, rows) in (0..inputs.1).step_by(m.1).zip(&mut self.inside) {
            let lanes = lanes(in_x + shift as isize, shape.size.1) & columns(m.1, inputs.1 - shift);
            for (r, row) in rows.iter_mut().enumerate().take(inputs.0) {
                row[run] = if inside(in_y + r as isize, shape.size.0) { lanes } else { 0 };
            }
        }
        let lanes = lanes(x, shape.out_size.1);
        for (r, row) in self.out.iter_mut().enumerate().take(m.0) {
            row[run] = if inside(y + r as isize, shape.out_size.0) { lanes } else { 0 };
        }
    }
}

/// Bits `from..to`, of sixteen.
fn bits(from: isize, to: isize) -> u16 {
    if from < to { ((1u32 << to) - (1u32 << from)) as u16 } else { 0 }
}

/// The first `count` lanes of every `m`.
fn columns(m: usize, count: usize) -> u16 {
    let (all, some) = ((1u16 << m) - 1, (1u16 << count.min(m)) - 1);
    u16::MAX / all * some
}
