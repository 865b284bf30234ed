//! Contractions with an epilogue: what one call of a micro-kernel covers.
//!
//! A contraction is a sum of products of two affine reads. Each parallel dimension belongs to the left operand (m), to
//! the right one (n) or to both (batch); the summed ones are k. dot, conv and both gradients of conv have this form.

use kiln_ir::body::{Affine, Body, IndexExpr, Map, Read};
use kiln_ir::graph::{Def, Graph, NodeData};
use kiln_ir::op::Op;
use kiln_ir::scalar::ScalarNode;
use kiln_ir::types::{DType, Extents, row_major_strides};
use kiln_rt::kernels::{Activation, AffineDim, AffineRead, Along, ContractSpec, Element, Epilogue, Packed, Stored};

use super::body_of;
use super::epilogue::follow;

/// A region that one micro-kernel covers. Operands are parameters of the region, by position.
#[derive(Clone, Debug)]
pub struct ContractForm {
    /// For the kernel's plan.
    pub spec: ContractSpec,
    /// Left operand.
    pub left: usize,
    /// Right operand.
    pub right: usize,
    /// Vector that is added.
    pub bias: Option<usize>,
    /// Vector that is multiplied.
    pub scale: Option<usize>,
    /// Tensor that is added.
    pub residual: Option<usize>,
}

impl ContractForm {
    /// The residual, if the result may be computed over it: each tile reads it where it writes, but other operands
    /// anywhere.
    pub fn residual_in_place(&self) -> Option<usize> {
        let others = [Some(self.left), Some(self.right), self.bias, self.scale];
        self.residual.filter(|residual| !others.contains(&Some(*residual)))
    }
}

/// Whether a node is a contraction that a micro-kernel can do.
pub fn is_contraction(graph: &Graph, data: &NodeData) -> bool {
    !matches!(data.op, Op::Elementwise(_)) && is_contraction_body(graph, data, &body_of(graph, data))
}

/// As [`is_contraction`], with the node's body at hand.
pub fn is_contraction_body(graph: &Graph, data: &NodeData, body: &Body) -> bool {
    let Body::Map(map) = body else { return false };
    let operands = (!matches!(data.op, Op::Elementwise(_))).then(|| map.as_contract()).flatten();
    operands.is_some_and(|(a, b)| {
        let dtype = |value| graph.ty(value).dtype;
        let operands = [a, b].map(|read| dtype(data.operands[read.operand]));
        let elements = elements(operands, map.exprs[0].dtype(), dtype(data.results[0]));
        elements.is_some() && reads_zero_outside(a) && reads_zero_outside(b)
    })
}

/// Types of the sums and of what is not of that type, if the kernels have them: `f64` alone, `f32` with half types, `i32`
/// with bytes.
fn elements([left, right]: [DType; 2], sum: DType, out: DType) -> Option<(Element, Stored)> {
    let float = |dtype: DType| dtype == DType::F32 || dtype.is_half();
    let integer = |dtype: DType| matches!(dtype, DType::I8 | DType::U8 | DType::I32);
    let fits = match sum {
        DType::F64 => [left, right, out] == [DType::F64; 3],
        DType::F32 => [left, right, out].into_iter().all(float),
        DType::I32 => integer(left) && integer(right) && out == DType::I32,
        _ => false,
    };
    let stored = |dtype| element(dtype).filter(|_| dtype != sum);
    let stored = Stored { left: stored(left), right: stored(right), out: stored(out) };
    fits.then(|| Some((element(sum)?, stored))).flatten()
}

fn element(dtype: DType) -> Option<Element> {
    Some(match dtype {
        DType::F32 => Element::F32,
        DType::F64 => Element::F64,
        DType::Bf16 => Element::Bf16,
        DType::F16 => Element::F16,
        DType::I8 => Element::I8,
        DType::U8 => Element::U8,
        DType::I32 => Element::I32,
        DType::U32 | DType::I64 | DType::Bool => return None,
    })
}

fn reads_zero_outside(read: &Read) -> bool {
    read.outside.is_none_or(|value| value.to_f64() == 0.0)
}

/// The form of a region whose first contraction is its root.
///
/// # Errors
/// Why the members after the root are no epilogue that the kernels have.
pub fn contract_form(region: &Graph) -> Option<Result<ContractForm, &'static str>> {
    let (_, root) = region.nodes().find(|(_, data)| is_contraction(region, data))?;
    Some(form(region, root))
}

fn form(region: &Graph, root: &NodeData) -> Result<ContractForm, &'static str> {
    let Body::Map(map) = body_of(region, root) else { return Err("the root has no map body") };
    let Some((a, b)) = map.as_contract() else { return Err("the root is no contraction") };
    let ((left, a), (right, b)) = (source(region, root, a)?, source(region, root, b)?);
    let (a, b) = (&a, &b);
    let whole = map.parallel == region.ty(root.results[0]).extents();
    let dims = Dims::of(&map, a, b, whole)?;
    let extents = |read: &Read, param: usize| {
        read.view.clone().unwrap_or_else(|| region.ty(region.params()[param].value).extents())
    };
    let strides = row_major_strides(&map.parallel);
    let order = dims.order();
    let outer = dims.batch.len() + dims.m.len() + dims.n.len();
    let operands = [left, right].map(|param| region.ty(region.params()[param].value).dtype);
    let out = region.ty(root.results[0]).dtype;
    let (element, stored) = elements(operands, map.exprs[0].dtype(), out).ok_or("no kernel has its types")?;
    let spec = ContractSpec {
        element,
        stored,
        rounds_operands: false,
        batch: dims.pick(&map, &dims.batch),
        m: dims.pick(&map, &dims.m),
        n: dims.pick(&map, &dims.n),
        k: dims.pick(&map, &dims.k),
        left: affine_read(a, &extents(a, left), &order),
        right: affine_read(b, &extents(b, right), &order),
        out_strides: order[..outer].iter().map(|&d| strides[d] as i64).collect(),
        out_offset: 0,
        epilogue: Epilogue::default(),
        packed: Packed::default(),
        shares_panels: false,
        near: false,
    };
    let mut form = ContractForm { spec, left, right, bias: None, scale: None, residual: None };
    let chain = follow(region, root, |onto, whole| match onto {
        _ if !whole || !dims.whole => None,
        onto if onto == dims.m => Some(Along::M),
        onto if onto == dims.n => Some(Along::N),
        _ => None,
    })?;
    if element == Element::I32 && !matches!(chain.activation, Activation::None | Activation::Relu) {
        return Err("the kernels have no such epilogue of integers");
    }
    form.bias = chain.bias.map(|(param, _)| param);
    form.scale = chain.scale.map(|(param, _)| param);
    form.residual = chain.residual;
    form.spec.epilogue = Epilogue {
        bias: chain.bias.map(|(_, along)| along),
        scale: chain.scale.map(|(_, along)| along),
        residual: chain.residual.is_some(),
        activation: chain.activation,
    };
    Ok(form)
}

/// The parameter behind an operand of the root, and the read of it: members that only move elements, or widen them as they
/// are read, are read through.
fn source(region: &Graph, root: &NodeData, read: &Read) -> Result<(usize, Read), &'static str> {
    const INSIDE: &str = "an operand of the contraction is computed inside";
    let mut read = read.clone();
    let mut value = root.operands[read.operand];
    loop {
        let node = match region.value(value).def {
            Def::Param(number) => return Ok((number, read)),
            Def::Result(node, _) => node,
        };
        let data = region.node(node);
        let Body::Map(map) = body_of(region, data) else { return Err(INSIDE) };
        let inner = movement_of(&map).filter(|_| read.view.is_none() && read.outside.is_none()).ok_or(INSIDE)?;
        let index = inner.index.iter().map(|index| through(index, &read).map(IndexExpr::Affine));
        read.index = index.collect::<Option<_>>().ok_or(INSIDE)?;
        value = data.operands[inner.operand];
    }
}

/// The read of a map that does nothing but move or widen elements that are all inside.
fn movement_of(map: &Map) -> Option<&Read> {
    let ([expr], [read]) = (map.exprs.as_slice(), map.reads.as_slice()) else { return None };
    let linear = |index: &IndexExpr| matches!(index, IndexExpr::Affine(affine) if affine.divisor == 1);
    let widens = match expr.node() {
        ScalarNode::Read(_) => true,
        ScalarNode::Cast(x) => matches!(x.node(), ScalarNode::Read(_)) && x.dtype().is_read_as(expr.dtype()),
        _ => false,
    };
    let moves = map.reduce.is_empty() && widens;
    (moves && read.view.is_none() && read.outside.is_none() && read.index.iter().all(linear)).then_some(read)
}

/// Whether a map only moves or widens elements, in a way that a contraction can read its operand through.
pub fn is_movement(map: &Map) -> bool {
    movement_of(map).is_some()
}

/// The index of a movement at the position that `outer` reads.
fn through(index: &IndexExpr, outer: &Read) -> Option<Affine> {
    let IndexExpr::Affine(index) = index else { return None };
    let mut offset = index.offset;
    let mut terms: Vec<(usize, i64)> = Vec::new();
    for &(dim, coefficient) in &index.terms {
        let IndexExpr::Affine(position) = outer.index.get(dim)? else { return None };
        if position.divisor != 1 {
            return None;
        }
        offset += coefficient * position.offset;
        terms.extend(position.terms.iter().map(|&(dim, c)| (dim, coefficient * c)));
    }
    Some(Affine::new(terms, offset))
}

/// Dimensions of the body by class.
struct Dims {
    batch: Vec<usize>,
    m: Vec<usize>,
    n: Vec<usize>,
    k: Vec<usize>,
    /// Whether they are the dimensions of the result: those of a grouped convolution split its channels.
    whole: bool,
}

impl Dims {
    fn of(map: &Map, a: &Read, b: &Read, whole: bool) -> Result<Dims, &'static str> {
        let mut dims = Dims { batch: Vec::new(), m: Vec::new(), n: Vec::new(), k: Vec::new(), whole };
        for d in 0..map.parallel.len() {
            match (uses(a, d), uses(b, d)) {
                (true, true) => dims.batch.push(d),
                (false, true) => dims.n.push(d),
                (_, false) => dims.m.push(d),
            }
        }
        dims.k = (map.parallel.len()..map.parallel.len() + map.reduce.len()).collect();
        Ok(dims)
    }

    fn order(&self) -> Vec<usize> {
        [&self.batch, &self.m, &self.n, &self.k].into_iter().flatten().copied().collect()
    }

    fn pick(&self, map: &Map, dims: &[usize]) -> Vec<usize> {
        let extents: Extents = map.extents();
        dims.iter().map(|&d| extents[d]).collect()
    }
}

fn uses(read: &Read, dim: usize) -> bool {
    read.index.iter().any(|index| matches!(index, IndexExpr::Affine(a) if a.coefficient(dim) != 0))
}

fn affine_read(read: &Read, extents: &[usize], order: &[usize]) -> AffineRead {
    let strides = row_major_strides(extents);
    let position = |dim: usize| order.iter().position(|&d| d == dim).unwrap_or(0);
    let dims = read.index.iter().enumerate().map(|(d, index)| {
        let constant = Affine::constant(0);
        let affine = match index {
            IndexExpr::Affine(affine) => affine,
            IndexExpr::Load { .. } => &constant,
        };
        AffineDim {
            terms: affine.terms.iter().map(|&(dim, c)| (position(dim), c)).collect(),
            offset: affine.offset,
            divisor: affine.divisor,
            extent: extents[d],
            stride: strides[d] as i64,
        }
    });
    AffineRead { dims: dims.collect() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    /// Form of `dot + residual`, the residual being parameter `%{residual}`.
    fn form_with_residual(residual: &str) -> ContractForm {
        let text = format!(
            "graph @f(%a: f32[4, 4], %b: f32[4, 4], %c: f32[4, 4]) {{
               %dot = dot %a, %b {{a_contract = [1], b_contract = [0]}}
               %y = add %dot, %{residual}
               return %y
             }}"
        );
        let module = kiln_ir::text::parse_module("test.kiln", &text).unwrap();
        contract_form(module.graph("f").unwrap()).unwrap().unwrap()
    }

    #[test]
    fn a_residual_that_other_tiles_read_is_not_overwritten() {
        assert_eq!(form_with_residual("c").residual_in_place(), Some(2));
        assert_eq!(form_with_residual("a").residual_in_place(), None);
        assert_eq!(form_with_residual("b").residual_in_place(), None);
    }
}
