//! The counter-based generator Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

/// A random function of a counter.
#[derive(Clone, Copy, Debug)]
pub struct Philox {
    key: [u32; 2],
}

impl Philox {
    /// The function with this key.
    pub fn new(key: u64) -> Philox {
        Philox { key: [key as u32, (key >> 32) as u32] }
    }

    /// Four random words for a counter of 64 bits.
    pub fn block(&self, counter: u64) -> [u32; 4] {
        self.block_at([counter as u32, (counter >> 32) as u32, 0, 0])
    }

    /// Four random words for a counter of 128 bits, least significant word first.
    pub fn block_at(&self, counter: [u32; 4]) -> [u32; 4] {
        let [mut k0, mut k1] = self.key;
        let mut words = counter;
        for _ in 0..10 {
            let [a, b, c, d] = words;
            let (p, q) = (u64::from(a) * 0xD251_1F53, u64::from(c) * 0xCD9E_8D57);
            words = [(q >> 32) as u32 ^ b ^ k0, q as u32, (p >> 32) as u32 ^ d ^ k1, p as u32];
            k0 = k0.wrapping_add(0x9E37_79B9);
            k1 = k1.wrapping_add(0xBB67_AE85);
        }
        words
    }

    /// A number in `0..bound`, for a counter. The bias of the multiplication is below `bound / 2^64`.
    pub fn below(&self, counter: u64, bound: u64) -> u64 {
        let [low, high, ..] = self.block(counter);
        let random = u64::from(high) << 32 | u64::from(low);
        ((u128::from(random) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the Random123 library, `kat_vectors`.
    #[test]
    fn known_answers() {
        let zero = Philox { key: [0, 0] }.block_at([0; 4]);
        assert_eq!(zero, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = Philox { key: [u32::MAX; 2] }.block_at([u32::MAX; 4]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi =
            Philox { key: [0xa409_3822, 0x299f_31d0] }.block_at([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn below_stays_below() {
        let philox = Philox::new(5);
        let mut seen = [0_u32; 6];
        for counter in 0..6000 {
            if let Some(count) = seen.get_mut(philox.below(counter, 6) as usize) {
                *count += 1;
            }
        }
        assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
    }
}
