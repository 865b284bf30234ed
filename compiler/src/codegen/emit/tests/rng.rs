//! Philox against the known answers of Random123 (`kat_vectors`, philox4x32 with 10 rounds).

use super::*;

/// First words for `(position, counter)` pairs, in lanes.
fn words(key: u64, pairs: &[(i64, i64)]) -> Vec<u32> {
    binary(pairs, |n, x| n.philox(key, x[1], x[0]))
}

#[test]
fn known_answers() {
    assert_eq!(words(0, &[(0, 0); 5]), [0x6627_e8d5; 5]);
    assert_eq!(words(u64::MAX, &[(-1, -1); 5]), [0x408f_276d; 5]);
    // Digits of pi: counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0.
    let position = 0x85a3_08d3_243f_6a88u64 as i64;
    let counter = 0x0370_7344_1319_8a2e_u64 as i64;
    assert_eq!(words(0x299f_31d0_a409_3822, &[(position, counter); 6]), [0xd16c_fe09; 6]);
}

#[test]
fn lanes_and_single_elements_agree() {
    let pairs: Vec<(i64, i64)> = (0..7).map(|i| (i * 0x1_2345_6789 - 3, 41 - i)).collect();
    let together = words(0x1234_5678_9abc_def0, &pairs);
    let alone: Vec<u32> =
        pairs.iter().map(|pair| words(0x1234_5678_9abc_def0, std::slice::from_ref(pair))[0]).collect();
    assert_eq!(together, alone);
}
