//! Pools and their gradients: reductions of windows over planes, with what may follow in registers.

use kiln_ir::attribute::Literal;
use kiln_ir::body::{Body, Combine, Map, Monoid};
use kiln_ir::graph::{Def, Graph, NodeData, Value};
use kiln_ir::op::{Elementwise, Op};
use kiln_ir::scalar::{Number, ScalarExpr, eq, select};
use kiln_ir::types::{DType, Extents};
use kiln_rt::kernels::Activation;
use kiln_rt::kernels::window::{PoolGradSpec, PoolReduce, PoolSpec, Share};

use super::epilogue::activation;
use super::{body_of, window};

/// A region that one kernel of windows covers. Operands are parameters of the region, by position.
#[derive(Clone, Debug)]
pub enum PoolForm {
    /// Each result reduces a window; the second result, if there is one, has the places of the maxima.
    Pool {
        /// For the kernel's plan.
        spec: PoolSpec,
        /// The planes.
        x: usize,
        /// Numbers of the results: values, places.
        results: (usize, Option<usize>),
    },
    /// Each result takes from the windows that it is in.
    Grad {
        /// For the kernel's plan.
        spec: PoolGradSpec,
        /// What the windows give.
        dy: usize,
        /// Which element of each window takes it.
        place: Option<usize>,
        /// Results are 0 where this is not above 0.
        gate: Option<usize>,
    },
}

/// Whether a node, whose body is at hand, reduces windows in a way that kernels know.
pub fn is_pool_body(graph: &Graph, data: &NodeData, body: &Body) -> bool {
    let extents = |operand: usize| graph.ty(data.operands[operand]).extents();
    let dtype = |value: Value| graph.ty(value).dtype;
    let Body::Map(map) = body else { return false };
    dtype(data.results[0]) == DType::F32 && Root::of(map, &extents).is_some()
}

/// The form of a region whose first pool is its root.
///
/// # Errors
/// Why the members after the root are nothing that the kernels have.
pub fn pool_form(region: &Graph) -> Option<Result<PoolForm, &'static str>> {
    let reduces =
        |data: &NodeData| !matches!(data.op, Op::Elementwise(_)) && is_pool_body(region, data, &body_of(region, data));
    let (_, data) = region.nodes().find(|(_, data)| reduces(data))?;
    Some(form(region, data))
}

/// What a pool computes, without what follows.
enum Root {
    Pool(PoolSpec),
    Grad(PoolGradSpec),
}

impl Root {
    fn of(map: &Map, extents: &dyn Fn(usize) -> Extents) -> Option<Root> {
        if map.reads.iter().any(|read| read.view.is_some()) || map.reduce.contains(&0) {
            return None;
        }
        Root::pool(map, extents).or_else(|| Root::grad(map, extents))
    }

    fn pool(map: &Map, extents: &dyn Fn(usize) -> Extents) -> Option<Root> {
        let [read] = map.reads.as_slice() else { return None };
        let planes = window::windows(map, read, &extents(read.operand))?;
        let outside = |wanted: f64| read.outside.is_none_or(|value| value.to_f64() == wanted);
        let value = ScalarExpr::read(0, DType::F32);
        let reduce = match (map.combine, map.exprs.as_slice()) {
            (Combine::ArgMax, [max, at]) if *max == value && *at == place(map) && outside(f64::NEG_INFINITY) => {
                PoolReduce::Max { place: true }
            }
            (Combine::Each(Monoid::Sum), [sum]) if *sum == value && outside(0.0) => PoolReduce::Sum { scale: 1.0 },
            _ => return None,
        };
        let [rows, columns] = planes.axes;
        // Sums of a gradient run backwards: it has a kernel of its own. Lanes run along the results, which are few for
        // windows as large as the plane.
        let worthwhile = columns.axis.output >= columns.axis.kernel.min(4);
        let fits = worthwhile && !rows.flipped && !columns.flipped && planes.is_whole(map);
        let activation = Activation::None;
        fits.then(|| {
            Root::Pool(PoolSpec {
                planes: planes.count(map),
                rows: rows.axis,
                columns: columns.axis,
                reduce,
                activation,
            })
        })
    }

    fn grad(map: &Map, extents: &dyn Fn(usize) -> Extents) -> Option<Root> {
        let (read, chosen) = match map.reads.as_slice() {
            [dy] => (dy, false),
            [dy, place] if dy.index == place.index => (dy, true),
            _ => return None,
        };
        let planes = window::spread(map, read, &extents(read.operand))?;
        let value = ScalarExpr::read(0, DType::F32);
        let wanted = if chosen { select(eq(ScalarExpr::read(1, DType::I32), place(map)), value, 0.0) } else { value };
        let sums = map.combine == Combine::Each(Monoid::Sum) && map.exprs.as_slice() == [wanted];
        let zero = read.outside.is_none_or(|value| value.to_f64() == 0.0);
        let [rows, columns] = planes.axes.map(|axis| axis.axis);
        let fits = sums && zero && columns.stride <= 2 && planes.is_whole(map);
        let share = if chosen { Share::Chosen } else { Share::Whole };
        fits.then(|| Root::Grad(PoolGradSpec { planes: planes.count(map), rows, columns, share, gate: false }))
    }
}

/// Row-major position in the window, as i32.
fn place(map: &Map) -> ScalarExpr {
    let first = map.parallel.len();
    let position = map.reduce.iter().enumerate().fold(None, |position: Option<ScalarExpr>, (i, &extent)| {
        let here = ScalarExpr::index(first + i);
        let extent = ScalarExpr::literal(Number::Int(extent as i64), DType::I64);
        Some(position.map_or(here.clone(), |outer| outer * extent + here))
    });
    position.unwrap_or_else(|| ScalarExpr::literal(0.0, DType::I64)).cast(DType::I32)
}

fn form(region: &Graph, root: &NodeData) -> Result<PoolForm, &'static str> {
    const KIND: &str = "the root is no pool";
    let Body::Map(map) = body_of(region, root) else { return Err(KIND) };
    let extents = |operand: usize| region.ty(root.operands[operand]).extents();
    let param = |operand: usize| match region.value(root.operands[operand]).def {
        Def::Param(number) => Ok(number),
        Def::Result(..) => Err("an operand of the pool is computed inside"),
    };
    let operand = |read: usize| param(map.reads[read].operand);
    match Root::of(&map, &extents).ok_or(KIND)? {
        Root::Pool(mut spec) => {
            let places = root.results.get(1).copied();
            let place = places.and_then(|place| region.returns().iter().position(|&v| v == place));
            let value = follow(region, root.results[0], place.is_some(), |data, _| match &mut spec.reduce {
                _ if spec.activation != Activation::None => None,
                PoolReduce::Sum { scale } if *scale == 1.0 && factor(region, data).is_some() => {
                    *scale = factor(region, data)?;
                    Some(())
                }
                _ => {
                    spec.activation = activation(&data.op)?;
                    Some(())
                }
            })?;
            if let PoolReduce::Max { place: wanted } = &mut spec.reduce {
                *wanted = place.is_some();
            }
            Ok(PoolForm::Pool { spec, x: operand(0)?, results: (value, place) })
        }
        Root::Grad(mut spec) => {
            let mut gate = None;
            follow(region, root.results[0], false, |data, current| match gate {
                None => {
                    gate = Some(gate_of(region, data, current)?);
                    Some(())
                }
                Some(_) => None,
            })?;
            spec.gate = gate.is_some();
            let place = if spec.share == Share::Chosen { Some(operand(1)?) } else { None };
            Ok(PoolForm::Grad { spec, dy: operand(0)?, place, gate })
        }
    }
}

/// Follows the chain of single readers from `current` to a result, each taken by `take`; gives the result's number.
fn follow(
    region: &Graph,
    mut current: Value,
    more: bool,
    mut take: impl FnMut(&NodeData, Value) -> Option<()>,
) -> Result<usize, &'static str> {
    let users = region.users();
    let returns = region.returns();
    if returns.len() != 1 + usize::from(more) {
        return Err("a pool has one chain of results");
    }
    loop {
        let number = returns.iter().position(|&v| v == current);
        match (number, users[current.index()].as_slice()) {
            (Some(number), []) => return Ok(number),
            (None, [user]) => {
                let data = region.node(*user);
                take(data, current).ok_or("the kernels of pools have no such epilogue")?;
                current = data.results[0];
            }
            _ => return Err("a value before the end of the chain is used more than once"),
        }
    }
}

/// The number in every element of a value.
fn splat(region: &Graph, value: Value) -> Option<f64> {
    match region.producer(value).map(|(_, data)| &data.op)? {
        Op::Const(constant) => match constant.value {
            Literal::Splat(number) => Some(number.to_f64()),
            Literal::Dense(_) => None,
        },
        _ => None,
    }
}

/// The constant that a product is by.
fn factor(region: &Graph, data: &NodeData) -> Option<f64> {
    let product = matches!(data.op, Op::Elementwise(Elementwise::Mul));
    data.operands.iter().filter(|_| product).find_map(|&operand| splat(region, operand))
}

/// The parameter `g` of `select(g > 0, current, 0)`.
fn gate_of(region: &Graph, data: &NodeData, current: Value) -> Option<usize> {
    let (Op::Elementwise(Elementwise::Select), &[condition, value, zero]) = (&data.op, data.operands.as_slice()) else {
        return None;
    };
    let (_, compare) = region.producer(condition)?;
    let (Op::Elementwise(Elementwise::Gt), &[gate, bound]) = (&compare.op, compare.operands.as_slice()) else {
        return None;
    };
    let zeros = splat(region, zero) == Some(0.0) && splat(region, bound) == Some(0.0);
    match region.value(gate).def {
        Def::Param(number) if value == current && zeros && region.ty(gate).dtype == DType::F32 => Some(number),
        _ => None,
    }
}
