//! Rules of algebra that hold for every bit.

use kiln_ir::graph::Value;
use kiln_ir::op::{Elementwise, Op};
use kiln_ir::types::DType;

use super::movement::is;
use super::{Form, Site};

fn elementwise(site: &Site<'_>) -> Option<Elementwise> {
    match site.op {
        Op::Elementwise(op) => Some(*op),
        _ => None,
    }
}

/// `x * 1`, `x / 1`, `x - 0`, `x + -0`, and a selection that has no choice.
pub(super) fn neutral(site: &Site<'_>) -> Option<Form> {
    let float = site.ty.dtype.is_float();
    let is = |operand, number: f64| site.splat(operand).is_some_and(|n| n.to_bits() == number.to_bits());
    let kept = match elementwise(site)? {
        Elementwise::Mul if is(0, 1.0) => 1,
        Elementwise::Mul | Elementwise::Div if is(1, 1.0) => 0,
        Elementwise::Sub if is(1, 0.0) => 0,
        // x + 0 is 0 where x is -0; integers have one zero.
        Elementwise::Add if is(1, -0.0) || !float && is(1, 0.0) => 0,
        Elementwise::Add if is(0, -0.0) || !float && is(0, 0.0) => 1,
        Elementwise::Select if site.splat(0).is_some() => 1 + usize::from(is(0, 0.0)),
        Elementwise::Select if site.operands[1] == site.operands[2] => 1,
        _ => return None,
    };
    Some(Form::Same(site.operands[kept]))
}

/// Functions that change nothing the second time, or nothing at all for two equal operands.
pub(super) fn idempotent(site: &Site<'_>) -> Option<Form> {
    let op = elementwise(site)?;
    let &first = site.operands.first()?;
    match op {
        Elementwise::Max | Elementwise::Min | Elementwise::And | Elementwise::Or if first == site.operands[1] => {
            Some(Form::Same(first))
        }
        Elementwise::Relu | Elementwise::Abs | Elementwise::Floor | Elementwise::Ceil | Elementwise::Round => {
            is(site.behind(0)?.0, op).then_some(Form::Same(first))
        }
        _ => None,
    }
}

/// Signs and negations come in pairs, or go into the sum that reads them.
pub(super) fn sign(site: &Site<'_>) -> Option<Form> {
    let negated = |operand: usize| -> Option<Value> {
        let (op, behind) = site.behind(operand)?;
        is(op, Elementwise::Neg).then(|| behind[0])
    };
    let [first, second] = [0, 1].map(|i| site.operands.get(i).copied());
    let node = |op, a, b| Some(Form::node(Op::Elementwise(op), [a, b]));
    match elementwise(site)? {
        Elementwise::Neg => negated(0).map(Form::Same),
        Elementwise::Not => {
            let (op, behind) = site.behind(0)?;
            is(op, Elementwise::Not).then(|| Form::Same(behind[0]))
        }
        Elementwise::Abs | Elementwise::Square => {
            let op = site.op.clone();
            negated(0).map(|x| Form::node(op, [x]))
        }
        Elementwise::Sub => negated(1).and_then(|x| node(Elementwise::Add, first?, x)),
        Elementwise::Add => match (negated(0), negated(1)) {
            (_, Some(x)) => node(Elementwise::Sub, first?, x),
            (Some(x), None) => node(Elementwise::Sub, second?, x),
            _ => None,
        },
        // Quotients of integers round towards zero, but there is division by zero, and the smallest has no negation.
        op @ (Elementwise::Mul | Elementwise::Div) if op == Elementwise::Mul || site.ty.dtype.is_float() => {
            node(op, negated(0)?, negated(1)?)
        }
        _ => None,
    }
}

/// The same bits for less: `x * -1` is a negation, a quotient by a power of two a product.
pub(super) fn cheaper(site: &Site<'_>) -> Option<Form> {
    let &first = site.operands.first()?;
    match elementwise(site)? {
        Elementwise::Mul if site.splat(1) == Some(-1.0) => Some(Form::node(Op::Elementwise(Elementwise::Neg), [first])),
        Elementwise::Div if matches!(site.ty.dtype, DType::F32 | DType::F64) => {
            let divisor = site.splat(1)?;
            is_power_of_two(divisor).then(|| Form::Scaled(first, 1.0 / divisor))
        }
        Elementwise::Mul if site.splat(0) == Some(-1.0) => {
            Some(Form::node(Op::Elementwise(Elementwise::Neg), [site.operands[1]]))
        }
        _ => None,
    }
}

/// Whether the number and its reciprocal are exact in every float type of 32 bits and more.
fn is_power_of_two(number: f64) -> bool {
    let range = f64::from(f32::MIN_POSITIVE)..=1.0 / f64::from(f32::MIN_POSITIVE);
    number.to_bits().trailing_zeros() >= 52 && range.contains(&number.abs())
}

/// Of two operands that may change places, a constant is the second.
pub(super) fn constant_last(site: &Site<'_>) -> Option<Form> {
    let commutes = matches!(
        elementwise(site)?,
        Elementwise::Add
            | Elementwise::Mul
            | Elementwise::Max
            | Elementwise::Min
            | Elementwise::And
            | Elementwise::Or
            | Elementwise::Xor
            | Elementwise::Eq
            | Elementwise::Ne
    );
    let swap = commutes && site.is_constant(0) && !site.is_constant(1);
    swap.then(|| Form::node(site.op.clone(), [site.operands[1], site.operands[0]]))
}
