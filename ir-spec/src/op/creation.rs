//! Placeholder.

use crate::body::Body;
use crate::op::{Fault, Gradient, OpSpec, Types, Vjp};
use crate::types::TensorType;

impl OpSpec for super::State {
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

impl OpSpec for super::Const {
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

impl OpSpec for super::Iota {
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

impl OpSpec for super::RngUniform {
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

impl OpSpec for super::RngNormal {
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
