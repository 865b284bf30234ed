//! Pass `optimizer`: writes out the update rules of sgd, momentum, adam, adamw and rmsprop.
//!
//! ```text
//! graph @f(%w: f32[4], %g: f32[4], %rate: f32[]) {
//!   %w_new: f32[4] = sgd %w, %g, %rate {weight_decay = 0.0}
//!   return %w_new
//! }
//! ```
//! becomes
//! ```text
//! graph @f(%w: f32[4], %g: f32[4], %rate: f32[]) {
//!   %w_new.broadcast: f32[4] = broadcast %rate {dims = []}
//!   %w_new.mul: f32[4] = mul %w_new.broadcast, %g
//!   %w_new: f32[4] = sub %w, %w_new.mul
//!   return %w_new
//! }
//! ```

use kiln_ir::op::Op;
use kiln_ir::{Diagnostic, Module};

use super::decompose::inline_composites;
use super::{Changed, Pass, Remarks, each_graph};

/// The pass.
#[derive(Debug)]
pub struct Optimizer;

impl Pass for Optimizer {
    fn name(&self) -> &'static str {
        "optimizer"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        each_graph(module, remarks, |graph, remarks| inline_composites(graph, is_update, remarks))
    }
}

fn is_update(op: &Op) -> bool {
    matches!(op, Op::Sgd(_) | Op::Momentum(_) | Op::Adam(_) | Op::AdamW(_) | Op::RmsProp(_) | Op::CosineRate(_))
}
