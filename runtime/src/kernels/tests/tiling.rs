use super::super::{Columns, Product, Tiling};

const SIZES: [usize; 12] = [1, 3, 10, 16, 27, 64, 100, 288, 1000, 1024, 5408, 28800];

fn plan_tiles(g: usize, m: usize, n: usize, k: usize, mr: usize, nr: usize) -> Tiling {
    Product { g, m, n, k, mr, nr, rows_packed: false, columns: Columns::ByTile }.tiling()
}

#[test]
fn blocks_cover_everything_and_align() {
    for (m, n, k) in SIZES.iter().flat_map(|m| SIZES.iter().flat_map(move |n| SIZES.iter().map(move |k| (*m, *n, *k))))
    {
        for (mr, nr) in [(14.min(m), 32), (4.min(m), 8)] {
            let t = plan_tiles(2, m, n, k, mr, nr);
            let what = format!("{m} {n} {k} {t:?}");
            assert_eq!((t.mc % mr, t.nc % nr), (0, 0), "{what}");
            // Groups of lanes along k begin at multiples of 16.
            assert!(t.kc >= k || t.kc.is_multiple_of(16), "{what}");
            assert!(t.k_splits == 1 || t.k_chunk.is_multiple_of(t.kc), "{what}");
            // Tiles differ by one panel at most, and none is empty.
            assert_eq!(t.mc / mr, m.div_ceil(mr).div_ceil(t.m_tiles), "{what}");
            assert_eq!(t.nc / nr, n.div_ceil(nr).div_ceil(t.n_tiles), "{what}");
            assert!(t.m_tiles <= m.div_ceil(mr) && t.n_tiles <= n.div_ceil(nr), "{what}");
            assert_eq!(t.k_splits, k.div_ceil(t.k_chunk), "{what}");
        }
    }
}

#[test]
fn little_work_is_one_tile_and_much_is_shared() {
    let tiles = |m, n, k| {
        let t = plan_tiles(1, m, n, k, 14, 32);
        t.m_tiles * t.n_tiles * t.k_splits
    };
    assert_eq!(tiles(32, 32, 64), 1);
    assert!(tiles(64, 64, 64) <= 2);
    for (m, n, k) in [(1024, 1024, 1024), (64, 5408, 288), (32, 28800, 27), (64, 288, 5408)] {
        assert!((8..=64).contains(&tiles(m, n, k)), "{m} {n} {k}: {}", tiles(m, n, k));
    }
}
