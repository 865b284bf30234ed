//! Placeholder.

use crate::body::Body;
use crate::op::{Fault, Gradient, OpSpec, Types, Vjp};
use crate::types::TensorType;

impl OpSpec for super::Sgd {
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

impl OpSpec for super::Momentum {
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

impl OpSpec for super::Adam {
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

impl OpSpec for super::AdamW {
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

impl OpSpec for super::RmsProp {
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

impl OpSpec for super::CosineRate {
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
