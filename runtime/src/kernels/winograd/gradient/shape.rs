//! Which contractions are gradients by the weights of convolutions of stride 1 with an algorithm, and where their
//! elements lie.

use super::super::super::spec::{AffineRead, ContractSpec, Element, Epilogue, Stored};
use super::super::WinogradError;
use super::super::line::as_plane;
use super::super::shape::{Loops, Strides, WeightStrides, channels_and_taps, first_tap, image_read};

/// `dw[o, c, r, s] = sum over n, i, j of dy[n, o, i, j] * x[n, c, i + r + top, j + s + left]`, rows of images dense.
/// Strides in elements; those of the taps may be negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct GradientShape {
    pub(in super::super) images: usize,
    pub(in super::super) channels: usize,
    pub(in super::super) outputs: usize,
    /// Rows and columns of the kernel.
    pub(in super::super) taps: (usize, usize),
    /// Of `x`.
    pub(in super::super) size: (usize, usize),
    /// Of `dy`.
    pub(in super::super) out_size: (usize, usize),
    /// Coordinates in `x` of the first tap of output 0: minus the padding.
    pub(super) origin: (isize, isize),
    pub(super) x: Strides,
    pub(super) dy: Strides,
    pub(super) dw: WeightStrides,
    /// `x` is the contraction's left operand.
    pub(super) x_left: bool,
}

/// Takes a contraction apart.
pub(in super::super) fn gradient_shape(spec: &ContractSpec) -> Result<GradientShape, WinogradError> {
    let spec = &*as_plane(spec);
    if spec.element != Element::F32 || spec.stored != Stored::default() {
        return Err(WinogradError::Element);
    }
    if spec.batch.iter().any(|&e| e != 1) {
        return Err(WinogradError::Groups);
    }
    let (b, m, n) = (spec.batch.len(), spec.m.len(), spec.n.len());
    let x_left = match (m, n) {
        (1, 3) => false,
        (3, 1) => true,
        _ => return Err(WinogradError::Form),
    };
    let (plain, taps) = if x_left { (&spec.n, &spec.m) } else { (&spec.m, &spec.n) };
    let (channels, taps) = channels_and_taps(taps)?;
    let &[images, height, width] = spec.k.as_slice() else { return Err(WinogradError::Form) };
    let outputs = plain[0];
    let dense = spec.out_strides.len() == b + m + n && spec.epilogue == Epilogue::default();
    if !dense || [images, outputs, channels, height, width].contains(&0) {
        return Err(WinogradError::Form);
    }
    let (output, channel) = if x_left { (b + 3, b) } else { (b, b + 1) };
    let k = b + m + n;
    let loops =
        Loops { batch: b, output, image: k, y: k + 1, x: k + 2, channel, tap_y: channel + 1, tap_x: channel + 2 };
    let (x, dy) = if x_left { (&spec.left, &spec.right) } else { (&spec.right, &spec.left) };
    let read = image_read(x, loops, [images, channels])?;
    let dy = plane_read(dy, loops, [images, outputs, height, width])?;
    let stride = |d: usize| spec.out_strides[d] as isize;
    let mut dw = WeightStrides {
        output: stride(output),
        channel: stride(channel),
        y: stride(loops.tap_y),
        x: stride(loops.tap_x),
        base: spec.out_offset as isize,
    };
    let origin = first_tap(&read, &mut dw, taps);
    if read.x.stride != 1 {
        return Err(WinogradError::Form);
    }
    Ok(GradientShape {
        images,
        channels,
        outputs,
        taps,
        size: (read.y.extent, read.x.extent),
        out_size: (height, width),
        origin,
        x: Strides { image: read.image, channel: read.channel, row: read.y.stride, base: 0 },
        dy,
        dw,
        x_left,
    })
}

/// A read of every element at its own place, columns dense; `extents` are images, channels, rows, columns.
fn plane_read(read: &AffineRead, loops: Loops, extents: [usize; 4]) -> Result<Strides, WinogradError> {
    let mut strides = [0isize; 4];
    for dim in &read.dims {
        let mut moving = dim.terms.iter().filter(|(d, c)| *c != 0 && *d >= loops.batch);
        let (Some(&(d, 1)), None) = (moving.next(), moving.next()) else { return Err(WinogradError::Form) };
        let own = [loops.image, loops.output, loops.y, loops.x].iter().position(|&l| l == d);
        let Some(slot) = own.filter(|&slot| extents[slot] <= dim.extent) else { return Err(WinogradError::Form) };
        if dim.divisor != 1 || dim.offset != 0 {
            return Err(WinogradError::Form);
        }
        strides[slot] += dim.stride as isize;
    }
    let [image, channel, row, 1] = strides else { return Err(WinogradError::Form) };
    Ok(Strides { image, channel, row, base: 0 })
}
