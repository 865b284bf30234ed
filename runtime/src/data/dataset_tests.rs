#![allow(clippy::unwrap_used, reason = "tests may panic")]

use kiln_ir::DType;

use super::*;

fn inputs() -> Vec<Binding> {
    let label = Binding { below: Some(3), ..Binding::new("label", TensorType::new(DType::I32, [4])) };
    vec![Binding::new("x", TensorType::new(DType::F32, [4, 1, 2])), label]
}

fn arrays(entries: Vec<(&str, Tensor)>) -> IndexMap<String, Tensor> {
    entries.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
}

fn images(n: usize) -> Tensor {
    Tensor::from_vec([n, 2], (0..2 * n).map(|i| i as u8).collect()).unwrap()
}

fn labels(values: &[i64]) -> Tensor {
    Tensor::from_vec([values.len()], values.to_vec()).unwrap()
}

fn refusal(entries: Vec<(&str, Tensor)>) -> String {
    Dataset::new("d.npz", arrays(entries), &inputs()).unwrap_err().to_string()
}

#[test]
fn a_batch_is_gathered_and_converted() {
    let arrays = arrays(vec![("y", labels(&[0, 1, 2, 0, 1])), ("x", images(5))]);
    let data = Dataset::new("d.npz", arrays, &inputs()).unwrap();
    assert_eq!(data.examples(), 5);
    let mut x = Tensor::zeros(TensorType::new(DType::F32, [2, 1, 2])).unwrap();
    data.fill(&"x".into(), &[3, 0], &mut x).unwrap();
    assert_eq!(x.as_slice::<f32>().unwrap(), [6.0, 7.0, 0.0, 1.0]);
    let mut label = Tensor::zeros(TensorType::new(DType::I32, [2])).unwrap();
    data.fill(&"label".into(), &[2, 4], &mut label).unwrap();
    assert_eq!(label.as_slice::<i32>().unwrap(), [2, 1]);
    assert!(data.fill(&"label".into(), &[2, 5], &mut label).is_err());
    assert!(data.fill(&"z".into(), &[2, 4], &mut label).is_err());
}

#[test]
fn the_checksum_is_of_the_used_content() {
    let of = |first: i64, extra: u8| {
        let unused = Tensor::scalar(extra).unwrap();
        let arrays = arrays(vec![("x", images(2)), ("label", labels(&[first, 1])), ("note", unused)]);
        Dataset::new("d.npz", arrays, &inputs()).unwrap().checksum()
    };
    assert_eq!(of(0, 1), of(0, 2));
    assert_ne!(of(0, 1), of(2, 1));
}

#[test]
fn a_missing_array_lists_what_there_is() {
    assert_eq!(
        refusal(vec![("x", images(2)), ("target", labels(&[0, 1]))]),
        "d.npz: there is no array for the input %label; save one as `label` or `y`, the file has `x`, `target`"
    );
}

#[test]
fn a_wrong_shape_names_both() {
    let square = Tensor::from_vec([2, 3], vec![0_u8; 6]).unwrap();
    assert_eq!(
        refusal(vec![("x", square), ("y", labels(&[0, 1]))]),
        "d.npz: array `x` is [2, 3], but %x needs [examples, 1, 2]; save the array in that shape, or declare its shape \
         in the script"
    );
}

#[test]
fn channels_last_images_are_not_taken_for_channels_first() {
    let input = [Binding::new("x", TensorType::new(DType::F32, [4, 3, 2, 2]))];
    let images = Tensor::zeros(TensorType::new(DType::U8, [5, 2, 2, 3])).unwrap();
    let message = Dataset::new("d.npz", arrays(vec![("x", images)]), &input).unwrap_err().to_string();
    assert!(message.contains("reshape or transpose the array"), "{message}");
}

#[test]
fn lengths_must_agree() {
    let message = refusal(vec![("x", images(3)), ("y", labels(&[0, 1]))]);
    assert!(message.starts_with("d.npz: array `x` has 3 examples, but `y` has 2;"), "{message}");
}

#[test]
fn a_label_out_of_range_is_found() {
    assert_eq!(
        refusal(vec![("x", images(3)), ("y", labels(&[0, 2, 3]))]),
        "d.npz: array `y` holds 3 at position 2 (example 2), but %label is declared below 3; correct the data, or raise \
         the bound in the script"
    );
    let message = refusal(vec![("x", images(2)), ("y", labels(&[0, -1]))]);
    assert!(message.contains("holds -1 at position 1"), "{message}");
}

#[test]
fn a_label_that_is_no_integer_is_found() {
    let floats = Tensor::from_vec([2], vec![1.0_f64, 1.5]).unwrap();
    let message = refusal(vec![("x", images(2)), ("y", floats)]);
    assert!(message.contains("holds 1.5 at position 1 (example 1), which is no i32, the type of %label"), "{message}");
}

#[test]
fn no_examples_are_refused() {
    assert_eq!(refusal(vec![("x", images(0)), ("y", labels(&[]))]), "d.npz: there are no examples; add examples");
}
