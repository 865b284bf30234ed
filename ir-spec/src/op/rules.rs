//! What the rules of several families share: checks of operands and the building of decompositions.

use crate::body::Body;
use crate::builder::{GraphBuilder, Tensor};
use crate::graph::{Graph, Provenance};
use crate::op::{Fault, Faults};
use crate::types::{DType, TensorType};

/// The decomposition that `build` makes of parameters with the operands' types.
pub(super) fn compose(names: &[&str], operands: &[TensorType], build: impl FnOnce(&[Tensor]) -> Vec<Tensor>) -> Body {
    let builder = GraphBuilder::over(Graph::default());
    // The nodes belong to the line of the node that is decomposed, not to this file.
    builder.set_provenance(Some(Provenance::default()));
    let params: Vec<Tensor> =
        names.iter().zip(operands).map(|(name, ty)| builder.param(name, ty.clone(), None)).collect();
    let results = build(&params);
    builder.returns(&results.iter().collect::<Vec<_>>());
    match builder.finish() {
        Ok(graph) => Body::Composite(Box::new(graph)),
        // Only a wrong rule in this crate comes here: `infer` has accepted the operands.
        Err(faults) => panic!("defect: a decomposition of ({}) has faults: {faults:?}", names.join(", ")),
    }
}

/// The dimension that `dim` counts, from the end if negative.
pub(super) fn dimension(dim: i64, rank: usize) -> Option<usize> {
    let from_start = if dim < 0 { dim.checked_add_unsigned(rank as u64)? } else { dim };
    usize::try_from(from_start).ok().filter(|&d| d < rank)
}

/// All dimensions of a tensor of `rank` but `dim`.
pub(super) fn others(rank: usize, dim: usize) -> Vec<usize> {
    (0..rank).filter(|&d| d != dim).collect()
}

/// Mean of all elements, a scalar.
pub(super) fn mean_all(x: &Tensor) -> Tensor {
    let dims: Vec<usize> = (0..x.rank()).collect();
    if dims.is_empty() { x.clone() } else { x.mean(&dims) }
}

/// Sum over the dimensions before the last.
pub(super) fn sum_leading(x: &Tensor) -> Tensor {
    let dims: Vec<usize> = (0..x.rank().saturating_sub(1)).collect();
    if dims.is_empty() { x.clone() } else { x.sum(&dims) }
}

impl Faults {
    /// Requires a float type.
    pub(super) fn float(&mut self, label: &'static str, name: &str, ty: &TensorType) -> bool {
        self.require(ty.dtype.is_float(), || {
            Fault::new(label, format!("`{name}` is {ty}, not of a float type")).help("`cast` it to f32")
        })
    }

    /// Requires the element type and the shape of `wanted`.
    pub(super) fn same(&mut self, label: &'static str, name: &str, ty: &TensorType, wanted: &TensorType) -> bool {
        self.require(ty.dtype == wanted.dtype && ty.shape == wanted.shape, || {
            Fault::new(label, format!("`{name}` is {ty}, it must be {wanted}")).help(advice(ty, wanted))
        })
    }

    /// Requires a float scalar.
    pub(super) fn float_scalar(&mut self, label: &'static str, name: &str, ty: &TensorType) -> bool {
        self.require(ty.dtype.is_float() && ty.rank() == 0, || {
            Fault::new(label, format!("`{name}` is {ty}, it must be a float scalar, f32[]"))
        })
    }

    /// Requires an i64 scalar: a counter.
    pub(super) fn counter(&mut self, label: &'static str, name: &str, ty: &TensorType) -> bool {
        self.require(ty.dtype == DType::I64 && ty.rank() == 0, || {
            Fault::new(label, format!("`{name}` is {ty}, it must be i64[]"))
                .help("read it from a counter: `state @counter: i64[] = counter constant {value = 0}`")
        })
    }

    /// Requires `low <= value <= high`; NaN fails.
    pub(super) fn within(&mut self, label: &'static str, name: &str, value: f64, low: f64, high: f64) -> bool {
        self.require((low..=high).contains(&value), || {
            Fault::new(label, format!("`{name}` is {value}, it must lie in {low}..={high}"))
        })
    }

    /// Requires a finite number that is not negative.
    pub(super) fn not_negative(&mut self, label: &'static str, name: &str, value: f64) -> bool {
        self.require(value.is_finite() && value >= 0.0, || {
            Fault::new(label, format!("`{name}` is {value}, it must be finite and at least 0"))
        })
    }
}

fn advice(ty: &TensorType, wanted: &TensorType) -> String {
    if ty.dtype != wanted.dtype {
        format!("`cast` it to {}", wanted.dtype)
    } else if ty.rank() == wanted.rank() {
        "an extent of one of the two has to change".to_owned()
    } else {
        format!("`reshape` or `broadcast` it to {}", wanted.shape)
    }
}
