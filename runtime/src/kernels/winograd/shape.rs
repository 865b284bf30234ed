//! Which contractions are convolutions of stride 1 with an algorithm, and where their elements lie.

use super::super::spec::{Activation, AffineRead, Along, ContractSpec, Element, Stored};
use super::WinogradError;
use super::algorithm::Algorithm;
use super::geometry::FEWEST_COLUMNS;
use super::line::as_plane;

/// A convolution `y[n, o, i, j] = sum over c, r, s of w[o, c, r, s] * x[n, c, i + r + top, j + s + left]`, rows of
/// images dense. Strides in elements; those of the weights may be negative (backward-data turns the taps).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    pub(super) images: usize,
    pub(super) channels: usize,
    pub(super) outputs: usize,
    /// Rows and columns of the kernel.
    pub(super) taps: (usize, usize),
    pub(super) size: (usize, usize),
    pub(super) out_size: (usize, usize),
    /// Input coordinates of the first tap of output 0: minus the padding.
    pub(super) origin: (isize, isize),
    pub(super) image: Strides,
    pub(super) out: Strides,
    pub(super) weights: WeightStrides,
    /// The weights are the contraction's left operand.
    pub(super) weights_left: bool,
    pub(super) bias: bool,
    pub(super) scale: bool,
    pub(super) residual: bool,
    pub(super) activation: Activation,
}

/// Elements between neighbours; columns are 1 apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Strides {
    pub(super) image: isize,
    pub(super) channel: isize,
    pub(super) row: isize,
    /// Of the first element.
    pub(super) base: isize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct WeightStrides {
    pub(super) output: isize,
    pub(super) channel: isize,
    pub(super) y: isize,
    pub(super) x: isize,
    pub(super) base: isize,
}

/// Numbers of the loop dimensions.
#[derive(Clone, Copy)]
pub(super) struct Loops {
    /// Count of batch dimensions, which come first.
    pub(super) batch: usize,
    pub(super) output: usize,
    pub(super) image: usize,
    pub(super) y: usize,
    pub(super) x: usize,
    pub(super) channel: usize,
    pub(super) tap_y: usize,
    pub(super) tap_x: usize,
}

/// Takes a contraction apart.
pub(super) fn shape_of(spec: &ContractSpec) -> Result<Shape, WinogradError> {
    let spec = &*as_plane(spec);
    if spec.element != Element::F32 || spec.stored != Stored::default() {
        return Err(WinogradError::Element);
    }
    let (b, m, n) = (spec.batch.len(), spec.m.len(), spec.n.len());
    if spec.batch.iter().any(|&e| e != 1) {
        return Err(WinogradError::Groups);
    }
    let weights_left = match (m, n) {
        (1, 3) => true,
        (3, 1) => false,
        _ => return Err(WinogradError::Form),
    };
    let (channels, taps) = channels_and_taps(&spec.k)?;
    if spec.out_strides.len() != b + m + n {
        return Err(WinogradError::Form);
    }
    let (output, image) = if weights_left { (b, b + 1) } else { (b + 3, b) };
    let k = b + m + n;
    let loops = Loops { batch: b, output, image, y: image + 1, x: image + 2, channel: k, tap_y: k + 1, tap_x: k + 2 };
    let (outer, outputs) = if weights_left { (&spec.n, spec.m[0]) } else { (&spec.m, spec.n[0]) };
    let (images, out_size) = (outer[0], (outer[1], outer[2]));
    if [images, outputs, channels, out_size.0, out_size.1].contains(&0) {
        return Err(WinogradError::Form);
    }
    let (weights, image) = if weights_left { (&spec.left, &spec.right) } else { (&spec.right, &spec.left) };
    let mut weights = weight_strides(weights, loops, [outputs, channels, taps.0, taps.1])?;
    let read = image_read(image, loops, [images, channels])?;
    let origin = first_tap(&read, &mut weights, taps);
    let out_stride = |d: usize| spec.out_strides[d] as isize;
    let epilogue = &spec.epilogue;
    let along_outputs = if weights_left { Along::M } else { Along::N };
    let vectors = [epilogue.bias, epilogue.scale];
    let dense = out_stride(loops.x) == 1 && read.x.stride == 1;
    let wide = taps.1 > 1 || out_size.1 >= FEWEST_COLUMNS;
    if !dense || !wide || vectors.iter().flatten().any(|along| *along != along_outputs) {
        return Err(WinogradError::Form);
    }
    Ok(Shape {
        images,
        channels,
        outputs,
        taps,
        size: (read.y.extent, read.x.extent),
        out_size,
        origin,
        image: Strides { image: read.image, channel: read.channel, row: read.y.stride, base: 0 },
        out: Strides {
            image: out_stride(loops.image),
            channel: out_stride(loops.output),
            row: out_stride(loops.y),
            base: spec.out_offset as isize,
        },
        weights,
        weights_left,
        bias: epilogue.bias.is_some(),
        scale: epilogue.scale.is_some(),
        residual: epilogue.residual,
        activation: epilogue.activation,
    })
}

/// The reduction of a convolution: channels, and rows and columns of the kernel.
pub(super) fn channels_and_taps(extents: &[usize]) -> Result<(usize, (usize, usize)), WinogradError> {
    match *extents {
        [channels, rows, columns] if Algorithm::knows((rows, columns)) => Ok((channels, (rows, columns))),
        _ => Err(WinogradError::Taps),
    }
}

/// Input coordinates of the first tap of output 0. Taps that run the other way are turned.
pub(super) fn first_tap(read: &ImageRead, weights: &mut WeightStrides, taps: (usize, usize)) -> (isize, isize) {
    let last = (taps.0 as isize - 1, taps.1 as isize - 1);
    let (mut top, mut left) = (read.y.offset as isize, read.x.offset as isize);
    if read.y.turned {
        weights.base += last.0 * weights.y;
        weights.y = -weights.y;
        top -= last.0;
    }
    if read.x.turned {
        weights.base += last.1 * weights.x;
        weights.x = -weights.x;
        left -= last.1;
    }
    (top, left)
}

/// Weights are read at every loop point, inside; `extents` are the outputs, channels, rows and columns.
fn weight_strides(read: &AffineRead, loops: Loops, extents: [usize; 4]) -> Result<WeightStrides, WinogradError> {
    let mut base = 0;
    let mut strides = [0isize; 4];
    for dim in &read.dims {
        let (mut least, mut most) = (dim.offset, dim.offset);
        for &(d, coefficient) in &dim.terms {
            // A batch dimension of extent 1 moves nothing.
            if d < loops.batch {
                continue;
            }
            let own = [loops.output, loops.channel, loops.tap_y, loops.tap_x].iter().position(|&l| l == d);
            let Some(slot) = own else { return Err(WinogradError::Form) };
            strides[slot] += (coefficient * dim.stride) as isize;
            let reach = coefficient * (extents[slot] as i64 - 1);
            least += reach.min(0);
            most += reach.max(0);
        }
        if dim.divisor != 1 || least < 0 || most >= dim.extent as i64 {
            return Err(WinogradError::Form);
        }
        base += (dim.offset * dim.stride) as isize;
    }
    let [output, channel, y, x] = strides;
    Ok(WeightStrides { output, channel, y, x, base })
}

/// A spatial dimension: `index = loop + tap + offset`, or minus the tap.
pub(super) struct Spatial {
    pub(super) offset: i64,
    pub(super) turned: bool,
    pub(super) extent: usize,
    pub(super) stride: isize,
}

/// How pixels under the taps of a kernel are read.
pub(super) struct ImageRead {
    pub(super) image: isize,
    pub(super) channel: isize,
    pub(super) y: Spatial,
    pub(super) x: Spatial,
}

/// Takes the read of an image apart; `extents` are the images and channels.
pub(super) fn image_read(read: &AffineRead, loops: Loops, extents: [usize; 2]) -> Result<ImageRead, WinogradError> {
    let (mut strides, mut y, mut x) = ([0isize; 2], None, None);
    for dim in &read.dims {
        if dim.divisor != 1 {
            return Err(WinogradError::Stride);
        }
        let coefficient = |d: usize| dim.terms.iter().filter(|t| t.0 == d).map(|t| t.1).sum::<i64>();
        let only = |used: &[usize]| dim.terms.iter().all(|(d, c)| *c == 0 || *d < loops.batch || used.contains(d));
        let spatial = |at: usize, tap: usize| {
            let steps = (coefficient(at), coefficient(tap));
            let turned = match steps {
                (1, 1) => false,
                (1, -1) => true,
                _ => return Err(WinogradError::Stride),
            };
            Ok(Some(Spatial { offset: dim.offset, turned, extent: dim.extent, stride: dim.stride as isize }))
        };
        let plain =
            |d: usize, extent: usize| coefficient(d) == 1 && only(&[d]) && dim.offset == 0 && extent <= dim.extent;
        if plain(loops.image, extents[0]) {
            strides[0] += dim.stride as isize;
        } else if plain(loops.channel, extents[1]) {
            strides[1] += dim.stride as isize;
        } else if only(&[loops.y, loops.tap_y]) && y.is_none() {
            y = spatial(loops.y, loops.tap_y)?;
        } else if only(&[loops.x, loops.tap_x]) && x.is_none() {
            x = spatial(loops.x, loops.tap_x)?;
        } else {
            return Err(WinogradError::Form);
        }
    }
    let (Some(y), Some(x)) = (y, x) else { return Err(WinogradError::Form) };
    Ok(ImageRead { image: strides[0], channel: strides[1], y, x })
}
