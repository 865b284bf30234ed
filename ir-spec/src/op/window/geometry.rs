//! Where windows and kernels lie: the arithmetic of strides, padding and dilation.

use crate::attribute::Ints;
use crate::body::Affine;
use crate::op::{Fault, Faults};
use crate::types::{DType, Dim, DimError, Extents, Shape, TensorType};

/// Largest stride, dilation, padding or window: positions then fit i64 with room to spare.
pub(crate) const LARGEST: i64 = i32::MAX as i64;

/// Strides, padding `[before, after]` per dimension, and dilation (1 if absent).
#[derive(Clone, Copy)]
pub(crate) struct Geometry<'a> {
    pub(crate) strides: &'a Ints,
    pub(crate) padding: &'a Ints,
    pub(crate) dilation: Option<&'a Ints>,
}

impl Geometry<'_> {
    fn dilation(&self, i: usize) -> i64 {
        self.dilation.map_or(1, |dilation| dilation[i])
    }

    /// Input position along spatial dimension `i` at the body's dimensions `output` and `kernel`.
    pub(crate) fn input(&self, i: usize, output: usize, kernel: usize) -> Affine {
        Affine::new([(output, self.strides[i]), (kernel, self.dilation(i))], -self.padding[2 * i])
    }

    /// Output position that meets input position `input` at kernel position `kernel`; outside where none does.
    pub(crate) fn output(&self, i: usize, input: usize, kernel: usize) -> Affine {
        let met = Affine::new([(input, 1), (kernel, -self.dilation(i))], self.padding[2 * i]);
        met.divided_by(self.strides[i])
    }

    /// Output extent along spatial dimension `i`: `floor((x + before + after - dilation * (k - 1) - 1) / stride) + 1`.
    pub(crate) fn extent(
        &self,
        i: usize,
        x: &Dim,
        kernel: &Dim,
        fits: &'static str,
        divides: &'static str,
    ) -> Result<Dim, Fault> {
        let (before, after, dilation) = (self.padding[2 * i], self.padding[2 * i + 1], self.dilation(i));
        let too_small = || {
            let message = format!(
                "spatial dimension {i} of extent {x}, padded by {before} and {after}, is smaller than the window of \
                 {kernel} with dilation {dilation}"
            );
            Fault::new(fits, message)
                .help("make the input larger, the window smaller, or pad more; windows are not empty")
        };
        if kernel.known().is_some_and(|k| k == 0 || k > LARGEST as usize) {
            return Err(too_small());
        }
        let room = x
            .offset(before + after + dilation - 1)
            .and_then(|padded| padded.sub(&kernel.mul(&Dim::from(dilation as usize))?));
        let room = room.map_err(|_| too_small())?;
        room.floor_div(self.strides[i]).and_then(|last| last.offset(1)).map_err(|error| match error {
            DimError::NotASize(_) => too_small(),
            DimError::Unbound { .. } => Fault::new(divides, error.to_string()),
        })
    }
}

/// Labels of a windowed op.
pub(crate) struct Labels {
    pub(crate) rank: &'static str,
    pub(crate) dtype: &'static str,
    pub(crate) lengths: &'static str,
    pub(crate) values: &'static str,
    pub(crate) fits: &'static str,
    pub(crate) divides: &'static str,
}

macro_rules! labels {
    ($op:literal) => {
        crate::op::window::geometry::Labels {
            rank: concat!($op, ".C1"),
            dtype: concat!($op, ".C2"),
            lengths: concat!($op, ".C3"),
            values: concat!($op, ".C4"),
            fits: concat!($op, ".C5"),
            divides: concat!($op, ".D1"),
        }
    };
}
pub(crate) use labels;

/// Window, strides and padding of a pooling op.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a> {
    pub(crate) window: &'a Ints,
    pub(crate) geometry: Geometry<'a>,
}

impl<'a> Window<'a> {
    pub(crate) fn new(window: &'a Ints, strides: &'a Ints, padding: &'a Ints) -> Window<'a> {
        Window { window, geometry: Geometry { strides, padding, dilation: None } }
    }

    /// Extents of the window.
    pub(crate) fn extents(&self) -> Extents {
        self.window.iter().map(|&k| usize::try_from(k).unwrap_or(0)).collect()
    }

    /// Shape of the pooled `x: [N, C, spatial...]`.
    pub(crate) fn infer(&self, x: &TensorType, labels: &Labels) -> Result<Shape, Vec<Fault>> {
        let mut faults = Faults::default();
        faults.require((3..=5).contains(&x.rank()), || {
            Fault::new(labels.rank, format!("`x` has {} dimensions", x.rank()))
                .help("x: [N, C, spatial...] with one to three spatial dimensions")
        });
        faults.require(x.dtype != DType::Bool, || {
            Fault::new(labels.dtype, "windows of bool have neither sum nor maximum").help("`cast` it to a number")
        });
        faults.check()?;
        let space = x.rank() - 2;
        let Geometry { strides, padding, .. } = self.geometry;
        faults.require(self.window.len() == space && strides.len() == space && padding.len() == 2 * space, || {
            let message = format!(
                "{space} spatial dimensions, but {} window extents, {} strides and {} paddings",
                self.window.len(),
                strides.len(),
                padding.len()
            );
            Fault::new(labels.lengths, message)
                .help("one extent and one stride per dimension, paddings [before, after]")
        });
        let sane = self.window.iter().chain(strides).all(|v| (1..=LARGEST).contains(v))
            && padding.iter().all(|v| (0..=LARGEST).contains(v));
        faults.require(sane, || {
            let message =
                format!("window {:?}, strides {:?}, padding {:?}", &self.window[..], &strides[..], &padding[..]);
            Fault::new(labels.values, message).help("windows and strides start at 1, paddings at 0")
        });
        faults.check()?;
        let mut dims: Vec<Dim> = x.shape.dims()[..2].to_vec();
        for (i, &extent) in self.window.iter().enumerate() {
            let kernel = Dim::from(usize::try_from(extent).unwrap_or(0));
            match self.geometry.extent(i, &x.shape.dims()[2 + i], &kernel, labels.fits, labels.divides) {
                Ok(dim) => dims.push(dim),
                Err(fault) => drop(faults.require(false, || fault)),
            }
        }
        faults.check()?;
        Ok(dims.into_iter().collect())
    }

    /// Index of `x` where the body's dimensions are `[N, C, output..., kernel...]`.
    pub(crate) fn input_index(&self) -> Vec<Affine> {
        let space = self.window.len();
        let positions = (0..space).map(|i| self.geometry.input(i, 2 + i, 2 + space + i));
        [Affine::dim(0), Affine::dim(1)].into_iter().chain(positions).collect()
    }

    /// Index of the pooled tensor where the body's dimensions are `[N, C, input..., kernel...]`.
    pub(crate) fn output_index(&self) -> Vec<Affine> {
        let space = self.window.len();
        let positions = (0..space).map(|i| self.geometry.output(i, 2 + i, 2 + space + i));
        [Affine::dim(0), Affine::dim(1)].into_iter().chain(positions).collect()
    }
}
