#![allow(clippy::unwrap_used, reason = "tests may panic")]

use kiln_ir::{Initializer, State};

use super::*;

fn module(entries: &[(&str, Role, TensorType)]) -> Module {
    let mut module = Module::default();
    for (name, role, ty) in entries {
        let state = State { ty: ty.clone(), role: *role, init: Initializer::Constant(0.0), source: None };
        module.states.insert((*name).into(), state);
    }
    module
}

fn matrix() -> TensorType {
    TensorType::new(DType::F32, [2, 3])
}

/// A file of these tensors, open.
fn weights(entries: Vec<(&str, Tensor)>) -> Weights {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.safetensors");
    write_safetensors(&path, entries.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
    Weights { file: "w.safetensors".into(), ..Weights::open(&path).unwrap() }
}

fn counting(shape: [usize; 2]) -> Tensor {
    Tensor::from_vec(shape, (0..6).map(|i| i as f32).collect()).unwrap()
}

#[test]
fn what_is_saved_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.safetensors");
    let step = TensorType::scalar(DType::I64);
    let module =
        module(&[("w", Role::Param, matrix()), ("s", Role::Statistic, matrix()), ("step", Role::Counter, step)]);
    let mut session = Session::new(1).unwrap();
    session.initialize(&module, 0).unwrap();
    session.set_state("w", &counting([2, 3])).unwrap();
    save(&path, session.states(), &module).unwrap();
    let mut weights = Weights::open(&path).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["s", "w"], "the counter is not a weight");
    let mut other = Session::new(1).unwrap();
    other.initialize(&module, 1).unwrap();
    assert!(weights.apply(&mut other, &module).unwrap().is_empty());
    assert_eq!(*other.states().get("w").unwrap(), counting([2, 3]));
}

#[test]
fn every_element_type_survives() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("all.safetensors");
    let tensors: Vec<(&str, Tensor)> = DType::ALL
        .into_iter()
        .map(|dtype| {
            let bytes: Vec<u8> = (0..3 * dtype.bytes()).map(|i| i as u8 % 2).collect();
            (dtype.name(), Tensor::from_bytes(TensorType::new(dtype, [3]), &bytes).unwrap())
        })
        .collect();
    write_safetensors(&path, tensors.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
    let mut read = Weights::open(&path).unwrap();
    assert!(tensors.iter().all(|(name, tensor)| read.read(name).unwrap().as_ref() == Some(tensor)));
    assert_eq!(read.read("none").unwrap(), None);
}

#[test]
fn a_cut_file_is_refused_at_any_length() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.safetensors");
    write_safetensors(&path, [("w", &counting([2, 3]))].into_iter()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(matches!(Weights::open(&path), Err(WeightsError::Data(_))), "{length}");
    }
}

#[test]
fn archives_are_read_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.npz");
    std::fs::write(&path, crate::data::npy::tests::archive()).unwrap();
    let x = Weights::open(&path).unwrap().read("x").unwrap().unwrap();
    assert_eq!(x.ty().to_string(), "f32[6, 2]");
}

#[test]
fn foreign_names_and_transposes_are_mapped() {
    let mut module = module(&[("dense1.weight", Role::Param, matrix())]);
    let text = "weights {dense1.weight = \"fc.weight\" transposed}\n";
    module.recipe = kiln_ir::text::parse_module("m.kiln", text).unwrap().recipe;
    let mut session = Session::new(1).unwrap();
    let mut weights = weights(vec![("fc.weight", counting([3, 2])), ("extra", counting([2, 3]))]);
    assert_eq!(weights.apply(&mut session, &module).unwrap(), ["extra"]);
    // The transpose of [[0, 1], [2, 3], [4, 5]].
    let state = session.states().get("dense1.weight").unwrap();
    assert_eq!(state.as_slice::<f32>().unwrap(), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
}

#[test]
fn own_files_need_no_map() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.safetensors");
    let mut module = module(&[("a", Role::Param, matrix()), ("b", Role::Param, matrix())]);
    let text = "weights {a = \"b\", b = \"a\"}\n";
    module.recipe = kiln_ir::text::parse_module("m.kiln", text).unwrap().recipe;
    let mut session = Session::new(1).unwrap();
    session.initialize(&module, 0).unwrap();
    session.put_state("b", counting([2, 3])).unwrap();
    save(&path, session.states(), &module).unwrap();
    let mut own = Weights::open(&path).unwrap();
    assert!(own.own);
    let mut other = Session::new(1).unwrap();
    own.apply(&mut other, &module).unwrap();
    assert_eq!(other.states().get("b").unwrap().get(5), Some(5.0));
    // The same names from elsewhere are mapped.
    Weights { own: false, ..own }.apply(&mut other, &module).unwrap();
    assert_eq!(other.states().get("a").unwrap().get(5), Some(5.0));
}

#[test]
fn what_does_not_fit_is_explained() {
    let module = module(&[("w", Role::Param, matrix()), ("v", Role::Param, matrix())]);
    let mut session = Session::new(1).unwrap();
    let refuse = |session: &mut Session, entries| weights(entries).apply(session, &module).unwrap_err().to_string();
    let message = refuse(&mut session, vec![("u", counting([2, 3])), ("v", counting([2, 3]))]);
    assert_eq!(
        message,
        "w.safetensors: there is no tensor `w`; map foreign names with `weights {state = \"name\"}`, the file has `u`, `v`"
    );
    let message = refuse(&mut session, vec![("w", counting([3, 2])), ("v", counting([2, 3]))]);
    assert_eq!(
        message,
        "w.safetensors: tensor `w` is f32[3, 2], but the state @w is f32[2, 3]; it is the transpose: map it with \
         `transposed`"
    );
    assert!(session.states().is_empty(), "nothing is copied on error");
}

#[test]
fn doubles_become_floats() {
    let module = module(&[("w", Role::Param, TensorType::new(DType::F32, [1]))]);
    let mut session = Session::new(1).unwrap();
    let double = Tensor::from_vec([1], vec![0.1_f64]).unwrap();
    weights(vec![("w", double)]).apply(&mut session, &module).unwrap();
    assert_eq!(session.states().get("w").unwrap().as_slice::<f32>().unwrap(), [0.1_f32]);
}

#[test]
fn a_flipped_bit_in_an_archive_is_found_by_its_checksum() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.npz");
    let mut bytes = crate::data::npy::tests::archive();
    // 5.5 is the last element of `x`, stored as it is.
    let element = bytes.windows(4).position(|window| window == 5.5_f32.to_le_bytes()).unwrap();
    bytes[element + 1] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut weights = Weights::open(&path).unwrap();
    let message = weights.read("x").unwrap_err().to_string();
    assert!(message.contains("array `x`: Invalid checksum; the file is damaged"), "{message}");
    assert!(weights.read("y").unwrap().is_some(), "the other array is whole");
}

#[test]
fn no_state_changes_when_the_last_tensor_is_at_fault() {
    let module = module(&[("a", Role::Param, matrix()), ("b", Role::Param, TensorType::new(DType::U8, [1]))]);
    let mut session = Session::new(1).unwrap();
    session.initialize(&module, 0).unwrap();
    let half = Tensor::from_vec([1], vec![0.5_f32]).unwrap();
    let error = weights(vec![("a", counting([2, 3])), ("b", half)]).apply(&mut session, &module).unwrap_err();
    assert!(matches!(error, WeightsError::Conversion { position: 0, .. }), "{error}");
    assert_eq!(session.states().get("a").unwrap().get(5), Some(0.0));
    let wrong = Tensor::from_vec([2], vec![1_u8, 2]).unwrap();
    let given = [("a".into(), counting([2, 3])), ("b".into(), wrong)].into_iter().collect();
    assert!(matches!(session.put_states(given), Err(LoadError::StateType { .. })));
    assert_eq!(session.states().get("a").unwrap().get(5), Some(0.0));
}

#[test]
fn a_new_state_is_the_memory_that_was_read() {
    let module = module(&[("a", Role::Param, matrix()), ("b", Role::Moment, matrix())]);
    let mut session = Session::new(1).unwrap();
    let Fitted { states, unused } =
        weights(vec![("a", counting([2, 3])), ("c", counting([2, 3]))]).fit(&module).unwrap();
    let address = states["a"].as_ptr();
    session.initialize_with(&module, 0, states).unwrap();
    assert_eq!(unused, ["c"]);
    assert_eq!(session.states().get("a").unwrap().as_ptr(), address);
    assert_eq!(session.states().iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["a", "b"]);
    let stray = [("c".into(), counting([2, 3]))].into_iter().collect();
    let error = session.initialize_with(&module, 0, stray).unwrap_err();
    assert_eq!(error, LoadError::UnknownState { state: "c".into() });
}

#[test]
fn both_kinds_of_file_can_come_through_a_pipe() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.safetensors");
    write_safetensors(&path, [("x", &counting([2, 3]))].into_iter()).unwrap();
    for bytes in [std::fs::read(&path).unwrap(), crate::data::npy::tests::archive()] {
        let pipe = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        if !made.is_ok_and(|status| status.success()) {
            return;
        }
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::write(pipe, bytes).unwrap()
        });
        assert!(Weights::open(&pipe).unwrap().read("x").unwrap().is_some());
        writer.join().unwrap();
        std::fs::remove_file(pipe).unwrap();
    }
}
