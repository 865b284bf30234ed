//! Convolutions of one dimension as such of planes, for which there are algorithms.
//!
//! A line is a plane of one row. Taps that are `d` elements apart are neighbours in the columns of a plane of `d` columns,
//! if the line, its output and its padding are whole rows of it: element `i` is column `i % d` of row `i / d`.

use std::borrow::Cow;

use super::super::spec::{AffineDim, AffineRead, ContractSpec};

/// The same contraction with loops for rows and columns in place of that of a line's position, and in place of that of its
/// taps; any other contraction as it is.
pub(super) fn as_plane(spec: &ContractSpec) -> Cow<'_, ContractSpec> {
    let plane = || {
        let (line, apart) = line_of(spec)?;
        let plane = Plane { line, columns: (apart > 1).then_some(apart) };
        plane.of(spec)
    };
    plane().map_or(Cow::Borrowed(spec), Cow::Owned)
}

/// Numbers of the loops of a line.
#[derive(Clone, Copy)]
struct Line {
    position: usize,
    tap: usize,
}

/// The line that one operand reads through taps, and how far they are apart. The other loops of the outputs are images and
/// channels: more would be a plane.
fn line_of(spec: &ContractSpec) -> Option<(Line, usize)> {
    let [b, m, n, k] = [&spec.batch, &spec.m, &spec.n, &spec.k].map(Vec::len);
    let plain = |count: usize| count == 1;
    if k != 2 || !(plain(m) && n == 2 || plain(n) && m == 2) {
        return None;
    }
    // Where both move by one, either may be called the position: a plane of one row treats them alike.
    // Positions come behind images, taps behind channels: the last loop of the pair among the outputs, and of the sum.
    let (outer, inner) = (if n == 2 { b + m + 1 } else { b + 1 }, b + m + n + 1);
    let through = |read: &AffineRead| {
        read.dims.iter().find_map(|dim| {
            let of = |number: usize| dim.terms.iter().filter(|t| t.0 == number).map(|t| t.1).sum::<i64>();
            match (of(outer), of(inner)) {
                (1, apart) if apart != 0 => Some((Line { position: outer, tap: inner }, apart)),
                (apart, 1) if apart != 0 => Some((Line { position: inner, tap: outer }, apart)),
                _ => None,
            }
        })
    };
    let (line, apart) = through(&spec.left).or_else(|| through(&spec.right))?;
    Some((line, usize::try_from(apart.unsigned_abs()).ok()?))
}

struct Plane {
    line: Line,
    /// None for a plane of one row.
    columns: Option<usize>,
}

impl Plane {
    fn of(&self, spec: &ContractSpec) -> Option<ContractSpec> {
        let mut plane = spec.clone();
        let mut number = 0;
        for extents in [&mut plane.batch, &mut plane.m, &mut plane.n, &mut plane.k] {
            let mut split = Vec::with_capacity(extents.len() + 1);
            for &extent in extents.iter() {
                split.extend(self.extents(number, extent)?);
                number += 1;
            }
            *extents = split;
        }
        plane.left = self.read(&spec.left)?;
        plane.right = self.read(&spec.right)?;
        plane.out_strides = Vec::with_capacity(spec.out_strides.len() + 1);
        let outputs = spec.batch.iter().chain(&spec.m).chain(&spec.n);
        for (number, (&stride, &extent)) in spec.out_strides.iter().zip(outputs).enumerate() {
            let (columns, extent) = (self.columns.unwrap_or(1) as i64, extent as i64);
            let rows = match self.columns {
                None => extent * stride,
                Some(_) if number == self.line.tap => stride,
                Some(_) => columns * stride,
            };
            plane.out_strides.extend((number == self.line.position || number == self.line.tap).then_some(rows));
            plane.out_strides.push(stride);
        }
        Some(plane)
    }

    /// Rows and columns of one of the line's loops; the extent of any other.
    fn extents(&self, number: usize, extent: usize) -> Option<Vec<usize>> {
        Some(match self.columns {
            _ if number != self.line.position && number != self.line.tap => vec![extent],
            None => vec![1, extent],
            Some(_) if number == self.line.tap => vec![extent, 1],
            Some(columns) => vec![exactly(extent as i64, columns)? as usize, columns],
        })
    }

    /// Number of the loop of the columns of a line's, or of any other loop.
    fn renumbered(&self, number: usize) -> usize {
        number + usize::from(number >= self.line.position) + usize::from(number >= self.line.tap)
    }

    fn read(&self, read: &AffineRead) -> Option<AffineRead> {
        let mut dims = Vec::with_capacity(read.dims.len() + 1);
        for dim in &read.dims {
            let has = |number: usize| dim.terms.iter().any(|t| t.0 == number && t.1 != 0);
            match has(self.line.position) {
                true => dims.extend(self.split(dim, has(self.line.tap))?),
                false => dims.push(AffineDim { terms: self.terms(dim), ..dim.clone() }),
            }
        }
        Some(AffineRead { dims })
    }

    /// Rows and columns of a dimension that positions move along, and taps too if it is `tapped`.
    fn split(&self, dim: &AffineDim, tapped: bool) -> Option<[AffineDim; 2]> {
        let [y, x] = [self.renumbered(self.line.position) - 1, self.renumbered(self.line.position)];
        let [tap_y, tap_x] = [self.renumbered(self.line.tap) - 1, self.renumbered(self.line.tap)];
        let whole = AffineDim { terms: self.terms(dim), ..dim.clone() };
        let terms = |position: usize, tap: usize, sign: i64| match tapped {
            true => vec![(position, 1), (tap, sign)],
            false => vec![(position, 1)],
        };
        let Some(columns) = self.columns else {
            let row = AffineDim { terms: terms(y, tap_y, 1), offset: 0, divisor: 1, extent: 1, stride: 0 };
            return Some([row, whole]);
        };
        let sign = dim.terms.iter().filter(|t| t.0 == self.line.tap).map(|t| t.1.signum()).sum();
        let only =
            dim.terms.iter().all(|t| t.0 == self.line.tap || (t.0 == self.line.position && t.1 == 1) || t.1 == 0);
        if !only || dim.divisor != 1 {
            return None;
        }
        let rows = AffineDim {
            terms: terms(y, tap_y, sign),
            offset: exactly(dim.offset, columns)?,
            divisor: 1,
            extent: exactly(dim.extent as i64, columns)? as usize,
            stride: dim.stride * columns as i64,
        };
        Some([
            rows,
            AffineDim { terms: terms(x, tap_x, 1), offset: 0, divisor: 1, extent: columns, stride: dim.stride },
        ])
    }

    /// The terms of a dimension, by the loops of a plane: a line's become those of the dimension in which it has taps.
    fn terms(&self, dim: &AffineDim) -> Vec<(usize, i64)> {
        let rows = self.columns.is_some();
        let moved = |&(number, coefficient): &(usize, i64)| {
            let in_rows = rows && number == self.line.tap;
            (self.renumbered(number) - usize::from(in_rows), coefficient)
        };
        dim.terms.iter().map(moved).collect()
    }
}

/// `value / by`, if that is whole.
fn exactly(value: i64, by: usize) -> Option<i64> {
    let by = by as i64;
    (value % by == 0).then_some(value / by)
}
