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

fn weights(entries: Vec<(&str, Tensor)>) -> Weights {
    let tensors = entries.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
    Weights { file: "w.safetensors".into(), tensors, own: false }
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
    let weights = Weights::read(&path).unwrap();
    assert_eq!(weights.tensors.keys().collect::<Vec<_>>(), ["s", "w"], "the counter is not a weight");
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
    let read = Weights::read(&path).unwrap();
    assert!(tensors.iter().all(|(name, tensor)| read.tensors[*name] == *tensor));
}

#[test]
fn a_cut_file_is_refused_at_any_length() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.safetensors");
    write_safetensors(&path, [("w", &counting([2, 3]))].into_iter()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(matches!(Weights::read(&path), Err(WeightsError::Data(_))), "{length}");
    }
}

#[test]
fn archives_are_read_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.npz");
    std::fs::write(&path, crate::data::npy::tests::archive()).unwrap();
    assert_eq!(Weights::read(&path).unwrap().tensors["x"].ty().to_string(), "f32[6, 2]");
}

#[test]
fn foreign_names_and_transposes_are_mapped() {
    let mut module = module(&[("dense1.weight", Role::Param, matrix())]);
    let text = "weights {dense1.weight = \"fc.weight\" transposed}\n";
    module.recipe = kiln_ir::text::parse_module("m.kiln", text).unwrap().recipe;
    let mut session = Session::new(1).unwrap();
    let weights = weights(vec![("fc.weight", counting([3, 2])), ("extra", counting([2, 3]))]);
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
    let own = Weights::read(&path).unwrap();
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
