//! Where the pixels of sixteen tiles lie.
//!
//! Tiles are numbered through images, rows and columns. A group is sixteen neighbours in this order: the lanes of a
//! vector. A row of output pixels of a group (`m` columns of each tile) is `m` vectors, the *parts*; within a part, tiles of
//! the same row of an image are a *run* that one masked load or store covers. A row of input pixels is as many vectors,
//! shifted by 0, `m`, `2 m`, ... columns until they have covered the `m + r - 1` columns of each tile.

use super::super::abi::GROUP;
use super::algorithm::Algorithm;
use super::shape::Shape;

/// Most tiles of a part: 8 for tiles of 2 x 2, 4 for those of 4 x 4.
const MOST_RUNS: usize = 8;
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

    /// Tiles `first..first + 16`, as far as they exist.
    pub(super) fn new(shape: &Shape, algorithm: Algorithm, first: usize) -> Geometry {
        let mut geometry = Geometry::EMPTY;
        let m = algorithm.outputs();
        let per_part = GROUP / m;
        let (rows, columns) = (shape.out_size.0.div_ceil(m), shape.out_size.1.div_ceil(m));
        let tiles = shape.images * rows * columns;
        for (p, part) in geometry.parts.iter_mut().take(m).enumerate() {
            for i in 0..per_part {
                let tile = first + p * per_part + i;
                if tile >= tiles {
                    break;
                }
                let at = (tile / columns / rows, tile / columns % rows, tile % columns);
                if i == 0 || at.2 == 0 {
                    part.runs += 1;
                }
                part.add(shape, algorithm, i, at, part.runs - 1, i == 0 || at.2 == 0);
            }
        }
        geometry
    }
}

impl Part {
    fn add(
        &mut self,
        shape: &Shape,
        algorithm: Algorithm,
        i: usize,
        (image, row, column): (usize, usize, usize),
        run: usize,
        begins: bool,
    ) {
        let (m, inputs) = (algorithm.outputs(), algorithm.inputs());
        let (y, x) = ((row * m) as isize, (column * m) as isize);
        let (in_y, in_x) = (y + shape.origin.0, x + shape.origin.1);
        let lane = i * m;
        if begins {
            let offset = |s: &super::shape::Strides, y: isize, x: isize| {
                s.base + image as isize * s.image + y * s.row + x - lane as isize
            };
            self.from[run] = offset(&shape.image, in_y, in_x);
            self.to[run] = offset(&shape.out, y, x);
        }
        let inside = |at: isize, len: usize| at >= 0 && at < len as isize;
        let columns = |from: isize, count: usize, len: usize| {
            (0..count).filter(|&j| inside(from + j as isize, len)).map(|j| 1u16 << (lane + j)).sum::<u16>()
        };
        for (shift, rows) in (0..inputs).step_by(m).zip(&mut self.inside) {
            let lanes = columns(in_x + shift as isize, m.min(inputs - shift), shape.size.1);
            for (r, row) in rows.iter_mut().enumerate().take(inputs) {
                if inside(in_y + r as isize, shape.size.0) {
                    row[run] |= lanes;
                }
            }
        }
        let out = columns(x, m, shape.out_size.1);
        for r in 0..m {
            if inside(y + r as isize, shape.out_size.0) {
                self.out[r][run] |= out;
            }
        }
    }
}
