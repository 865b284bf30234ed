//! Pass `crop`: a convolution computes the rows and columns that are read.
//!
//! ```text
//! graph @f(%x: f32[1, 2, 7, 7], %w: f32[4, 2, 3, 3]) {
//!   %h: f32[1, 4, 5, 5] = conv %x, %w {strides = [1, 1], padding = [0, 0, 0, 0], dilation = [1, 1], groups = 1}
//!   %r: f32[1, 4, 5, 5] = relu %h
//!   %y: f32[1, 4, 2, 2], %place: i32[1, 4, 2, 2] = max_pool %r {window = [2, 2], strides = [2, 2], padding = [0, 0, 0, 0]}
//!   return %y
//! }
//! ```
//! becomes
//! ```text
//! graph @f(%x: f32[1, 2, 7, 7], %w: f32[4, 2, 3, 3]) {
//!   %h: f32[1, 4, 4, 4] = conv %x, %w {strides = [1, 1], padding = [0, -1, 0, -1], dilation = [1, 1], groups = 1}
//!   %r: f32[1, 4, 4, 4] = relu %h
//!   %y: f32[1, 4, 2, 2], %place: i32[1, 4, 2, 2] = max_pool %r {window = [2, 2], strides = [2, 2], padding = [0, 0, 0, 0]}
//!   return %y
//! }
//! ```
//! Windows that move by more than one element leave the last rows and columns of odd extents unread. Elements are read
//! from the first on, so that what is wanted of a value is an extent for each dimension: it follows from its users, last
//! node first. It passes through elementwise ops, windows and further convolutions, and ends where it meets an operand
//! that cannot be smaller. A convolution leaves out what its negative padding says; gradients, which are derived
//! afterwards, leave it out too. The padding, unlike a `slice` of the input, costs no op and no copy.

use kiln_ir::attribute::Literal;
use kiln_ir::body::Body;
use kiln_ir::graph::{Graph, NodeData, Value, ValueMap, Values};
use kiln_ir::op::{self, Op};
use kiln_ir::types::{Extents, TensorType};
use kiln_ir::{Diagnostic, Module};

use super::{Changed, Pass, Remark, Remarks, each_graph};

mod windows;

use windows::Windows;

/// A convolution that would lose less than this part of its elements stays: rows of even length are aligned, and pixels
/// without gaps are one run.
const LEAST_PART: usize = 16;

/// The pass.
#[derive(Debug)]
pub struct Crop;

impl Pass for Crop {
    fn name(&self) -> &'static str {
        "crop"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        each_graph(module, remarks, |graph, remarks| Ok(crop(graph, remarks)))
    }
}

fn crop(graph: &Graph, remarks: &mut Remarks) -> Option<Graph> {
    let mut whole = vec![false; graph.value_count()];
    let cropped = loop {
        let wanted = wanted(graph, &whole);
        if graph.values().all(|v| wanted[v.index()] == graph.ty(v).extents()) {
            return None;
        }
        match Cropped::new(graph, &wanted) {
            Ok(cropped) => break cropped,
            Err(stay) => stay.iter().for_each(|v| whole[v.index()] = true),
        }
    };
    cropped.write(graph, remarks)
}

/// How much of every value its users want, from the first element of each dimension on; all of what is `whole`, of
/// results, and of what nobody reads.
fn wanted(graph: &Graph, whole: &[bool]) -> Vec<Extents> {
    let mut read = whole.to_vec();
    graph.roots().for_each(|v| read[v.index()] = true);
    let mut wanted: Vec<Extents> = graph
        .values()
        .map(|v| {
            let extents = graph.ty(v).extents();
            if read[v.index()] { extents } else { extents.iter().map(|_| 0).collect() }
        })
        .collect();
    let nodes: Vec<&NodeData> = graph.nodes().map(|(_, data)| data).collect();
    for data in nodes.into_iter().rev() {
        if !data.results.iter().any(|v| read[v.index()]) {
            data.results.iter().for_each(|v| wanted[v.index()] = graph.ty(*v).extents());
        }
        for (position, operand) in data.operands.iter().enumerate() {
            let reach = reach(graph, data, position, &wanted);
            let sofar = &mut wanted[operand.index()];
            sofar.iter_mut().zip(reach).for_each(|(have, want)| *have = (*have).max(want));
            read[operand.index()] = true;
        }
    }
    wanted
}

/// How much of its operand at `position` a node reads for what is wanted of its results.
fn reach(graph: &Graph, data: &NodeData, position: usize, wanted: &[Extents]) -> Extents {
    let extents = graph.ty(data.operands[position]).extents();
    let mut of_result = wanted[data.results[0].index()].clone();
    for other in &data.results[1..] {
        let wanted = &wanted[other.index()];
        of_result.iter_mut().zip(wanted).for_each(|(have, &want)| *have = (*have).max(want));
    }
    match Windows::of(graph, data) {
        Some(windows) if position == 0 => windows.reach(&of_result, &extents),
        None if of_result != graph.ty(data.results[0]).extents() && follows(graph, data, position) => of_result,
        _ => extents,
    }
}

/// Whether the result has the extents of this operand and each of its elements comes from the element at its place.
fn follows(graph: &Graph, data: &NodeData, position: usize) -> bool {
    match &data.op {
        Op::BatchNormInference(_) => position == 0,
        Op::Const(_) | Op::Broadcast(_) => false,
        op => match op.body(&graph.types(&data.operands), &graph.types(&data.results)) {
            Body::Map(map) => map.is_elementwise() && data.results.len() == 1,
            _ => false,
        },
    }
}

/// The graph's ops and types after the pass.
struct Cropped {
    ops: Vec<Option<Op>>,
    types: Vec<TensorType>,
}

impl Cropped {
    /// Makes every value as large as it is wanted, or as its operands make it; else says which values have to stay.
    fn new(graph: &Graph, wanted: &[Extents]) -> Result<Cropped, Values> {
        let types = graph.values().map(|v| graph.ty(v).clone()).collect();
        let mut cropped = Cropped { ops: Vec::new(), types };
        for (_, data) in graph.nodes() {
            let changed = |&v: &Value| *cropped.ty(v) != *graph.ty(v);
            let smaller = data.operands.iter().any(changed);
            let fewer = data.results.iter().any(|v| wanted[v.index()] != graph.ty(*v).extents());
            let op = if smaller || fewer { cropped.op(graph, data, wanted)? } else { None };
            cropped.ops.push(op);
        }
        Ok(cropped)
    }

    fn ty(&self, value: Value) -> &TensorType {
        &self.types[value.index()]
    }

    /// The node's op, if it becomes another one, with the types of its results set.
    fn op(&mut self, graph: &Graph, data: &NodeData, wanted: &[Extents]) -> Result<Option<Op>, Values> {
        let result = data.results[0];
        let wanted = &wanted[result.index()];
        let operands: Vec<TensorType> = data.operands.iter().map(|&v| self.ty(v).clone()).collect();
        let op = match (&data.op, Windows::of(graph, data)) {
            (Op::Conv(conv), Some(windows)) => {
                let elements = graph.ty(result).elements();
                let left_out = elements - wanted.iter().product::<usize>();
                if left_out > 0 && left_out * LEAST_PART < elements {
                    return Err(std::iter::once(result).collect());
                }
                let padding = windows.padding(wanted, &operands[0].extents(), i64::MIN);
                op::Conv { padding, ..conv.clone() }.into()
            }
            (op, Some(windows)) => windows::with_padding(op, windows.padding(wanted, &operands[0].extents(), 0)),
            (Op::Broadcast(op), None) => op::Broadcast { ty: resized(&op.ty, wanted), ..op.clone() }.into(),
            (Op::Const(op), None) if matches!(op.value, Literal::Splat(_)) => {
                op::Const { ty: resized(&op.ty, wanted), ..op.clone() }.into()
            }
            (op, None) => op.clone(),
        };
        let stay = || data.operands.iter().chain(&data.results).copied().collect();
        let results = op.spec().infer(&operands).map_err(|_| stay())?;
        let reaches = |(v, ty): (&Value, &TensorType)| {
            let whole = graph.ty(*v).extents();
            ty.rank() == whole.len() && ty.extents().iter().zip(&whole).all(|(have, all)| have <= all)
        };
        let enough = results[0].extents().iter().zip(wanted).all(|(have, want)| have >= want);
        if !enough || !data.results.iter().zip(&results).all(reaches) {
            return Err(stay());
        }
        data.results.iter().zip(results).for_each(|(v, ty)| self.types[v.index()] = ty);
        Ok((op != data.op).then_some(op))
    }

    /// The graph, if a convolution became smaller.
    fn write(self, graph: &Graph, remarks: &mut Remarks) -> Option<Graph> {
        let mut next = graph.successor();
        let mut map = ValueMap::params(graph);
        let mut rewritten = 0;
        for ((_, data), op) in graph.nodes().zip(&self.ops) {
            let operands: Values = data.operands.iter().map(|&v| map.get(v)).collect();
            let results = data.results.iter().map(|&v| (graph.value_name(v).clone(), self.ty(v).clone()));
            let new = op.clone().unwrap_or_else(|| data.op.clone());
            let node = next.push(new, operands, results, data.regions.clone(), data.provenance.clone());
            data.results.iter().zip(next.node(node).results.clone()).for_each(|(&old, new)| map.set(old, new));
            if matches!(op, Some(Op::Conv(_))) {
                rewritten += 1;
                remarks.push(self.remark(graph, data.results[0]));
            }
        }
        next.finish_copy(graph, &map);
        remarks.rewrote(rewritten);
        (rewritten > 0).then_some(next)
    }

    fn remark(&self, graph: &Graph, value: Value) -> Remark {
        let (before, after) = (graph.ty(value), self.ty(value));
        Remark {
            pass: "crop",
            graph: graph.name().into(),
            value: graph.value_name(value).clone(),
            code: "cropped",
            message: format!("{} of {}: nobody reads the rest", after.shape, before.shape),
        }
    }
}

fn resized(ty: &TensorType, extents: &[usize]) -> TensorType {
    ty.with_shape(extents)
}
