//! Types of values: element type, extents and layout.
//!
//! A dimension is an integer polynomial over names until the names are bound (`batch*4 + 1`); passes and everything
//! below them only ever see known extents, the name staying on as a label for messages.

mod dim;

use std::fmt;

use smallvec::SmallVec;

pub use dim::{Bindings, Dim, DimError};

/// An interned-by-sharing name: of a value, a state, a graph, a dimension.
pub type Name = std::sync::Arc<str>;

/// Known extents of a tensor, outermost first.
pub type Extents = SmallVec<[usize; 6]>;

/// Type of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
    /// Upper half of a binary32.
    Bf16,
    /// IEEE binary16.
    F16,
    /// Signed 8 bit.
    I8,
    /// Unsigned 8 bit.
    U8,
    /// Signed 32 bit.
    I32,
    /// Unsigned 32 bit.
    U32,
    /// Signed 64 bit.
    I64,
    /// One byte, 0 or 1.
    Bool,
}

impl DType {
    /// Every element type, in the order of the spec.
    pub const ALL: [DType; 10] = [
        DType::F32,
        DType::F64,
        DType::Bf16,
        DType::F16,
        DType::I8,
        DType::U8,
        DType::I32,
        DType::U32,
        DType::I64,
        DType::Bool,
    ];

    /// Name in the text form.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
            DType::I8 => "i8",
            DType::U8 => "u8",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::I64 => "i64",
            DType::Bool => "bool",
        }
    }

    /// Inverse of [`DType::name`].
    pub fn parse(text: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.name() == text)
    }

    /// Size of one element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::Bf16 | DType::F16 => 2,
            DType::I8 | DType::U8 | DType::Bool => 1,
        }
    }

    /// `f32 f64 bf16 f16`.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::Bf16 | DType::F16)
    }

    /// `bf16 f16`: held and moved in 16 bits, computed in `f32`.
    pub fn is_half(self) -> bool {
        matches!(self, DType::Bf16 | DType::F16)
    }

    /// The type in which ops compute: `f32` for half types, any other itself.
    pub fn computed(self) -> DType {
        if self.is_half() { DType::F32 } else { self }
    }

    /// Whether a cast to `wide` costs nothing where a micro-kernel reads its operand: half types in `f32`, bytes in `i32`.
    pub fn is_read_as(self, wide: DType) -> bool {
        match wide {
            DType::F32 => self.is_half(),
            DType::I32 => matches!(self, DType::I8 | DType::U8),
            _ => false,
        }
    }

    /// `i8 u8 i32 u32 i64`; `bool` is neither float nor integer.
    pub fn is_integer(self) -> bool {
        !self.is_float() && self != DType::Bool
    }

    /// Whether negative values exist.
    pub fn is_signed(self) -> bool {
        self.is_float() || matches!(self, DType::I8 | DType::I32 | DType::I64)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Extents of a tensor, outermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape(SmallVec<[Dim; 4]>);

impl Shape {
    /// The shape of a scalar.
    pub fn scalar() -> Shape {
        Shape::default()
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[Dim] {
        &self.0
    }

    /// Adds an innermost dimension.
    pub fn push(&mut self, dim: Dim) {
        self.0.push(dim);
    }

    /// The extents, if every name is bound.
    pub fn known(&self) -> Option<Extents> {
        self.0.iter().map(Dim::known).collect()
    }

    /// The extents of a bound shape. Unbound dimensions count as one element: callers below the front end hold a
    /// verified, bound module (V1), where that cannot happen.
    pub fn extents(&self) -> Extents {
        self.0.iter().map(|dim| dim.known().unwrap_or(1)).collect()
    }

    /// Number of elements of a bound shape; a scalar has one. At most `usize::MAX`: see [`TensorType::size_fault`].
    pub fn elements(&self) -> usize {
        self.extents().iter().fold(1, |product, &extent| product.saturating_mul(extent))
    }

    /// The shape with every name replaced by its binding, where there is one.
    pub fn bind(&self, bindings: &Bindings) -> Shape {
        self.0.iter().map(|dim| dim.bind(bindings)).collect()
    }
}

impl FromIterator<Dim> for Shape {
    fn from_iter<I: IntoIterator<Item = Dim>>(dims: I) -> Shape {
        Shape(dims.into_iter().collect())
    }
}

impl FromIterator<usize> for Shape {
    fn from_iter<I: IntoIterator<Item = usize>>(extents: I) -> Shape {
        extents.into_iter().map(Dim::from).collect()
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(extents: [usize; N]) -> Shape {
        extents.into_iter().collect()
    }
}

impl From<&[usize]> for Shape {
    fn from(extents: &[usize]) -> Shape {
        extents.iter().copied().collect()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

/// Order of the elements in memory: a permutation of the dimensions and inner blocks.
///
/// Row-major is the default and is not printed. `nChw16c` has order `[0, 1, 2, 3]` and the block `(1, 16)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Dimensions from outermost to innermost; empty means row-major.
    pub order: SmallVec<[u8; 4]>,
    /// Inner blocks `(dimension, elements)`, outermost first.
    pub blocks: SmallVec<[(u8, u8); 1]>,
}

impl Layout {
    /// Whether elements lie in row-major order.
    pub fn is_row_major(&self) -> bool {
        self.blocks.is_empty() && self.order.iter().enumerate().all(|(i, &d)| i == usize::from(d))
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LETTERS: &[u8; 8] = b"nchwdefg";
        let letter = |d: u8| char::from(LETTERS[usize::from(d) % 8]);
        let blocked = |d: u8| self.blocks.iter().any(|&(b, _)| b == d);
        for &d in &self.order {
            let c = letter(d);
            write!(f, "{}", if blocked(d) { c.to_ascii_uppercase() } else { c })?;
        }
        self.blocks.iter().try_for_each(|&(d, n)| write!(f, "{n}{}", letter(d)))
    }
}

/// Type of a value: `f32[batch, 64]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Shape,
    /// Order in memory; the meaning of a program never depends on it.
    pub layout: Layout,
}

impl TensorType {
    /// A row-major type.
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> TensorType {
        TensorType { dtype, shape: shape.into(), layout: Layout::default() }
    }

    /// The type of a scalar.
    pub fn scalar(dtype: DType) -> TensorType {
        TensorType::new(dtype, Shape::scalar())
    }

    /// The same shape and layout with another element type.
    pub fn with_dtype(&self, dtype: DType) -> TensorType {
        TensorType { dtype, ..self.clone() }
    }

    /// The same element type with another shape, row-major.
    pub fn with_shape(&self, shape: impl Into<Shape>) -> TensorType {
        TensorType::new(self.dtype, shape)
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.rank()
    }

    /// Known extents, see [`Shape::extents`].
    pub fn extents(&self) -> Extents {
        self.shape.extents()
    }

    /// Number of elements, see [`Shape::elements`].
    pub fn elements(&self) -> usize {
        self.shape.elements()
    }

    /// Size in bytes of a bound type.
    pub fn bytes(&self) -> usize {
        self.elements().saturating_mul(self.dtype.bytes())
    }

    /// Why no machine holds such a tensor: extents above 0 that are known make it larger than 2^40 bytes. Below that,
    /// sizes, strides and positions are far from overflow.
    pub fn size_fault(&self) -> Option<String> {
        let known = self.shape.dims().iter().filter_map(Dim::known).filter(|&extent| extent > 0);
        let bytes = known.fold(self.dtype.bytes(), |bytes, extent| bytes.saturating_mul(extent));
        (bytes > LARGEST_BYTES).then(|| format!("{self} is larger than 2^40 bytes"))
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)?;
        if !self.layout.is_row_major() {
            write!(f, "@{}", self.layout)?;
        }
        Ok(())
    }
}

/// Largest size of a tensor: 1 TiB.
const LARGEST_BYTES: usize = 1 << 40;

/// Row-major strides of `extents`, in elements.
pub fn row_major_strides(extents: &[usize]) -> Extents {
    let mut strides: Extents = smallvec::smallvec![1; extents.len()];
    for i in (1..extents.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(extents[i]);
    }
    strides
}
