//! Pass `join_slices`: products of neighbouring slices of one tensor by one matrix become slices of one product.
//!
//! ```text
//! graph @f(%x: f32[1, 2, 3], %w: f32[3, 4]) {
//!   %a: f32[1, 1, 3] = slice %x {start = [0, 0, 0], stop = [1, 1, 3], step = [1, 1, 1]}
//!   %b: f32[1, 3] = reshape %a
//!   %p: f32[1, 4] = dot %b, %w {a_contract = [1], b_contract = [0], a_batch = [], b_batch = []}
//!   %c: f32[1, 1, 3] = slice %x {start = [0, 1, 0], stop = [1, 2, 3], step = [1, 1, 1]}
//!   %d: f32[1, 3] = reshape %c
//!   %q: f32[1, 4] = dot %d, %w {a_contract = [1], b_contract = [0], a_batch = [], b_batch = []}
//!   %y: f32[1, 4] = mul %p, %q
//!   return %y
//! }
//! ```
//! becomes
//! ```text
//! graph @f(%x: f32[1, 2, 3], %w: f32[3, 4]) {
//!   %p.joined: f32[1, 2, 4] = dot %x, %w {a_contract = [2], b_contract = [0], a_batch = [], b_batch = []}
//!   %p.slice: f32[1, 1, 4] = slice %p.joined {start = [0, 0, 0], stop = [1, 1, 4], step = [1, 1, 1]}
//!   %p: f32[1, 4] = reshape %p.slice
//!   %q.slice: f32[1, 1, 4] = slice %p.joined {start = [0, 1, 0], stop = [1, 2, 4], step = [1, 1, 1]}
//!   %q: f32[1, 4] = reshape %q.slice
//!   %y: f32[1, 4] = mul %p, %q
//!   return %y
//! }
//! ```
//! So the steps of a recurrent network, which are written out, multiply their inputs all at once: a product of few rows
//! takes as long as its weights take to arrive, for each step again. A bias that all of them add is added once, too.
//! Products of many rows stay as they are.

use kiln_ir::builder::{GraphBuilder, Tensor, to_ints};
use kiln_ir::graph::{Graph, Node, NodeData, Value, ValueMap};
use kiln_ir::op::{self, Elementwise, Op};
use kiln_ir::types::{Dim, Extents, Shape};
use kiln_ir::{Diagnostic, Module};

use super::eliminate_dead::eliminate;
use super::{Changed, Pass, Remark, Remarks, each_graph};

/// Products of more rows read their weights often enough by themselves, and what follows finds their results in the
/// caches: at 32 rows, joined steps of an LSTM over 28 inputs took 4 % longer.
const MOST_ROWS: usize = 16;

/// The pass.
#[derive(Debug)]
pub struct JoinSlices;

impl Pass for JoinSlices {
    fn name(&self) -> &'static str {
        "join_slices"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        each_graph(module, remarks, join)
    }
}

/// What a value is of another one: `start..stop` along one dimension.
#[derive(Clone, Copy, Debug)]
struct Part {
    of: Value,
    dim: usize,
    start: usize,
    stop: usize,
    /// Whether a reshape takes the dimension, which has an extent of 1, away.
    drops: bool,
}

/// The product of a part, which is its first operand.
#[derive(Debug)]
struct Member<'a> {
    node: Node,
    op: &'a op::Dot,
    by: Value,
    part: Part,
    bias: Option<Bias<'a>>,
}

/// What is added to a product that nothing else reads: a vector, spread by an op of its own.
#[derive(Clone, Copy, Debug)]
struct Bias<'a> {
    add: Node,
    vector: Value,
    spread: &'a op::Broadcast,
}

/// Products that become one, by ascending parts.
#[derive(Debug)]
struct Run<'a> {
    members: Vec<Member<'a>>,
    /// The dimension of the whole product along which its parts lie.
    dim: usize,
    /// The product, then its sum with the bias, once they are written.
    product: Option<Tensor>,
    sum: Option<Tensor>,
}

fn join(graph: &Graph, remarks: &mut Remarks) -> Result<Option<Graph>, Vec<Diagnostic>> {
    let mut runs = runs(graph);
    if runs.is_empty() {
        return Ok(None);
    }
    // The member that a product or the addition of a bias belongs to.
    let mut owners = vec![None; graph.nodes().len()];
    for (number, run) in runs.iter().enumerate() {
        for (i, member) in run.members.iter().enumerate() {
            let nodes = [Some(member.node), member.bias.map(|bias| bias.add)];
            nodes.into_iter().flatten().for_each(|node| owners[node.index()] = Some((number, i)));
        }
        remarks.rewrote(run.members.len());
        remarks.push(remark(graph, run));
    }
    let builder = GraphBuilder::over(graph.successor());
    let mut map = ValueMap::params(graph);
    for (node, data) in graph.nodes() {
        let Some((number, member)) = owners[node.index()] else {
            builder.with_graph_mut(|next| next.push_copy(graph, data, &mut map));
            continue;
        };
        builder.set_provenance(Some(data.provenance.clone()));
        let (run, result) = (&mut runs[number], data.results[0]);
        let site = Site { graph, builder: &builder, map: &map, name: graph.value_name(result) };
        let biased = run.members[member].bias.is_some_and(|bias| bias.add == node);
        let whole = if biased { run.sum(&site) } else { run.product(&site) };
        // A product whose bias is yet to come is read by that alone.
        if biased || run.members[member].bias.is_none() {
            let part = site.part(&whole, run.dim, run.offset(member), graph.ty(result).extents());
            map.set(result, part.value());
        }
    }
    builder.set_provenance(None);
    builder.with_graph_mut(|next| next.finish_copy(graph, &map));
    let next = builder.finish()?;
    Ok(Some(eliminate(&next).unwrap_or(next)))
}

fn remark(graph: &Graph, run: &Run<'_>) -> Remark {
    let (count, first) = (run.members.len(), &run.members[0]);
    let name = |value| graph.value_name(value);
    let message = format!("{count} products of slices of %{} by %{} are one", name(first.part.of), name(first.by));
    let value = name(graph.node(first.node).results[0]).clone();
    Remark { pass: "join_slices", graph: graph.name().into(), value, code: "joined", message }
}

/// Products of neighbouring parts, in the order of the program.
fn runs(graph: &Graph) -> Vec<Run<'_>> {
    let uses = graph.users();
    let mut groups: Vec<Vec<Member<'_>>> = Vec::new();
    for (node, data) in graph.nodes() {
        let Some(member) = member(graph, &uses, node, data) else { continue };
        match groups.iter_mut().find(|group| group[0].joins(&member)) {
            Some(group) => group.push(member),
            None => groups.push(vec![member]),
        }
    }
    let mut runs: Vec<Run<'_>> = groups.into_iter().flat_map(neighbours).collect();
    runs.retain(|run| run.members.len() > 1);
    runs
}

/// Cuts a group where the next part does not begin at the end of the one before.
fn neighbours(mut group: Vec<Member<'_>>) -> Vec<Run<'_>> {
    group.sort_by_key(|member| member.part.start);
    let mut runs: Vec<Run<'_>> = Vec::new();
    for member in group {
        match runs.last_mut() {
            Some(run) if run.stop() == member.part.start => run.members.push(member),
            _ => runs.push(Run { dim: member.result_dim(), members: vec![member], product: None, sum: None }),
        }
    }
    runs
}

fn member<'a>(
    graph: &'a Graph,
    uses: &[smallvec::SmallVec<[Node; 2]>],
    node: Node,
    data: &'a NodeData,
) -> Option<Member<'a>> {
    let (Op::Dot(op), &[a, by]) = (&data.op, data.operands.as_slice()) else { return None };
    let part = part(graph, a)?;
    let member = Member { node, op, by, part, bias: bias(graph, uses, data.results[0]) };
    // Dimensions counted from the end, and products for each of a batch, are left as they are.
    let plain = op.a_batch.is_empty() && op.a_contract.iter().all(|&d| d >= 0);
    let whole = plain && !member.contracted().contains(&part.dim);
    let terms: usize = member.contracted().iter().map(|&d| graph.ty(part.of).extents()[d]).product();
    let few = graph.ty(a).elements() <= MOST_ROWS * terms;
    let fits = member.bias.is_none_or(|bias| part.drops || !bias.spread.dims.contains(&(member.result_dim() as i64)));
    (whole && few && fits).then_some(member)
}

/// What `value` is a part of.
fn part(graph: &Graph, value: Value) -> Option<Part> {
    let (_, data) = graph.producer(value)?;
    let drops = matches!(data.op, Op::Reshape(_));
    let cut = if drops { *data.operands.first()? } else { value };
    let (Op::Slice(slice), &[of]) = (&graph.producer(cut)?.1.op, graph.producer(cut)?.1.operands.as_slice()) else {
        return None;
    };
    let (whole, mut extents) = (graph.ty(of).extents(), graph.ty(cut).extents());
    let dim = (0..whole.len()).find(|&d| whole[d] != extents[d])?;
    let only = (0..whole.len()).all(|d| slice.step[d] == 1 && (d == dim || whole[d] == extents[d]));
    let start = usize::try_from(*slice.start.get(dim)?).ok()?;
    let extent = extents.remove(dim);
    let dropped = !drops || extent == 1 && extents == graph.ty(value).extents();
    (only && dropped).then_some(Part { of, dim, start, stop: start + extent, drops })
}

/// The bias of a product.
fn bias<'a>(graph: &'a Graph, uses: &[smallvec::SmallVec<[Node; 2]>], product: Value) -> Option<Bias<'a>> {
    let &[add] = uses[product.index()].as_slice() else { return None };
    let data = graph.node(add);
    let (Op::Elementwise(Elementwise::Add), &[a, b]) = (&data.op, data.operands.as_slice()) else { return None };
    let (_, spread) = graph.producer(if a == product { b } else { a })?;
    match (&spread.op, spread.operands.as_slice()) {
        (Op::Broadcast(op), &[vector]) if !graph.roots().any(|root| root == product) => {
            Some(Bias { add, vector, spread: op })
        }
        _ => None,
    }
}

impl Member<'_> {
    /// Whether two products differ by their parts only.
    fn joins(&self, other: &Member<'_>) -> bool {
        let bias = |member: &Member<'_>| member.bias.map(|bias| (bias.vector, bias.spread.dims.clone()));
        let part = |member: &Member<'_>| (member.part.of, member.part.dim, member.part.drops);
        part(self) == part(other) && self.by == other.by && self.op == other.op && bias(self) == bias(other)
    }

    /// Contracted dimensions of what the part is of.
    fn contracted(&self) -> Vec<usize> {
        let before = |d: usize| d + usize::from(self.part.drops && d >= self.part.dim);
        self.op.a_contract.iter().map(|&d| before(d as usize)).collect()
    }

    /// The dimension of the whole product that the parts divide: free dimensions keep their order.
    fn result_dim(&self) -> usize {
        self.part.dim - self.contracted().iter().filter(|&&d| d < self.part.dim).count()
    }
}

impl Run<'_> {
    fn stop(&self) -> usize {
        self.members.last().map_or(0, |member| member.part.stop)
    }

    /// Where a member's part begins in the whole product.
    fn offset(&self, member: usize) -> usize {
        self.members[member].part.start - self.members[0].part.start
    }

    /// The product of all parts.
    fn product(&mut self, site: &Site<'_>) -> Tensor {
        let (first, stop) = (&self.members[0], self.stop());
        let write = || {
            let of = site.tensor(first.part.of);
            let mut extents = site.graph.ty(first.part.of).extents();
            extents[first.part.dim] = stop - first.part.start;
            let parts = site.slice(&of, first.part.dim, first.part.start, extents, ".parts");
            let op = op::Dot { a_contract: to_ints(&first.contracted()), ..first.op.clone() };
            site.builder.apply_named(op, &[&parts, &site.tensor(first.by)], &format!("{}.joined", site.name))
        };
        self.product.get_or_insert_with(write).clone()
    }

    /// The product of all parts with the bias.
    fn sum(&mut self, site: &Site<'_>) -> Tensor {
        let product = self.product(site);
        let (first, dim) = (&self.members[0], self.dim);
        let write = || {
            let Some(bias) = first.bias else { return product.clone() };
            let before = |&d: &i64| d as usize + usize::from(first.part.drops && d as usize >= dim);
            let dims: Vec<usize> = bias.spread.dims.iter().map(before).collect();
            let spread = site.tensor(bias.vector).broadcast(product.shape(), &dims);
            site.builder.apply_named(
                Op::Elementwise(Elementwise::Add),
                &[&product, &spread],
                &format!("{}.joined", site.name),
            )
        };
        self.sum.get_or_insert_with(write).clone()
    }
}

/// Where something is written: in the place of the value called `name`.
struct Site<'a> {
    graph: &'a Graph,
    builder: &'a GraphBuilder,
    map: &'a ValueMap,
    name: &'a str,
}

impl Site<'_> {
    fn tensor(&self, value: Value) -> Tensor {
        self.builder.tensor(self.map.get(value))
    }

    /// The elements of `whole` from `start` on along `dim`, of these extents; itself if that is all.
    fn slice(&self, whole: &Tensor, dim: usize, start: usize, extents: Extents, suffix: &str) -> Tensor {
        if whole.ty().extents() == extents {
            return whole.clone();
        }
        let op = op::Slice {
            start: (0..extents.len()).map(|d| if d == dim { start as i64 } else { 0 }).collect(),
            stop: (0..extents.len()).map(|d| Dim::from(extents[d] + if d == dim { start } else { 0 })).collect(),
            step: extents.iter().map(|_| 1).collect(),
        };
        self.builder.apply_named(op, &[whole], &format!("{}{suffix}", self.name))
    }

    /// The part of a whole product that has taken the place of one of these extents.
    fn part(&self, whole: &Tensor, dim: usize, start: usize, extents: Extents) -> Tensor {
        let mut cut = whole.ty().extents();
        if cut.len() == extents.len() {
            return self.slice(whole, dim, start, extents, "");
        }
        cut[dim] = 1;
        let part = self.slice(whole, dim, start, cut, ".slice");
        let shape: Shape = extents.iter().map(|&extent| Dim::from(extent)).collect();
        self.builder.apply_named(op::Reshape { ty: whole.ty().with_shape(shape) }, &[&part], self.name)
    }
}
