//! The minimal filtering algorithms there are.

use std::fmt;

use super::WinogradTile;

/// F(m, r) along one or both dimensions of a plane: tiles of `m` or `m x m` outputs of a kernel of `r` or `r x r` taps.
/// Levels keep their transforms in this order, which is that of `filter::each_algorithm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// F(2 x 2, 3 x 3)
    F23,
    /// F(4 x 4, 3 x 3)
    F43,
    /// F(2 x 2, 5 x 5)
    F25,
    /// F(1 x 4, 1 x 3)
    Row43,
    /// F(1 x 2, 1 x 5)
    Row25,
    /// F(4 x 1, 3 x 1)
    Column43,
    /// F(2 x 1, 5 x 1)
    Column25,
}

/// How many there are.
pub(super) const ALGORITHMS: usize = 7;

impl Algorithm {
    /// All of them.
    pub(super) const ALL: [Algorithm; ALGORITHMS] = [
        Algorithm::F23,
        Algorithm::F43,
        Algorithm::F25,
        Algorithm::Row43,
        Algorithm::Row25,
        Algorithm::Column43,
        Algorithm::Column25,
    ];

    /// The one for tiles of a size and kernels of so many rows and columns, if there is one.
    pub(super) fn of(tile: WinogradTile, taps: (usize, usize)) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|a| a.tile() == tile && a.taps() == taps)
    }

    /// Whether there is one for kernels of so many rows and columns.
    pub(super) fn knows(taps: (usize, usize)) -> bool {
        Algorithm::ALL.iter().any(|a| a.taps() == taps)
    }

    /// Size of the output tiles.
    pub(super) fn tile(self) -> WinogradTile {
        match self {
            Algorithm::F23 | Algorithm::F25 | Algorithm::Row25 | Algorithm::Column25 => WinogradTile::Two,
            Algorithm::F43 | Algorithm::Row43 | Algorithm::Column43 => WinogradTile::Four,
        }
    }

    /// Rows and columns of a tile's outputs.
    pub(super) fn outputs(self) -> (usize, usize) {
        self.along(self.tile().size())
    }

    /// Rows and columns of a kernel.
    pub(super) fn taps(self) -> (usize, usize) {
        self.along(match self {
            Algorithm::F23 | Algorithm::F43 | Algorithm::Row43 | Algorithm::Column43 => 3,
            Algorithm::F25 | Algorithm::Row25 | Algorithm::Column25 => 5,
        })
    }

    /// Rows and columns of a tile's inputs, `m + r - 1`.
    pub(super) fn inputs(self) -> (usize, usize) {
        let (outputs, taps) = (self.outputs(), self.taps());
        (outputs.0 + taps.0 - 1, outputs.1 + taps.1 - 1)
    }

    /// Products of a tile, which are the positions of a transformed tile.
    pub(super) fn positions(self) -> usize {
        let inputs = self.inputs();
        inputs.0 * inputs.1
    }

    /// So many in the dimensions in which it filters, one in the other.
    fn along(self, count: usize) -> (usize, usize) {
        match self {
            Algorithm::F23 | Algorithm::F43 | Algorithm::F25 => (count, count),
            Algorithm::Row43 | Algorithm::Row25 => (1, count),
            Algorithm::Column43 | Algorithm::Column25 => (count, 1),
        }
    }
}

/// `f4x3` for F(4 x 4, 3 x 3), `f4x3-row` for F(1 x 4, 1 x 3).
impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (outputs, taps) = (self.outputs(), self.taps());
        write!(f, "f{}x{}", outputs.0.max(outputs.1), taps.0.max(taps.1))?;
        match taps {
            (1, _) => f.write_str("-row"),
            (_, 1) => f.write_str("-column"),
            _ => Ok(()),
        }
    }
}
