//! The text of SPEC.md.

use std::fmt::Write;

use crate::body::Body;
use crate::builder::{GraphBuilder, Tensor};
use crate::graph::{Graph, NodeData};
use crate::op::{self, Elementwise, Gradient, Op, OpEntry, Vjp};
use crate::scalar::ScalarExpr;
use crate::spec::example::{Example, in_family};
use crate::spec::{Constraint, FAMILIES, Family, invariants, script, script_labels};
use crate::text::{PrintOptions, print_graph};
use crate::types::DType;

const PREFACE: &str = include_str!("../../spec/preface.md");

/// SPEC.md: the preface with its generated parts, then one section per op.
pub fn render() -> String {
    let mut out = String::from("<!-- Generated from ir-spec/spec and the tables by kiln_ir::spec::render. -->\n\n");
    for line in PREFACE.lines() {
        match line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
            Some(part) => out.push_str(&generated(part)),
            None => out.extend([line, "\n"]),
        }
    }
    let _ = writeln!(out, "\n## Ops\n");
    for family in FAMILIES {
        let names: Vec<String> =
            in_family(family).iter().map(|e| format!("[`{}`](#{})", e.mnemonic, e.mnemonic)).collect();
        let _ = writeln!(out, "- {}: {}", family.title, names.join(" "));
    }
    FAMILIES.iter().for_each(|family| section(&mut out, family));
    out
}

/// A part that the preface asks for; an unknown name stays visible, and a test looks for it.
fn generated(part: &str) -> String {
    let mut out = String::new();
    match part {
        "grammar" => out = grammar(),
        "layers" => script::layers(&mut out),
        "train" => script::train_keys(&mut out),
        "optimizers" => script::optimizers(&mut out),
        "labels" => list(&mut out, &script_labels().iter().collect::<Vec<_>>()),
        "invariants" => list(&mut out, &invariants().iter().collect::<Vec<_>>()),
        unknown => out = format!("<!-- {unknown} -->\n"),
    }
    out
}

/// The grammar in the documentation of the text form, beside the parser.
fn grammar() -> String {
    let doc = include_str!("../text.rs").lines().filter_map(|line| line.strip_prefix("//!"));
    let lines = doc.skip_while(|line| *line != " ```text").take_while(|line| *line != " # Findings");
    lines
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line).replace("[`DEPTH_LIMIT`]", "256")))
        .collect()
}

fn section(out: &mut String, family: &'static Family) {
    let _ = writeln!(out, "\n## {}", family.title);
    let examples = in_family(family);
    let constraints = family.constraints();
    let own = |constraint: &Constraint| examples.iter().any(|e| belongs(constraint, e.mnemonic));
    let shared: Vec<&Constraint> = constraints.iter().filter(|c| !own(c)).collect();
    if !shared.is_empty() {
        let _ = writeln!(out, "\nConstraints of the family, where an op has the operand or attribute:\n");
        list(out, &shared);
    }
    for example in &examples {
        if let Some(entry) = op::entry(example.mnemonic) {
            let own: Vec<&Constraint> = constraints.iter().filter(|c| belongs(c, entry.mnemonic)).collect();
            one_op(out, entry, example, &own, family.shared_constraints(entry.mnemonic));
        }
    }
}

fn belongs(constraint: &Constraint, mnemonic: &str) -> bool {
    constraint.label.rsplit_once('.').is_some_and(|(word, _)| word == mnemonic)
}

pub(super) fn list(out: &mut String, constraints: &[&Constraint]) {
    for constraint in constraints {
        let _ = writeln!(out, "- `{}`: {}", constraint.label, constraint.text);
    }
}

fn one_op(out: &mut String, entry: &OpEntry, example: &Example, constraints: &[&Constraint], shared: Option<&str>) {
    let _ = writeln!(out, "\n### {}\n", entry.mnemonic);
    let sentences: Vec<&str> = entry.doc.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let _ = writeln!(out, "{}\n", sentences.join("\n"));
    signature(out, entry);
    let module = example.module().ok();
    let graph = module.as_ref().and_then(|m| m.graph(example.mnemonic));
    let node = graph.and_then(|g| g.nodes().map(|(_, data)| data).find(|n| n.op.mnemonic() == entry.mnemonic));
    if let Some((graph, node)) = graph.zip(node) {
        let _ = writeln!(out, "- gradient: {}", gradient(graph, node, entry));
    }
    if let Some(shared) = shared {
        let _ = writeln!(out, "- constraints: {shared}");
    }
    if !constraints.is_empty() {
        out.push('\n');
        list(out, constraints);
    }
    if let Some((graph, node)) = graph.zip(node)
        && let Body::Composite(body) = node.op.body(&graph.types(&node.operands), &graph.types(&node.results))
    {
        let text = print_graph(&body.renamed(entry.mnemonic), &PrintOptions::default());
        let _ = writeln!(out, "\nIts meaning, for the types of the example:\n\n```\n{}\n```", text.trim());
    }
    let _ = writeln!(out, "\n```\n{}\n```", example.text);
}

/// Operands, results, attributes and formula, a line each.
fn signature(out: &mut String, entry: &OpEntry) {
    let names = |names: &[&str]| match names {
        [] => "none".to_owned(),
        names => names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", "),
    };
    let typed = if entry.typed { ", of the declared type" } else { "" };
    let _ = writeln!(out, "- operands: {}; results: {}{typed}", names(entry.operands), names(entry.results));
    for attribute in entry.attributes {
        let default =
            attribute.default.map_or("must be given".to_owned(), |text| format!("default `{}`", literal(text)));
        let _ = writeln!(out, "- attribute `{}`: {}, {default}", attribute.name, attribute.kind);
    }
    if let Some(op) = op::Elementwise::parse(entry.mnemonic) {
        let row = op.row();
        let text = row.text.split_whitespace().collect::<Vec<_>>().join(" ").replace("std::f64::consts::", "");
        let _ = writeln!(out, "- formula: `{} = {text}`", entry.results[0]);
        let _ = writeln!(out, "- element type: {}", row.domain.text());
    }
}

/// A default as the text form writes it.
fn literal(rust: &str) -> &str {
    if rust.ends_with("::new()") { "[]" } else { rust }
}

/// Asks the rule itself, with a cotangent for every float result.
fn gradient(graph: &Graph, node: &NodeData, entry: &OpEntry) -> String {
    match &node.op {
        Op::GradientOf(_) => return "`autodiff` expands inner gradients first".to_owned(),
        Op::Fused(_) => return "of the nodes of its region".to_owned(),
        Op::Elementwise(op) => return elementwise_gradient(*op, entry),
        _ if node.operands.is_empty() => return "none: it has no operands".to_owned(),
        _ => {}
    }
    let builder = GraphBuilder::over(graph.clone());
    let tensors = |values: &[crate::graph::Value]| values.iter().map(|&v| builder.tensor(v)).collect::<Vec<Tensor>>();
    let (operands, results) = (tensors(&node.operands), tensors(&node.results));
    let cotangents: Vec<Option<Tensor>> =
        results.iter().enumerate().map(|(i, r)| (i == 0 && r.dtype().is_float()).then(|| r.full_like(1.0))).collect();
    let rule = node.op.spec().vjp(&Vjp { operands: &operands, results: &results, cotangents: &cotangents });
    match rule {
        Gradient::Decompose => "of its decomposition".to_owned(),
        Gradient::NonDifferentiable(reason) => format!("none: {reason}"),
        Gradient::Operands(found) => receivers(entry, found.iter().map(Option::is_some)),
    }
}

fn elementwise_gradient(op: Elementwise, entry: &OpEntry) -> String {
    match op.row().derivative {
        Err(reason) => format!("none: {reason}"),
        Ok(derivative) => {
            let count = entry.operands.len();
            let reads: Vec<ScalarExpr> = (0..count + 2).map(|i| ScalarExpr::read(i, DType::F32)).collect();
            let cotangents = derivative(&reads[..count], &reads[count], &reads[count + 1]);
            receivers(entry, cotangents.iter().map(Option::is_some))
        }
    }
}

fn receivers(entry: &OpEntry, receives: impl Iterator<Item = bool>) -> String {
    let names = entry.operands.iter().zip(receives).filter(|(_, receives)| *receives);
    let names: Vec<String> = names.map(|(name, _)| format!("`{name}`")).collect();
    if names.is_empty() { "none flows to its operands".to_owned() } else { format!("for {}", names.join(", ")) }
}
