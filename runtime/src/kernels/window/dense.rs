//! Which vectors of a plane, in row-major order, meet rows and columns outside of it.

use std::ops::Range;

use super::axis::Axis;
use super::lanes::first_lanes;
use super::tables::{DenseFn, WindowTable};

/// Vectors summed together at most.
const MOST: usize = 4;

/// The vectors of a plane whose outputs lie as its inputs do.
#[derive(Debug)]
pub(crate) struct Dense {
    pub(super) run: DenseFn,
    pub(super) vectors: usize,
    /// Lanes of the last vector.
    pub(super) last: u16,
    /// Element that the first output meets in the first row of its window, above itself.
    pub(super) first: isize,
    /// Vectors whose rows all exist.
    pub(super) whole: Range<usize>,
    /// `[vectors][rows of the window]`, the lanes whose row exists, of all vectors but those of `unmasked`.
    rows: Vec<u16>,
    unmasked: Range<usize>,
    /// `[period][columns of the window]`, the lanes whose tap lies in the row of their output.
    pub(super) columns: Vec<u16>,
    /// Vectors after which these masks repeat.
    pub(super) period: usize,
}

impl Dense {
    /// `None` unless outputs lie as inputs do and windows of 3, 5 or 7 columns are centred.
    pub(super) fn new(rows: &Axis, columns: &Axis, table: &WindowTable) -> Option<Self> {
        let lanes = table.lanes;
        let half = columns.kernel / 2;
        let same = rows.stride == 1 && columns.stride == 1 && columns.input == columns.output;
        if !same || columns.offset != -(half as i64) {
            return None;
        }
        let run = match (rows.kernel, columns.kernel) {
            (3, 3) => table.depthwise_dense[0],
            (_, 3) => table.depthwise_dense[1],
            (_, 5) => table.depthwise_dense[2],
            (_, 7) => table.depthwise_dense[3],
            _ => return None,
        };
        let (width, outputs) = (columns.output, rows.output * columns.output);
        let vectors = outputs.div_ceil(lanes);
        let period = (width / gcd(width, lanes)).min(vectors);
        let mask = |v: usize, inside: &dyn Fn(usize) -> bool| {
            (0..lanes).filter(|lane| inside(v * lanes + lane)).fold(0, |bits, lane| bits | 1u16 << lane)
        };
        let row = |v: usize, i: usize| {
            let exists = |row: i64| (0..rows.input as i64).contains(&row);
            mask(v, &|output| output < outputs && exists((output / width + i) as i64 + rows.offset))
        };
        let whole = rows.whole_windows();
        let (begin, end) = ((whole.start * width).div_ceil(lanes), whole.end * width / lanes);
        let (begin, end) = if begin < end { (begin, end) } else { (vectors, vectors) };
        let head = (begin + MOST - 1).min(vectors);
        let tail = (end + 1).saturating_sub(MOST).max(head);
        let column = |v: usize, j: usize| mask(v, &|output| (half..half + width).contains(&(output % width + j)));
        Some(Self {
            run,
            vectors,
            last: first_lanes(outputs - (vectors - 1) * lanes, lanes),
            first: rows.offset as isize * width as isize,
            rows: (0..head)
                .chain(tail..vectors)
                .flat_map(|v| (0..rows.kernel).map(move |i| (v, i)))
                .map(|(v, i)| row(v, i))
                .collect(),
            whole: begin..end,
            unmasked: head..tail,
            columns: (0..period)
                .flat_map(|v| (0..columns.kernel).map(move |j| (v, j)))
                .map(|(v, j)| column(v, j))
                .collect(),
            period,
        })
    }

    /// The masks of vector `v`, one for each of the window's `rows`, and of those after it; `v..v + n` for an `n` up to
    /// [`MOST`] are not all whole.
    pub(super) fn row_masks(&self, v: usize, rows: usize) -> *const u16 {
        let at = if v < self.unmasked.start { v } else { v - self.unmasked.len() };
        self.rows.as_ptr().wrapping_add(at * rows)
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
