//! Placeholder.

use crate::body::Body;
use crate::op::{Fault, Gradient, OpSpec, Types, Vjp};
use crate::types::TensorType;

impl OpSpec for super::Softmax {
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

impl OpSpec for super::LogSoftmax {
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

impl OpSpec for super::LayerNorm {
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

impl OpSpec for super::BatchNorm {
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

impl OpSpec for super::BatchNormInference {
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

impl OpSpec for super::BatchNormTraining {
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

impl OpSpec for super::Dropout {
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
