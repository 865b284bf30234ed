//! Binding of dimension names.

use super::*;
use crate::types::{Bindings, DType, TensorType};

const TEXT: &str = "state @w: f32[n, 3] = param he
graph @f(%x: f32[batch, n*2 - 1]) {
  %y: f32[batch, n*2 - 1] = relu %x
  %g: f32[batch, n*2 - 1] = fused %y {kind = \"map\"} { (%a: f32[batch, n*2 - 1]) ->
    %b: f32[batch, n*2 - 1] = exp %a
    yield %b
  }
  %r: f32[batch*2*n - batch] = reshape %g
  return %r
}
";

fn bindings(pairs: &[(&str, usize)]) -> Bindings {
    pairs.iter().map(|&(name, value)| (name.into(), value)).collect()
}

#[test]
fn every_type_gets_numbers_and_keeps_labels() {
    let bound = module(TEXT).bind(&bindings(&[("batch", 4), ("n", 3)])).unwrap();
    assert_eq!(bound.states["w"].ty, TensorType::new(DType::F32, [3, 3]));
    let graph = bound.graph("f").unwrap();
    let y = graph.values().nth(1).unwrap();
    assert_eq!(graph.ty(y), &TensorType::new(DType::F32, [4, 5]));
    let labels: Vec<_> = graph.ty(y).shape.dims().iter().map(|d| d.label().unwrap().to_string()).collect();
    assert_eq!(labels, ["batch", "n*2 - 1"]);
    assert_eq!(graph.ty(graph.returns()[0]), &TensorType::new(DType::F32, [20]));
    let text = print(&bound, &PrintOptions::default());
    assert_eq!(module(&text), bound);
    assert!(!text.contains("batch"), "{text}");
}

#[test]
fn names_can_be_bound_one_after_the_other() {
    let whole = module(TEXT);
    let first = whole.bind(&bindings(&[("n", 3)])).unwrap();
    assert!(print(&first, &PrintOptions::default()).contains("%x: f32[batch, 5]"));
    let second = first.bind(&bindings(&[("batch", 4)])).unwrap();
    assert_eq!(second, whole.bind(&bindings(&[("batch", 4), ("n", 3)])).unwrap());
}

#[test]
fn a_negative_extent_is_an_error() {
    let errors = module(TEXT).bind(&bindings(&[("batch", 4), ("n", 0)])).unwrap_err();
    assert!(errors.iter().all(|d| d.label == "dim.size"), "{errors:#?}");
    assert!(errors[0].message.contains("`-1`"), "{}", errors[0].message);
}
