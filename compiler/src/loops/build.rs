//! From a kernel's region to its loop nest.
//!
//! The region of a `fused` node (or a single node, seen as a region of one) is evaluated symbolically: every value is
//! asked for at an index, and its body answers with an expression over the operands at indices of their own, down to
//! loads of the kernel's buffers. Movement therefore costs nothing but index arithmetic. Reductions are stages: loops
//! over the reduced dimensions that leave one local per row; what follows reads the local.
//!
//! A region is a *row program*: all reductions leave the same rows (parallel dimensions) and run over the same
//! reduced dimensions, and results are per row or per element. [`row_form`] finds that form or says why there is none.

mod batches;
mod blocks;
pub mod contract;
pub mod depthwise;
pub mod depthwise_grad;
mod epilogue;
mod evaluate;
mod form;
mod in_place;
mod keep;
mod part;
mod plan;
pub mod pool;
mod reduce;
mod rows;
mod scatter;
mod shape;
mod window;

use std::fmt;

use kiln_ir::body::{Body, IndexExpr, Map};
use kiln_ir::graph::{Graph, Node, NodeData, Provenance};
use kiln_ir::types::TensorType;
use smallvec::SmallVec;

pub use evaluate::is_expensive;
pub use form::{RowForm, Source, row_form, row_form_of};
pub use part::{Part, PartBuffer};

/// The nests of a region, which run one after the other, with what the schedule must know about them.
#[derive(Debug)]
pub struct Built {
    /// The loops.
    pub launches: Vec<Part>,
    /// Memory that they share, in bytes.
    pub workspace_bytes: usize,
    /// Pairs `(parameter, result)` that may share memory: every element is loaded before it is overwritten, in the
    /// same iteration.
    pub in_place: SmallVec<[(usize, usize); 2]>,
    /// Checked indices in order of their site numbers, from 1.
    pub checks: Vec<CheckSite>,
    /// Floating point operations of one run.
    pub flops: u64,
}

/// One bounds check of a loaded index.
#[derive(Clone, Debug)]
pub struct CheckSite {
    /// Op that loads the index.
    pub mnemonic: &'static str,
    /// Where it comes from.
    pub provenance: Provenance,
    /// First index that is too large.
    pub limit: i64,
}

/// Why a region is not one nest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declined {
    /// A member has no map body: it must be decomposed or stand alone.
    Body,
    /// Reductions run over different dimensions.
    Reductions,
    /// A result is neither per row nor per element.
    Domain,
    /// A reduced value is read at another row than its own.
    Row,
    /// An index is loaded under a padding guard.
    Guard,
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Declined::Body => "a member has no map body",
            Declined::Reductions => "reductions run over different dimensions",
            Declined::Domain => "a result is neither per row nor per element",
            Declined::Row => "a reduced value is read at another row",
            Declined::Guard => "an index is loaded under a padding guard",
        })
    }
}

/// Meaning of a node, from its own types.
pub fn body_of(graph: &Graph, data: &NodeData) -> Body {
    data.op.body(&graph.types(&data.operands), &graph.types(&data.results))
}

/// The region of a kernel: the node's own, or the node alone.
pub fn region_of(graph: &Graph, node: Node) -> Graph {
    let data = graph.node(node);
    if let [region] = data.regions.as_slice() {
        return region.clone();
    }
    let mut region = Graph::default();
    let mut operands: SmallVec<[_; 3]> = SmallVec::new();
    for (i, &operand) in data.operands.iter().enumerate() {
        // An operand that occurs twice is one buffer.
        let first = data.operands.iter().position(|o| *o == operand).unwrap_or(i);
        let value = if first < i {
            operands[first]
        } else {
            region.add_param(graph.value_name(operand).clone(), graph.ty(operand).clone(), None)
        };
        operands.push(value);
    }
    let results: Vec<(_, TensorType)> =
        data.results.iter().map(|&v| (graph.value_name(v).clone(), graph.ty(v).clone())).collect();
    let copy = region.push(data.op.clone(), operands, results, Vec::new(), data.provenance.clone());
    let returns = region.node(copy).results.clone();
    region.set_returns(returns);
    region
}

/// Operands of the kernel in the order of its region's parameters.
pub fn kernel_operands(data: &NodeData) -> SmallVec<[kiln_ir::Value; 4]> {
    let mut operands: SmallVec<[kiln_ir::Value; 4]> = SmallVec::new();
    for &operand in &data.operands {
        if !data.regions.is_empty() || !operands.contains(&operand) {
            operands.push(operand);
        }
    }
    operands
}

/// Whether [`build`] has a nest for a region whose nodes have the bodies `maps`.
///
/// # Errors
/// [`Declined`] says why not.
pub fn row_program(region: &Graph, maps: &[&Map]) -> Result<(), Declined> {
    let form = row_form_of(region, maps)?;
    // What the form does not show: whether an index is loaded where another read may be outside.
    let (mut loads, mut guards) = (false, false);
    for read in maps.iter().flat_map(|map| &map.reads) {
        loads |= read.index.iter().any(|index| matches!(index, IndexExpr::Load { .. }));
        guards |= read.outside.is_some();
    }
    if loads && guards { rows::build("trial", region, &form).map(|_| ()) } else { Ok(()) }
}

/// The nest of a region.
///
/// # Errors
/// [`Declined`] if the region is not one nest; `fuse` asks [`row_program`] first and never makes such a region.
pub fn build(name: &str, region: &Graph) -> Result<Built, Declined> {
    if let Some(built) = scatter::build(name, region)? {
        return Ok(built);
    }
    let form = row_form(region)?;
    rows::build(name, region, &form)
}
