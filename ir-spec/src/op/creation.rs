//! Values that no computation makes: states, constants, positions, random numbers.

use crate::attribute::Literal;
use crate::body::{Body, Combine, Map, Read, range};
use crate::module::stream;
use crate::op::rules::dimension;
use crate::op::{Fault, Faults, Gradient, OpSpec, Types, Vjp};
use crate::scalar::{self, BinaryFn, Number, ScalarExpr};
use crate::types::{DType, Extents, TensorType, row_major_strides};

/// A map without reads of tensors.
fn generated(ty: &TensorType, reads: Vec<Read>, expr: ScalarExpr) -> Body {
    Body::Map(Map { parallel: ty.extents(), reduce: Extents::new(), reads, exprs: vec![expr], combine: Combine::None })
}

/// 1. `state.C1`: the declared type is row-major; `relayout` the value instead.
///
/// The body is `Expanded`: the session holds the value, so whoever evaluates a graph binds it before looking at bodies.
impl OpSpec for super::State {
    fn infer(&self, _: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let mut faults = Faults::default();
        faults.require(self.ty.layout.is_row_major(), || {
            Fault::new("state.C1", format!("the state `@{}` is read as {}, states are row-major", self.name, self.ty))
                .help("read it row-major and `relayout` the value")
        });
        faults.finish(|| smallvec::smallvec![self.ty.clone()])
    }

    fn body(&self, _: &[TensorType], _: &[TensorType]) -> Body {
        Body::Expanded
    }

    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        Gradient::Operands(Vec::new())
    }
}

/// 1. `const.C1`: a list has as many numbers as the type has elements.
/// 2. `const.C2`: every number is a value of the element type: integers without fraction and within its range.
///
/// The body of a list is `Expanded`: the numbers are in the attribute, and whoever evaluates a graph takes them there.
impl OpSpec for super::Const {
    fn infer(&self, _: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let mut faults = Faults::default();
        let numbers = match &self.value {
            Literal::Splat(number) => std::slice::from_ref(number),
            Literal::Dense(numbers) => {
                let elements = self.ty.shape.known().map(|extents| extents.iter().product::<usize>());
                faults.require(elements == Some(numbers.len()), || {
                    let wanted = elements.map_or("a number of elements that is not known".into(), |n| n.to_string());
                    Fault::new("const.C1", format!("{} numbers for {}, which has {wanted}", numbers.len(), self.ty))
                        .help("give one number for all elements, or all of them in row-major order")
                });
                numbers
            }
        };
        let wrong = numbers.iter().find(|number| !is_value_of(**number, self.ty.dtype));
        faults.require(wrong.is_none(), || {
            let number = wrong.map_or(0.0, |n| n.to_f64());
            Fault::new("const.C2", format!("{number} is not a value of {}", self.ty.dtype))
        });
        faults.finish(|| smallvec::smallvec![self.ty.clone()])
    }

    fn body(&self, _: &[TensorType], _: &[TensorType]) -> Body {
        match &self.value {
            Literal::Splat(number) => generated(&self.ty, Vec::new(), ScalarExpr::literal(*number, self.ty.dtype)),
            Literal::Dense(_) => Body::Expanded,
        }
    }

    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        Gradient::Operands(Vec::new())
    }
}

fn is_value_of(number: Number, dtype: DType) -> bool {
    let (low, high) = range(dtype);
    match number {
        _ if dtype.is_float() => true,
        Number::Int(value) => (low.to_i64()..=high.to_i64()).contains(&value),
        // -2^63 and 2^63 are exact in binary64, so the comparisons are too.
        Number::Float(value) => {
            let fits = value >= low.to_f64() && (value <= high.to_f64());
            value.fract() == 0.0 && fits && value < 9_223_372_036_854_775_808.0
        }
    }
}

/// 1. `iota.C1`: `dim` is a dimension of the declared type, negative from the end.
/// 2. `iota.C2`: the element type is not bool.
impl OpSpec for super::Iota {
    fn infer(&self, _: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let mut faults = Faults::default();
        faults.require(dimension(self.dim, self.ty.rank()).is_some(), || {
            Fault::new("iota.C1", format!("dimension {} of {}, which has {}", self.dim, self.ty, self.ty.rank()))
        });
        faults.require(self.ty.dtype != DType::Bool, || {
            Fault::new("iota.C2", "positions have no bool values").help("declare an integer type and compare")
        });
        faults.finish(|| smallvec::smallvec![self.ty.clone()])
    }

    fn body(&self, _: &[TensorType], _: &[TensorType]) -> Body {
        let dim = dimension(self.dim, self.ty.rank()).unwrap_or_default();
        generated(&self.ty, Vec::new(), ScalarExpr::index(dim).cast(self.ty.dtype))
    }

    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        Gradient::Operands(Vec::new())
    }
}

/// 1. `rng.C1`: the element type is f32 or f64; `rng_uniform` also makes u32.
/// 2. `rng.C2`: `counter` is i64[].
///
/// f32 takes the upper 24 bits of one draw, f64 27 and 26 bits of the draws at `2p` and `2p + 1`, u32 all bits of one.
impl OpSpec for super::RngUniform {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        infer_rng(&self.ty, &operands[0], &[DType::F32, DType::F64, DType::U32])
    }

    fn body(&self, _: &[TensorType], _: &[TensorType]) -> Body {
        let draws = Draws::new(&self.stream, &self.ty);
        let expr = match self.ty.dtype {
            DType::F64 => {
                let (high, low) = draws.pair();
                let high = scalar::shr(high, literal_u32(5)).cast(DType::F64);
                let low = scalar::shr(low, literal_u32(6)).cast(DType::F64);
                // 2^26 and 2^-53, both exact.
                (high * 67_108_864.0 + low) * f64::EPSILON * 0.5
            }
            DType::F32 => upper_bits(draws.single()) * TWO_POW_MINUS_24,
            _ => draws.single(),
        };
        generated(&self.ty, vec![Read::inside(0, [])], expr)
    }

    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        Gradient::Operands(vec![None])
    }
}

/// Constraints as `rng_uniform`. `sqrt(-2 ln u) * cos(2 pi v)` with `u` in (0, 1] from the draw at `2p` and `v` in
/// [0, 1) from the draw at `2p + 1`: 24 bits each for f32, 32 for f64.
impl OpSpec for super::RngNormal {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        infer_rng(&self.ty, &operands[0], &[DType::F32, DType::F64])
    }

    fn body(&self, _: &[TensorType], _: &[TensorType]) -> Body {
        let (first, second) = Draws::new(&self.stream, &self.ty).pair();
        let (u, v) = match self.ty.dtype {
            DType::F64 => {
                let unit = 1.0 / 4_294_967_296.0;
                ((first.cast(DType::F64) + 1.0) * unit, second.cast(DType::F64) * unit)
            }
            _ => ((upper_bits(first) + 1.0) * TWO_POW_MINUS_24, upper_bits(second) * TWO_POW_MINUS_24),
        };
        let expr = scalar::sqrt(-2.0 * scalar::log(u)) * scalar::cos(std::f64::consts::TAU * v);
        generated(&self.ty, vec![Read::inside(0, [])], expr)
    }

    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        Gradient::Operands(vec![None])
    }
}

const TWO_POW_MINUS_24: f64 = 1.0 / 16_777_216.0;

fn infer_rng(ty: &TensorType, counter: &TensorType, dtypes: &[DType]) -> Result<Types, Vec<Fault>> {
    let mut faults = Faults::default();
    faults.require(dtypes.contains(&ty.dtype), || {
        let names: Vec<&str> = dtypes.iter().map(|d| d.name()).collect();
        Fault::new("rng.C1", format!("random numbers of {} are not defined", ty.dtype))
            .help(format!("declare one of {} and `cast`", names.join(", ")))
    });
    faults.counter("rng.C2", "counter", counter);
    faults.finish(|| smallvec::smallvec![ty.clone()])
}

fn literal_u32(value: i64) -> ScalarExpr {
    ScalarExpr::literal(value, DType::U32)
}

/// The upper 24 bits, exact in f32.
fn upper_bits(draw: ScalarExpr) -> ScalarExpr {
    scalar::shr(draw, literal_u32(8)).cast(DType::F32)
}

/// Draws of one element.
struct Draws {
    key: u64,
    position: ScalarExpr,
}

impl Draws {
    fn new(name: &str, ty: &TensorType) -> Draws {
        let strides = row_major_strides(&ty.extents());
        let terms = strides.iter().enumerate().map(|(dim, &stride)| {
            let index = ScalarExpr::index(dim);
            if stride == 1 { index } else { index.binary(BinaryFn::Mul, integer(stride as i64)) }
        });
        let position = terms.reduce(|sum, term| sum.binary(BinaryFn::Add, term)).unwrap_or_else(|| integer(0));
        Draws { key: stream(name), position }
    }

    fn at(&self, position: ScalarExpr) -> ScalarExpr {
        ScalarExpr::philox(self.key, ScalarExpr::read(0, DType::I64), position)
    }

    fn single(&self) -> ScalarExpr {
        self.at(self.position.clone())
    }

    fn pair(&self) -> (ScalarExpr, ScalarExpr) {
        let even = self.position.clone().binary(BinaryFn::Mul, integer(2));
        let odd = even.clone().binary(BinaryFn::Add, integer(1));
        (self.at(even), self.at(odd))
    }
}

fn integer(value: i64) -> ScalarExpr {
    ScalarExpr::literal(value, DType::I64)
}
