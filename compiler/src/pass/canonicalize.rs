//! Pass `canonicalize`: one form for things that can be written in several ways, and nothing where nothing is done.
//!
//! ```text
//! graph @f(%x: f32[2, 3]) {
//!   %a: f32[2, 3] = transpose %x {permutation = [0, 1]}
//!   %b: f32[6] = reshape %a
//!   %c: f32[3, 2] = reshape %b
//!   %one: f32[3, 2] = const {value = 1.0}
//!   %d: f32[3, 2] = mul %one, %c
//!   return %d
//! }
//! ```
//! becomes
//! ```text
//! graph @f(%x: f32[2, 3]) {
//!   %c: f32[3, 2] = reshape %x
//!   return %c
//! }
//! ```
//! Every rule keeps the bits: `x * 1` is `x`, `x + 0` is not where `x` may be -0, nor is a sum over one element, which
//! begins with 0. A rule looks at a node and at the nodes that define its operands, which have their one form already;
//! what it makes is looked at again. Nodes that nobody reads any more go too.

mod algebra;
mod movement;

use kiln_ir::attribute::Literal;
use kiln_ir::graph::{Graph, Value, ValueMap, Values};
use kiln_ir::op::{self, Elementwise, Op};
use kiln_ir::scalar::Number;
use kiln_ir::types::{Name, TensorType};
use kiln_ir::{Diagnostic, Module};

use super::eliminate_dead::eliminate;
use super::{Changed, Pass, Remarks, each_graph};

/// The pass.
#[derive(Debug)]
pub struct Canonicalize;

impl Pass for Canonicalize {
    fn name(&self) -> &'static str {
        "canonicalize"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        each_graph(module, remarks, |graph, remarks| Ok(canonicalize(graph, remarks)))
    }
}

/// A node of one result as rules see it: operands are values of the graph under construction.
struct Site<'a> {
    graph: &'a Graph,
    op: &'a Op,
    operands: &'a [Value],
    ty: &'a TensorType,
}

/// What a site becomes.
enum Form {
    /// A value that there is.
    Same(Value),
    /// Another node of the same type.
    Node(Box<Op>, Values),
    /// An op behind a reshape of a value that there is.
    Behind(op::Reshape, Value, Box<Op>),
    /// The product with a number.
    Scaled(Value, f64),
}

impl Form {
    fn node(op: impl Into<Op>, operands: impl IntoIterator<Item = Value>) -> Form {
        Form::Node(Box::new(op.into()), operands.into_iter().collect())
    }
}

/// Rules in the order in which they are tried.
const RULES: [fn(&Site<'_>) -> Option<Form>; 10] = [
    movement::identity,
    movement::of_same_kind,
    movement::of_one_element,
    movement::split_of_slice,
    movement::reduction_of_nothing,
    algebra::neutral,
    algebra::idempotent,
    algebra::sign,
    algebra::cheaper,
    algebra::constant_last,
];

fn canonicalize(graph: &Graph, remarks: &mut Remarks) -> Option<Graph> {
    let mut next = graph.successor();
    let mut map = ValueMap::params(graph);
    let mut changed = false;
    for (_, data) in graph.nodes() {
        let &[result] = data.results.as_slice() else {
            next.push_copy(graph, data, &mut map);
            continue;
        };
        let ty = graph.ty(result);
        let mut op = data.op.clone();
        let mut operands: Values = data.operands.iter().map(|&v| map.get(v)).collect();
        let same = loop {
            let site = Site { graph: &next, op: &op, operands: &operands, ty };
            match RULES.iter().find_map(|rule| rule(&site)) {
                Some(Form::Same(value)) => break Some(value),
                Some(Form::Node(new, on)) => (op, operands) = (*new, on),
                Some(Form::Scaled(value, factor)) => {
                    let factor = op::Const { ty: ty.clone(), value: Literal::Splat(Number::Float(factor)) };
                    let name = Name::from(format!("{}.factor", graph.value_name(result)));
                    let node = next.push(factor.into(), [], [(name, ty.clone())], Vec::new(), data.provenance.clone());
                    operands = [value, next.node(node).results[0]].into_iter().collect();
                    op = Op::Elementwise(Elementwise::Mul);
                }
                Some(Form::Behind(reshape, on, behind)) => {
                    let name = (Name::from(format!("{}.whole", graph.value_name(result))), reshape.ty.clone());
                    let node = next.push(reshape.into(), [on], [name], Vec::new(), data.provenance.clone());
                    operands = [next.node(node).results[0]].into_iter().collect();
                    op = *behind;
                }
                None => break None,
            }
            remarks.rewrote(1);
            changed = true;
        };
        let value = same.unwrap_or_else(|| {
            let name = (graph.value_name(result).clone(), ty.clone());
            let node = next.push(op, operands, [name], data.regions.clone(), data.provenance.clone());
            next.node(node).results[0]
        });
        remarks.rewrote(usize::from(same.is_some()));
        changed |= same.is_some();
        map.set(result, value);
    }
    if !changed {
        return None;
    }
    next.finish_copy(graph, &map);
    Some(eliminate(&next).unwrap_or(next))
}

impl<'a> Site<'a> {
    /// The op that defines an operand, and what it reads.
    fn behind(&self, operand: usize) -> Option<(&'a Op, &'a [Value])> {
        let (_, data) = self.graph.producer(*self.operands.get(operand)?)?;
        Some((&data.op, &data.operands))
    }

    /// The number that every element of an operand is.
    fn splat(&self, operand: usize) -> Option<f64> {
        let (op, behind) = self.behind(operand)?;
        match (op, behind) {
            (Op::Const(constant), _) => number(constant),
            // A seed of autodiff before constants are folded.
            (Op::Broadcast(_), &[source]) => match &self.graph.producer(source)?.1.op {
                Op::Const(constant) => number(constant),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether an operand is a constant of any kind.
    fn is_constant(&self, operand: usize) -> bool {
        matches!(self.behind(operand), Some((Op::Const(_), _)))
    }

    /// The first operand, if it has the result's type.
    fn same_type(&self) -> Option<Value> {
        let &first = self.operands.first()?;
        (self.graph.ty(first) == self.ty).then_some(first)
    }
}

fn number(constant: &op::Const) -> Option<f64> {
    match constant.value {
        Literal::Splat(number) => Some(number.to_f64()),
        Literal::Dense(_) => None,
    }
}
