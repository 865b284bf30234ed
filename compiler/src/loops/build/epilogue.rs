//! What follows the sums of a micro-kernel before they are stored: bias, scale, residual and activation.

use kiln_ir::graph::{Def, Graph, NodeData, Value};
use kiln_ir::op::{Elementwise, Op};
use kiln_rt::kernels::Activation;

/// The members after a root; operands are parameters of the region. `A` says along what a vector runs.
#[derive(Clone, Debug)]
pub(super) struct Chain<A> {
    /// Vector that is added.
    pub(super) bias: Option<(usize, A)>,
    /// Vector that is multiplied.
    pub(super) scale: Option<(usize, A)>,
    /// Tensor that is added.
    pub(super) residual: Option<usize>,
    /// Last.
    pub(super) activation: Activation,
}

/// Follows the chain from the root to the result: bias, scale, residual, activation, each at most once, in this order.
/// `along` answers for a vector that is broadcast onto these dimensions of the result, and whether it fills them.
///
/// # Errors
/// Why the members are no epilogue that the kernels have.
pub(super) fn follow<A>(
    region: &Graph,
    root: &NodeData,
    along: impl Fn(&[usize], bool) -> Option<A>,
) -> Result<Chain<A>, &'static str> {
    let users = region.users();
    let mut chain = Chain { bias: None, scale: None, residual: None, activation: Activation::None };
    let mut current = root.results[0];
    let mut stage = 0;
    while region.returns() != [current] {
        let [user] = users[current.index()].as_slice() else {
            return Err("a value before the end of the chain is used more than once");
        };
        let data = region.node(*user);
        let next = step(region, data, current, &along, &mut chain)?;
        if next <= stage {
            return Err("the kernels apply bias, scale, residual and activation in this order, once each");
        }
        stage = next;
        current = data.results[0];
    }
    Ok(chain)
}

/// Takes one member into the chain; returns its place in the order.
fn step<A>(
    region: &Graph,
    data: &NodeData,
    current: Value,
    along: &impl Fn(&[usize], bool) -> Option<A>,
    chain: &mut Chain<A>,
) -> Result<u8, &'static str> {
    if let Some(activation) = activation(&data.op) {
        chain.activation = activation;
        return Ok(4);
    }
    let Op::Elementwise(op @ (Elementwise::Add | Elementwise::Mul)) = &data.op else {
        return Err("the kernels have no such epilogue");
    };
    let other = data.operands.iter().copied().find(|&v| v != current);
    match (op, operand(region, other.ok_or("both operands are the contraction")?, along)?) {
        (Elementwise::Add, Operand::Vector(param, along)) => {
            chain.bias = Some((param, along));
            Ok(1)
        }
        (_, Operand::Vector(param, along)) => {
            chain.scale = Some((param, along));
            Ok(2)
        }
        (Elementwise::Add, Operand::Tensor(param)) => {
            chain.residual = Some(param);
            Ok(3)
        }
        _ => Err("the kernels have no product with a whole tensor"),
    }
}

/// The op as an activation of the kernels.
pub(super) fn activation(op: &Op) -> Option<Activation> {
    Some(match op {
        Op::Elementwise(Elementwise::Relu) => Activation::Relu,
        Op::Elementwise(Elementwise::Gelu) => Activation::GeluErf,
        Op::Elementwise(Elementwise::GeluTanh) => Activation::GeluTanh,
        Op::Elementwise(Elementwise::Silu) => Activation::Silu,
        Op::Elementwise(Elementwise::Sigmoid) => Activation::Sigmoid,
        Op::Elementwise(Elementwise::Tanh) => Activation::Tanh,
        Op::Elementwise(Elementwise::HardSigmoid) => Activation::HardSigmoid,
        Op::Elementwise(Elementwise::HardSwish) => Activation::HardSwish,
        Op::LeakyRelu(op) => Activation::LeakyRelu(op.slope),
        Op::Clamp(op) => Activation::Clamp { low: op.low, high: op.high },
        _ => return None,
    })
}

enum Operand<A> {
    Vector(usize, A),
    Tensor(usize),
}

/// The other operand of a member: a whole tensor, or a vector.
fn operand<A>(
    region: &Graph,
    value: Value,
    along: &impl Fn(&[usize], bool) -> Option<A>,
) -> Result<Operand<A>, &'static str> {
    const INSIDE: &str = "an operand of the epilogue is computed inside";
    let node = match region.value(value).def {
        Def::Param(param) => return Ok(Operand::Tensor(param)),
        Def::Result(node, _) => node,
    };
    let data = region.node(node);
    let Op::Broadcast(broadcast) = &data.op else { return Err(INSIDE) };
    let Def::Param(param) = region.value(data.operands[0]).def else { return Err(INSIDE) };
    let source = region.ty(data.operands[0]).extents();
    let target = region.ty(value).extents();
    let onto: Vec<usize> = broadcast.dims.iter().map(|&d| d as usize).collect();
    let fills = !onto.is_empty() && onto.iter().zip(&source).all(|(&d, &e)| target[d] == e);
    let along = along(&onto, fills).ok_or("a vector of the epilogue runs along neither the rows nor the columns")?;
    Ok(Operand::Vector(param, along))
}
