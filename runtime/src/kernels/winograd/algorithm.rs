//! The minimal filtering algorithms there are.

use std::fmt;

use super::WinogradTile;

/// F(m x m, r x r): tiles of `m x m` outputs of a kernel of `r x r` taps. Levels keep their transforms in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// F(2 x 2, 3 x 3)
    F23,
    /// F(4 x 4, 3 x 3)
    F43,
    /// F(2 x 2, 5 x 5)
    F25,
}

impl Algorithm {
    /// All of them.
    pub(super) const ALL: [Algorithm; 3] = [Algorithm::F23, Algorithm::F43, Algorithm::F25];

    /// The one for tiles of a size and kernels of `taps x taps`, if there is one.
    pub(super) fn of(tile: WinogradTile, taps: usize) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|a| a.tile() == tile && a.taps() == taps)
    }

    /// Whether there is one for kernels of `taps x taps`.
    pub(super) fn knows(taps: usize) -> bool {
        Algorithm::ALL.iter().any(|a| a.taps() == taps)
    }

    /// Size of the output tiles.
    pub(super) fn tile(self) -> WinogradTile {
        match self {
            Algorithm::F23 | Algorithm::F25 => WinogradTile::Two,
            Algorithm::F43 => WinogradTile::Four,
        }
    }

    /// `m`, outputs of a tile's row.
    pub(super) fn outputs(self) -> usize {
        self.tile().size()
    }

    /// `r`, taps of a kernel's row.
    pub(super) fn taps(self) -> usize {
        match self {
            Algorithm::F23 | Algorithm::F43 => 3,
            Algorithm::F25 => 5,
        }
    }

    /// Inputs of a tile's row, `m + r - 1`.
    pub(super) fn inputs(self) -> usize {
        self.outputs() + self.taps() - 1
    }

    /// Products of a tile, which are the positions of a transformed tile.
    pub(super) fn positions(self) -> usize {
        self.inputs() * self.inputs()
    }
}

/// `f4x3` for F(4 x 4, 3 x 3).
impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{}x{}", self.outputs(), self.taps())
    }
}
