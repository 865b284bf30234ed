//! Cutting a parallel domain into tiles: a function of shapes only, so that results do not depend on threads.

use super::nest::{Index, Var};

/// Cost of a tile in nanoseconds below which handing it to a thread costs more than it saves.
const SMALLEST_TILE_NS: f64 = 20_000.0;
/// More tiles than this do not balance better.
pub(super) const MOST_TILES: u64 = 64;

/// `extent` items in `tiles` tiles of `size` items, the last one perhaps smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Number of tiles.
    pub tiles: u64,
    /// Items per tile.
    pub size: u64,
    /// Items in all.
    pub extent: u64,
}

impl Tiling {
    /// Cuts `extent` items, each of which takes about `nanoseconds`, into tiles whose size is a multiple of `multiple`
    /// (a vector or cache line, so that two workers do not write one line).
    pub fn new(extent: u64, nanoseconds: f64, multiple: u64) -> Tiling {
        Tiling::of_at_least(extent, nanoseconds, multiple, 1)
    }

    /// As [`Tiling::new`], in tiles of at least `least` items.
    pub(super) fn of_at_least(extent: u64, nanoseconds: f64, multiple: u64, least: u64) -> Tiling {
        let wanted = (SMALLEST_TILE_NS / nanoseconds.max(1e-3)).ceil() as u64;
        let size = wanted
            .max(extent.div_ceil(MOST_TILES))
            .max(least)
            .max(1)
            .next_multiple_of(multiple.max(1))
            .min(extent.max(1));
        Tiling { tiles: extent.div_ceil(size), size, extent }
    }

    /// First item of the tile.
    pub fn begin(&self) -> Index {
        Index::var(Var::TILE) * self.size as i64
    }

    /// First item after the tile.
    pub fn end(&self) -> Index {
        let end = self.begin() + self.size as i64;
        match (self.tiles, self.extent % self.size) {
            (0 | 1, _) => Index::constant(self.extent as i64),
            (_, 0) => end,
            _ => end.at_most(self.extent as i64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_the_domain_once() {
        for extent in [0u64, 1, 63, 64, 1000, 1 << 20, (1 << 20) + 1] {
            let tiling = Tiling::new(extent, 1.0, 16);
            assert!(tiling.tiles * tiling.size >= extent);
            assert!(tiling.tiles == 0 || (tiling.tiles - 1) * tiling.size < extent);
            assert!(tiling.tiles <= MOST_TILES);
        }
    }

    #[test]
    fn small_domains_stay_whole() {
        assert_eq!(Tiling::new(100, 1.0, 16).tiles, 1);
        assert_eq!(Tiling::new(100, 1.0, 16).end(), Index::constant(100));
    }
}
