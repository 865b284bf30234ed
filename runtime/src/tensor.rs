//! Tensors: a type and its elements, owned.
#![allow(unsafe_code, reason = "typed views of untyped bytes")]

use kiln_ir::{DType, Shape, TensorType};

use crate::arena::{Arena, OutOfMemory};

/// A tensor with its elements, 64-byte aligned, in the order of its layout.
#[derive(Debug)]
pub struct Tensor {
    ty: TensorType,
    data: Arena,
}

/// A tensor was asked for something it is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// Elements of another type.
    #[error("the elements are {found}, not {asked}; cast first")]
    Element {
        /// What the tensor holds.
        found: DType,
        /// What the caller wanted.
        asked: DType,
    },
    /// Another number of elements than the shape has.
    #[error("{given} elements were given for the shape {shape}, which has {expected}")]
    Count {
        /// The shape.
        shape: Box<Shape>,
        /// Its number of elements.
        expected: usize,
        /// The number given.
        given: usize,
    },
    /// No memory.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that can view a tensor's elements. 16-bit floats are viewed as `u16`, booleans as `u8`.
pub trait Element: sealed::Sealed + Copy + Default + 'static {
    /// The element type that [`Tensor::from_vec`] makes.
    const DTYPE: DType;

    /// Whether elements of `dtype` can be viewed as this type.
    fn views(dtype: DType) -> bool {
        dtype == Self::DTYPE
    }
}

macro_rules! elements {
    ($($rust:ty = $dtype:ident $(| $also:ident)*),* $(,)?) => { $(
        impl sealed::Sealed for $rust {}
        impl Element for $rust {
            const DTYPE: DType = DType::$dtype;
            $( fn views(dtype: DType) -> bool { matches!(dtype, DType::$dtype | DType::$also) } )*
        }
    )* };
}

elements! {
    f32 = F32, f64 = F64, i8 = I8, u8 = U8 | Bool, i32 = I32, u32 = U32, i64 = I64, u16 = F16 | Bf16,
}

impl Tensor {
    /// A tensor of zeros. Every extent of the type must be known.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn zeros(ty: TensorType) -> Result<Tensor, OutOfMemory> {
        let bytes = ty.extents().iter().try_fold(ty.dtype.bytes(), |bytes, &extent| bytes.checked_mul(extent));
        let data = Arena::new(bytes.unwrap_or(usize::MAX))?;
        Ok(Tensor { ty, data })
    }

    /// A row-major tensor with the given elements.
    ///
    /// # Errors
    /// [`TensorError::Count`] if the shape does not have as many elements.
    pub fn from_vec<T: Element>(shape: impl Into<Shape>, elements: Vec<T>) -> Result<Tensor, TensorError> {
        let shape = shape.into();
        if shape.elements() != elements.len() {
            return Err(TensorError::Count {
                expected: shape.elements(),
                given: elements.len(),
                shape: Box::new(shape),
            });
        }
        let mut tensor = Tensor::zeros(TensorType::new(T::DTYPE, shape))?;
        tensor.as_mut_slice::<T>()?.copy_from_slice(&elements);
        Ok(tensor)
    }

    /// A scalar.
    ///
    /// # Errors
    /// [`TensorError::OutOfMemory`].
    pub fn scalar<T: Element>(element: T) -> Result<Tensor, TensorError> {
        Tensor::from_vec(Shape::scalar(), vec![element])
    }

    /// A tensor of type `ty` whose memory holds `bytes`.
    ///
    /// # Errors
    /// [`TensorError::Count`] if the length differs.
    pub fn from_bytes(ty: TensorType, bytes: &[u8]) -> Result<Tensor, TensorError> {
        let mut tensor = Tensor::zeros(ty)?;
        if tensor.data.len() != bytes.len() {
            let (shape, size) = (Box::new(tensor.ty.shape.clone()), tensor.ty.dtype.bytes());
            return Err(TensorError::Count { expected: tensor.ty.elements(), given: bytes.len() / size, shape });
        }
        tensor.data.as_mut_slice().copy_from_slice(bytes);
        Ok(tensor)
    }

    /// Its type.
    pub fn ty(&self) -> &TensorType {
        &self.ty
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.ty.dtype
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len() / self.ty.dtype.bytes()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Elements in memory order.
    ///
    /// # Errors
    /// [`TensorError::Element`] if they are of another type.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], TensorError> {
        self.check_element::<T>()?;
        // SAFETY: the block is 64-byte aligned, holds `len` initialised elements of T's size, and every bit pattern
        // is a T.
        Ok(unsafe { std::slice::from_raw_parts(self.data.as_ptr().cast(), self.len()) })
    }

    /// Elements in memory order, for writing.
    ///
    /// # Errors
    /// [`TensorError::Element`] if they are of another type.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], TensorError> {
        self.check_element::<T>()?;
        let len = self.len();
        // SAFETY: as in `as_slice`, and the borrow is exclusive.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.data.as_mut_ptr().cast(), len) })
    }

    fn check_element<T: Element>(&self) -> Result<(), TensorError> {
        match T::views(self.ty.dtype) {
            true => Ok(()),
            false => Err(TensorError::Element { found: self.ty.dtype, asked: T::DTYPE }),
        }
    }

    /// Memory of the elements.
    pub fn bytes(&self) -> &[u8] {
        self.data.as_slice()
    }

    /// Memory of the elements, for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.data.as_mut_slice()
    }

    /// Address of the first element, aligned to 64 bytes.
    pub fn as_ptr(&self) -> *const u8 {
        self.data.as_ptr()
    }

    /// Address of the first element, for writing.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.data.as_mut_ptr()
    }

    /// An element as the nearest `f64`, by its position in memory.
    pub fn get(&self, position: usize) -> Option<f64> {
        let size = self.ty.dtype.bytes();
        let bytes = self.bytes().get(position.checked_mul(size)?..)?.get(..size)?;
        crate::data::convert::decode(self.ty.dtype, bytes)
    }
}

impl Clone for Tensor {
    /// Aborts if memory is refused, as every clone of a collection does.
    fn clone(&self) -> Tensor {
        let layout = std::alloc::Layout::new::<u8>();
        let mut data = Arena::new(self.data.len()).unwrap_or_else(|_| std::alloc::handle_alloc_error(layout));
        data.as_mut_slice().copy_from_slice(self.bytes());
        Tensor { ty: self.ty.clone(), data }
    }
}

/// Equality of type and bits: NaN equals itself, and 0 differs from -0.
impl PartialEq for Tensor {
    fn eq(&self, other: &Tensor) -> bool {
        self.ty == other.ty && self.bytes() == other.bytes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]
    use super::*;

    #[test]
    fn views_are_checked() {
        let tensor = Tensor::from_vec([2, 2], vec![1.0_f32, 2.0, 3.0, -4.0]).unwrap();
        assert_eq!(tensor.as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0, -4.0]);
        assert_eq!(tensor.get(3), Some(-4.0));
        assert_eq!(tensor.get(4), None);
        let error = tensor.as_slice::<i32>().unwrap_err();
        assert_eq!(error, TensorError::Element { found: DType::F32, asked: DType::I32 });
        assert_eq!(tensor.as_ptr() as usize % 64, 0);
        assert_eq!(tensor.clone(), tensor);
    }

    #[test]
    fn a_wrong_count_names_the_shape() {
        let message = Tensor::from_vec([2, 3], vec![0_i64; 5]).unwrap_err().to_string();
        assert_eq!(message, "5 elements were given for the shape [2, 3], which has 6");
    }

    #[test]
    fn booleans_are_bytes_and_halves_are_words() {
        let flags = Tensor::zeros(TensorType::new(DType::Bool, [3])).unwrap();
        assert_eq!(flags.as_slice::<u8>().unwrap(), [0, 0, 0]);
        let half = Tensor::from_bytes(TensorType::new(DType::Bf16, [1]), &[0x80, 0x3f]).unwrap();
        assert_eq!(half.as_slice::<u16>().unwrap(), [0x3f80]);
        assert_eq!(half.get(0), Some(1.0));
    }

    #[test]
    fn an_overflowing_shape_is_out_of_memory() {
        assert!(Tensor::zeros(TensorType::new(DType::F64, [usize::MAX, 4])).is_err());
    }
}
