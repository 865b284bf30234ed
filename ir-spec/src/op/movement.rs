//! Placeholder.

use crate::body::Body;
use crate::op::{Fault, Gradient, OpSpec, Types, Vjp};
use crate::types::TensorType;

impl OpSpec for super::Transpose {
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

impl OpSpec for super::Slice {
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

impl OpSpec for super::Pad {
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

impl OpSpec for super::Concat {
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

impl OpSpec for super::Reverse {
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

impl OpSpec for super::Cast {
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

impl OpSpec for super::Reshape {
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

impl OpSpec for super::Broadcast {
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

impl OpSpec for super::Relayout {
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
