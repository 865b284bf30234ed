//! The spec holds: its examples compute, its labels are complete, its gradients are derivatives.

use std::collections::BTreeSet;

use super::*;
use crate::builder::{GraphBuilder, Tensor};
use crate::graph::{Def, Graph, Node};
use crate::op::{Gradient, Vjp};
use crate::reference::{Array, Data, Evaluator};
use crate::scalar::Number;
use crate::types::TensorType;

/// Labels in string literals of the rules, tests excepted.
fn labels_in_code() -> BTreeSet<String> {
    let sources = FAMILIES.iter().flat_map(|f| f.sources);
    let code = sources.map(|s| s.split("#[cfg(test)]").next().unwrap_or_default());
    code.flat_map(|s| s.split('"')).filter(|s| is_label(s)).map(str::to_owned).collect()
}

#[test]
fn every_label_in_a_message_is_documented() {
    let documented: BTreeSet<String> = constraints().into_iter().map(|c| c.label).collect();
    let missing: Vec<_> = labels_in_code().difference(&documented).cloned().collect();
    assert!(missing.is_empty(), "write these into the doc comment above the rule: {missing:?}");
}

#[test]
fn every_op_has_an_example() {
    let have: BTreeSet<&str> = examples().iter().map(|e| e.mnemonic).collect();
    let missing: Vec<_> = crate::op::table().map(|e| e.mnemonic).filter(|m| !have.contains(m)).collect();
    assert!(missing.is_empty(), "add a graph of this name to ir-spec/spec/examples: {missing:?}");
}

#[test]
fn every_example_belongs_to_an_op() {
    let stray: Vec<_> = examples().iter().map(|e| e.mnemonic).filter(|m| crate::op::entry(m).is_none()).collect();
    assert!(stray.is_empty(), "{stray:?}");
}

#[test]
fn every_example_names_what_it_returns() {
    for example in examples() {
        let module = example.module();
        assert!(module.is_ok(), "{module:?}");
        let Some(graph) = module.as_ref().ok().and_then(|m| m.graph(example.mnemonic)) else { continue };
        let returned: Vec<&str> = graph.returns().iter().map(|&v| &**graph.value_name(v)).collect();
        let expected: Vec<&str> = example.expected.iter().map(|(name, _)| *name).collect();
        assert_eq!(returned, expected, "{}", example.mnemonic);
        assert!(graph.nodes().any(|(_, data)| data.op.mnemonic() == example.mnemonic), "{}", example.mnemonic);
    }
}

#[test]
fn every_example_has_the_numbers_it_expects() {
    let mut wrong = Vec::new();
    for example in examples().iter().filter(|e| e.passes.is_empty()) {
        let outcome = example.module().and_then(|module| example.compare(&module));
        if let Err(message) = outcome {
            wrong.push(format!("{} @{}: {message}", example.file, example.mnemonic));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_part_that_the_preface_asks_for_is_generated() {
    let rendered = render();
    let asked: Vec<&str> = rendered.lines().skip(1).filter(|line| line.starts_with("<!--")).collect();
    assert!(asked.is_empty(), "{asked:?}");
    // One witness of each, from the last line of its source.
    for text in
        ["float      = digit", "### Layer `binary_accuracy`", "| `clip` |", "- `rmsprop {rate", "`script.S14`", "`V11`"]
    {
        assert!(rendered.contains(text), "{text}");
    }
}

/// Labels as code writes them: `"script.S3"`, `fault("L2"`.
#[test]
fn every_label_of_a_script_or_layer_is_documented() {
    let scripts = [
        include_str!("../script.rs"),
        include_str!("../script/application.rs"),
        include_str!("../script/body.rs"),
        include_str!("../script/expression.rs"),
        include_str!("../script/training.rs"),
        include_str!("../model.rs"),
        include_str!("../model/assemble.rs"),
    ];
    let is_script = |s: &&str| s.starts_with("script.S") || s.starts_with("model.C");
    let used: BTreeSet<&str> = scripts.iter().flat_map(|s| s.split('"')).filter(is_script).collect();
    let documented: BTreeSet<String> = script_labels().into_iter().map(|c| c.label).collect();
    let missing: Vec<_> = used.iter().filter(|label| !documented.contains(**label)).collect();
    assert!(missing.is_empty() && used.len() > 15, "{missing:?}");
    let layers: BTreeSet<&str> = crate::layer::TABLE.iter().map(|entry| entry.mnemonic).chain(["layer"]).collect();
    for constraint in layer_constraints() {
        let layer = constraint.label.split('.').next().unwrap_or_default();
        assert!(layers.contains(layer), "`{}` belongs to no layer", constraint.label);
    }
}

#[test]
fn spec_md_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/SPEC.md");
    let rendered = render();
    if std::env::var_os("KILN_BLESS").is_some() {
        assert!(std::fs::write(path, &rendered).is_ok());
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == rendered, "SPEC.md is stale: KILN_BLESS=1 cargo test -p kiln-ir spec_md_is_fresh");
}

/// Weights of a result's elements in the scalar that is derived, and inputs away from the kinks of the ops.
fn spread(ty: &TensorType, low: f64, high: f64, seed: usize) -> Array {
    // Multiples of the golden ratio modulo 1: distinct, evenly spread, the same in every run.
    let at = |p: usize| low + (high - low) * ((p + 7 * seed + 1) as f64 * 0.618_033_988_749_895).fract();
    Array::from_numbers(ty.clone(), |p| Some(Number::Float(at(p)))).unwrap_or_else(|| Array::scalar(ty.dtype, 0.0))
}

/// Weighted sum of the first result of `node`.
fn weighted(graph: &Graph, node: Node, inputs: &[Array], weights: &Array) -> f64 {
    let mut sum = f64::NAN;
    let observed = Evaluator::wide().evaluate_observed(graph, inputs, &|_| None, &mut |seen, results| {
        if seen == node {
            sum = results[0].to_f64().iter().zip(weights.to_f64()).map(|(y, w)| y * w).sum();
        }
    });
    assert!(observed.is_ok(), "{observed:?}");
    sum
}

/// What the rule gives for each operand, evaluated.
fn rule(graph: &Graph, node: Node, inputs: &[Array], weights: &Array) -> Option<Vec<Option<Array>>> {
    let data = graph.node(node);
    let mut seeded = graph.clone();
    let dy = seeded.add_param("dy", weights.ty.clone(), None);
    let builder = GraphBuilder::over(seeded);
    let tensors = |values: &[crate::graph::Value]| values.iter().map(|&v| builder.tensor(v)).collect::<Vec<Tensor>>();
    let (operands, results) = (tensors(&data.operands), tensors(&data.results));
    let mut cotangents: Vec<Option<Tensor>> = vec![None; results.len()];
    cotangents[0] = Some(builder.tensor(dy));
    let cx = Vjp { operands: &operands, results: &results, cotangents: &cotangents };
    let Gradient::Operands(found) = data.op.spec().vjp(&cx) else {
        return None;
    };
    builder.returns(&found.iter().flatten().collect::<Vec<_>>());
    let graph = builder.finish();
    assert!(graph.is_ok(), "{graph:?}");
    let inputs: Vec<Array> = inputs.iter().chain([weights]).cloned().collect();
    let outcome = Evaluator::wide().evaluate(&graph.ok()?, &inputs, &|_| None);
    assert!(outcome.is_ok(), "{outcome:?}");
    let mut values = outcome.ok()?.returns.into_iter();
    Some(found.iter().map(|c| c.as_ref().and_then(|_| values.next())).collect())
}

/// Largest difference of the rule from central differences, relative to 1 plus the derivative.
fn worst_difference(graph: &Graph, node: Node, inputs: &[Array]) -> Option<f64> {
    let data = graph.node(node);
    let result = graph.ty(*data.results.first()?);
    if !result.dtype.is_float() {
        return None;
    }
    let weights = spread(result, -1.0, 1.0, 3);
    let gradients = rule(graph, node, inputs, &weights)?;
    assert_eq!(gradients.len(), data.operands.len(), "one cotangent per operand");
    let mut worst: f64 = 0.0;
    for (&operand, gradient) in data.operands.iter().zip(&gradients) {
        let (Def::Param(param), Some(gradient)) = (graph.value(operand).def, gradient) else {
            continue;
        };
        for (position, derived) in gradient.to_f64().into_iter().enumerate() {
            const STEP: f64 = 1e-5;
            let shifted = |step: f64| {
                let mut inputs = inputs.to_vec();
                if let Data::Float(numbers) = &mut inputs[param].data {
                    numbers[position] += step;
                }
                weighted(graph, node, &inputs, &weights)
            };
            let measured = (shifted(STEP) - shifted(-STEP)) / (2.0 * STEP);
            worst = worst.max((measured - derived).abs() / (1.0 + measured.abs()));
        }
    }
    Some(worst)
}

#[test]
fn every_gradient_rule_agrees_with_central_differences() {
    let mut checked = BTreeSet::new();
    for example in examples().iter().filter(|e| e.passes.is_empty()) {
        let module = example.module();
        assert!(module.is_ok(), "{module:?}");
        let Some(graph) = module.as_ref().ok().and_then(|m| m.graph(example.mnemonic)) else {
            continue;
        };
        let input = |(i, param): (usize, &crate::graph::Param)| match graph.ty(param.value) {
            ty if ty.dtype.is_float() => Some(spread(ty, 0.2, 0.9, i)),
            ty => {
                let (_, numbers) = example.inputs.iter().find(|(n, _)| *n == &**graph.value_name(param.value))?;
                Array::from_numbers(ty.clone(), |p| numbers.get(p).copied())
            }
        };
        let inputs: Vec<Array> = graph.params().iter().enumerate().filter_map(input).collect();
        for (node, data) in graph.nodes().filter(|(_, data)| data.op.mnemonic() == example.mnemonic) {
            if data.operands.is_empty() {
                continue;
            }
            if let Some(worst) = worst_difference(graph, node, &inputs) {
                assert!(worst < 1e-6, "{}: the rule is off by {worst:e}", example.mnemonic);
                checked.insert(example.mnemonic);
            }
        }
    }
    // Rules that had better be among them.
    for mnemonic in ["softmax", "layer_norm", "batch_norm_training", "cross_entropy", "conv", "div", "gelu", "dropout"]
    {
        assert!(checked.contains(mnemonic), "{mnemonic} was not checked: {checked:?}");
    }
}
