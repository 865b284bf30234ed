#![allow(clippy::unwrap_used, reason = "tests may panic")]
use super::*;

fn example() -> (Identity, Position, Session) {
    let identity = Identity(vec![("script".into(), 7), ("data".into(), 8), ("seed".into(), 1)]);
    let history = History {
        train_names: vec!["loss".into()],
        test_names: vec!["loss".into()],
        epochs: vec![EpochSummary { train: vec![0.1], test: vec![f64::NAN] }],
    };
    let losses = vec![1.5, 0.1 + 0.2];
    let position = Position { epoch: 1, step_in_epoch: 2, step: 9, examples: 64, sums: vec![3.25], losses, history };
    let mut session = Session::new(1).unwrap();
    session.put_state("w", Tensor::from_vec([2, 2], vec![1.0_f32, -0.0, f32::NAN, 3.0]).unwrap()).unwrap();
    session.put_state("step", Tensor::scalar(9_i64).unwrap()).unwrap();
    (identity, position, session)
}

fn encoded(identity: &Identity, position: &Position, states: &StateStore) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, identity, position, states).unwrap();
    bytes
}

#[test]
fn what_is_saved_is_restored() {
    let (identity, position, session) = example();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.ckpt");
    save(&path, &identity, &position, session.states()).unwrap();
    let checkpoint = Checkpoint::read(&path).unwrap();
    checkpoint.check(&identity).unwrap();
    // NaN is unequal to itself, its text is not.
    assert_eq!(format!("{:?}", checkpoint.position), format!("{position:?}"));
    let mut other = Session::new(1).unwrap();
    other.put_state("step", Tensor::scalar(0_i64).unwrap()).unwrap();
    other.put_state("w", Tensor::from_vec([2, 2], vec![0.0_f32; 4]).unwrap()).unwrap();
    checkpoint.restore(&mut other).unwrap();
    assert!(session.states().iter().all(|(name, tensor)| other.states().get(name) == Some(tensor)));
}

#[test]
fn a_cut_checkpoint_is_refused_at_any_length() {
    let (identity, position, session) = example();
    let whole = encoded(&identity, &position, session.states());
    for length in 0..whole.len() {
        let error = Checkpoint::decode("c".into(), &whole[..length]).unwrap_err();
        assert!(matches!(error, CheckpointError::Truncated { .. }), "{length}: {error}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(matches!(Checkpoint::decode("c".into(), &longer), Err(CheckpointError::Damaged { .. })));
}

#[test]
fn a_changed_byte_is_noticed_anywhere() {
    let (identity, position, session) = example();
    let whole = encoded(&identity, &position, session.states());
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            assert!(Checkpoint::decode("c".into(), &bytes).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn lies_with_a_valid_checksum_are_refused() {
    let (identity, position, session) = example();
    let whole = encoded(&identity, &position, session.states());
    for at in HEADER..whole.len() - 4 {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        let end = bytes.len() - 4;
        let checksum = crc32fast::hash(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&checksum);
        // Values may differ; nothing may panic or exhaust memory.
        let _ = Checkpoint::decode("c".into(), &bytes);
    }
}

#[test]
fn the_part_that_differs_is_named() {
    let (identity, position, session) = example();
    let whole = encoded(&identity, &position, session.states());
    let checkpoint = Checkpoint::decode("c.ckpt".into(), &whole).unwrap();
    for (i, (part, _)) in identity.0.iter().enumerate() {
        let mut other = identity.clone();
        other.0[i].1 += 1;
        let message = checkpoint.check(&other).unwrap_err().to_string();
        assert!(message.starts_with(&format!("c.ckpt: the checkpoint was made with another {part}; ")), "{message}");
    }
}
