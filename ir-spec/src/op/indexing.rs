//! Placeholder.

use crate::body::Body;
use crate::op::{Fault, Gradient, OpSpec, Types, Vjp};
use crate::types::TensorType;

impl OpSpec for super::Gather {
    fn infer(&self, _: &[TensorType]) -> Result<Types, Vec<Fault>> {
        unimplemented!()
    }
    fn body(&self, _: &[TensorType], _: &[TensorType]) -> Body {
        unimplemented!()
    }
    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        unimplemented!()
    }
}

impl OpSpec for super::ScatterAdd {
    fn infer(&self, _: &[TensorType]) -> Result<Types, Vec<Fault>> {
        unimplemented!()
    }
    fn body(&self, _: &[TensorType], _: &[TensorType]) -> Body {
        unimplemented!()
    }
    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        unimplemented!()
    }
}

impl OpSpec for super::TakeAlong {
    fn infer(&self, _: &[TensorType]) -> Result<Types, Vec<Fault>> {
        unimplemented!()
    }
    fn body(&self, _: &[TensorType], _: &[TensorType]) -> Body {
        unimplemented!()
    }
    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        unimplemented!()
    }
}
