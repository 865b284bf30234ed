//! `conv`, `conv_grad_input` and `conv_grad_filter`.
//!
//! With groups the channels split into two dimensions `[G, C/G]`: parallel dimensions may split those of the result,
//! and operands are read under a view, so a grouped convolution is a contraction with `G` as one more batch dimension.

use crate::attribute::Ints;
use crate::body::{Affine, Body, Combine, Map, Monoid, Read};
use crate::op::window::{Geometry, LARGEST};
use crate::op::{Conv, ConvGradFilter, ConvGradInput, Fault, Faults, Gradient, OpSpec, Types, Vjp};
use crate::scalar::ScalarExpr;
use crate::types::{DType, Dim, Extents, Shape, TensorType};

/// Names of the body's dimensions: where each role starts.
///
/// The body sees `x: [N, (G,) C/G, spatial...]`, `w: [(G,) O/G, C/G, kernel...]`, `y: [N, (G,) O/G, spatial...]`; the
/// group dimension is there only if there is more than one group.
struct Roles {
    batch: usize,
    group: Option<usize>,
    input: usize,
    output: usize,
    /// First of the output positions.
    space: usize,
    /// First of the kernel positions.
    kernel: usize,
}

/// Extents of a bound convolution.
struct Sizes {
    batch: usize,
    groups: usize,
    /// Channels of one group.
    input: usize,
    /// Output channels of one group.
    output: usize,
    x_space: Extents,
    y_space: Extents,
    kernel: Extents,
}

impl Sizes {
    fn new(x: &TensorType, w: &TensorType, y: &TensorType, groups: i64) -> Sizes {
        let (x, w, y) = (x.extents(), w.extents(), y.extents());
        let groups = usize::try_from(groups).unwrap_or(1).max(1);
        Sizes {
            batch: x[0],
            groups,
            input: w[1],
            output: w[0] / groups,
            x_space: x[2..].into(),
            y_space: y[2..].into(),
            kernel: w[2..].into(),
        }
    }

    fn group(&self) -> Option<usize> {
        (self.groups > 1).then_some(self.groups)
    }

    fn extents(&self, before: &[usize], group_and_channels: &[usize], after: &[usize]) -> Extents {
        let group_and_channels = group_and_channels.iter().copied();
        before.iter().copied().chain(self.group()).chain(group_and_channels).chain(after.iter().copied()).collect()
    }

    fn x(&self) -> Extents {
        self.extents(&[self.batch], &[self.input], &self.x_space)
    }

    fn w(&self) -> Extents {
        self.extents(&[], &[self.output, self.input], &self.kernel)
    }

    fn y(&self) -> Extents {
        self.extents(&[self.batch], &[self.output], &self.y_space)
    }

    /// The read under a view if groups split its channels.
    fn view(&self, read: Read, extents: &[usize]) -> Read {
        if self.groups > 1 { read.viewed(extents) } else { read }
    }

    fn space(&self) -> usize {
        self.kernel.len()
    }
}

impl Roles {
    fn read_w(&self, operand: usize, sizes: &Sizes) -> Read {
        let kernel = (0..sizes.space()).map(|i| Affine::dim(self.kernel + i));
        let index = self.group.into_iter().chain([self.output, self.input]).map(Affine::dim).chain(kernel);
        sizes.view(Read::inside(operand, index), &sizes.w())
    }

    /// `y` at the output positions.
    fn read_y(&self, operand: usize, sizes: &Sizes) -> Read {
        let space = (0..sizes.space()).map(|i| Affine::dim(self.space + i));
        let index = [self.batch].into_iter().chain(self.group).chain([self.output]).map(Affine::dim).chain(space);
        sizes.view(Read::inside(operand, index), &sizes.y())
    }

    /// `y` at the output positions from which input position `space` is reached through kernel position `kernel`.
    fn read_y_back(&self, operand: usize, sizes: &Sizes, geometry: &Geometry) -> Read {
        let space = (0..sizes.space()).map(|i| geometry.output(i, self.space + i, self.kernel + i));
        let index = [self.batch].into_iter().chain(self.group).chain([self.output]).map(Affine::dim).chain(space);
        sizes.view(Read::inside(operand, index).or(0.0), &sizes.y())
    }

    /// `x` at the input positions that output and kernel positions meet.
    fn read_x(&self, operand: usize, sizes: &Sizes, geometry: &Geometry) -> Read {
        let space = (0..sizes.space()).map(|i| geometry.input(i, self.space + i, self.kernel + i));
        let index = [self.batch].into_iter().chain(self.group).chain([self.input]).map(Affine::dim).chain(space);
        sizes.view(Read::inside(operand, index).or(0.0), &sizes.x())
    }
}

fn contraction(dtype: DType, parallel: Extents, reduce: Extents, mut reads: [Read; 2]) -> Body {
    if !dtype.is_float() {
        for read in &mut reads {
            read.outside = read.outside.map(|zero| zero.to_dtype(dtype));
        }
    }
    Body::Map(Map {
        parallel,
        reduce,
        reads: reads.into(),
        exprs: vec![ScalarExpr::read(0, dtype) * ScalarExpr::read(1, dtype)],
        combine: Combine::Each(Monoid::Sum),
    })
}

/// Attributes that the three ops share.
macro_rules! geometry {
    ($op:ident) => {
        impl $op {
            fn geometry(&self) -> Geometry<'_> {
                Geometry { strides: &self.strides, padding: &self.padding, dilation: Some(&self.dilation) }
            }

            fn forward(&self) -> Conv {
                Conv {
                    strides: self.strides.clone(),
                    padding: self.padding.clone(),
                    dilation: self.dilation.clone(),
                    groups: self.groups,
                }
            }

            #[allow(dead_code, reason = "each op uses two of the three")]
            fn grad_input(&self, ty: TensorType) -> ConvGradInput {
                let Conv { strides, padding, dilation, groups } = self.forward();
                ConvGradInput { ty, strides, padding, dilation, groups }
            }

            #[allow(dead_code, reason = "each op uses two of the three")]
            fn grad_filter(&self, ty: TensorType) -> ConvGradFilter {
                let Conv { strides, padding, dilation, groups } = self.forward();
                ConvGradFilter { ty, strides, padding, dilation, groups }
            }
        }
    };
}

geometry!(Conv);
geometry!(ConvGradInput);
geometry!(ConvGradFilter);

/// 1. `conv.C1`: `x` and `w` have equal rank, with one to three spatial dimensions.
/// 2. `conv.C2`: the operands have one element type, not bool.
/// 3. `conv.C3`: `strides` and `dilation` have one entry per spatial dimension, `padding` two.
/// 4. `conv.C4`: strides and dilations are at least 1, paddings before at least 0; what a negative padding after says is
///    left out.
/// 5. `conv.C5`: `groups` is at least 1 and divides the output channels.
/// 6. `conv.C6`: `x` has `groups` times as many channels as `w` reads.
/// 7. `conv.C7`: the kernel is known, not empty and fits into the padded input.
/// 8. `conv.D1`: the output extents have a value.
impl OpSpec for Conv {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let (x, w) = (&operands[0], &operands[1]);
        let mut faults = Faults::default();
        faults.require(x.rank() == w.rank() && (3..=5).contains(&x.rank()), || {
            let message = format!("`x` has {} dimensions and `w` has {}", x.rank(), w.rank());
            Fault::new("conv.C1", message).help("x: [N, C, spatial...], w: [O, C / groups, kernel...], 1 to 3 spatial")
        });
        faults.require(x.dtype == w.dtype && x.dtype != DType::Bool, || {
            Fault::new("conv.C2", format!("the operands have element types {} and {}", x.dtype, w.dtype))
                .help("`cast` one of them; bool has no products")
        });
        faults.check()?;
        check_geometry(&mut faults, x.rank() - 2, &self.strides, &self.padding, &self.dilation);
        check_channels(&mut faults, x, w, self.groups);
        faults.check()?;
        let mut dims = vec![x.shape.dims()[0].clone(), w.shape.dims()[0].clone()];
        for i in 0..x.rank() - 2 {
            match self.geometry().extent(i, &x.shape.dims()[2 + i], &w.shape.dims()[2 + i], "conv.C7", "conv.D1") {
                Ok(dim) => dims.push(dim),
                Err(fault) => drop(faults.require(false, || fault)),
            }
        }
        faults.finish(|| smallvec::smallvec![TensorType::new(x.dtype, dims.into_iter().collect::<Shape>())])
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let sizes = Sizes::new(&operands[0], &operands[1], &results[0], self.groups);
        let group = sizes.group().map(|_| 1);
        let output = 1 + usize::from(group.is_some());
        let input = output + 1 + sizes.space();
        let roles = Roles { batch: 0, group, output, space: output + 1, input, kernel: input + 1 };
        let reduce = std::iter::once(sizes.input).chain(sizes.kernel.iter().copied()).collect();
        let reads = [roles.read_x(0, &sizes, &self.geometry()), roles.read_w(1, &sizes)];
        contraction(operands[0].dtype, sizes.y(), reduce, reads)
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let (x, w) = (&cx.operands[0], &cx.operands[1]);
        let Some(dy) = &cx.cotangents[0] else { return Gradient::Operands(vec![None, None]) };
        let dx = dy.builder().apply(self.grad_input(x.ty()), &[dy, w]);
        let dw = dy.builder().apply(self.grad_filter(w.ty()), &[x, dy]);
        Gradient::Operands(vec![Some(dx), Some(dw)])
    }
}

/// 1. `conv_grad_input.C1`: a `conv` of the declared type with `w`, within its own constraints, gives the type of `dy`.
impl OpSpec for ConvGradInput {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let (dy, w) = (&operands[0], &operands[1]);
        require_forward("conv_grad_input.C1", &self.forward(), &self.ty, w, dy)?;
        Ok(smallvec::smallvec![self.ty.clone()])
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let sizes = Sizes::new(&results[0], &operands[1], &operands[0], self.groups);
        let group = sizes.group().map(|_| 1);
        let input = 1 + usize::from(group.is_some());
        let output = input + 1 + sizes.space();
        let roles = Roles { batch: 0, group, input, space: input + 1, output, kernel: output + 1 };
        let reduce = std::iter::once(sizes.output).chain(sizes.kernel.iter().copied()).collect();
        let reads = [roles.read_y_back(0, &sizes, &self.geometry()), roles.read_w(1, &sizes)];
        contraction(operands[0].dtype, sizes.x(), reduce, reads)
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let (dy, w) = (&cx.operands[0], &cx.operands[1]);
        let Some(ddx) = &cx.cotangents[0] else { return Gradient::Operands(vec![None, None]) };
        let ddy = ddx.builder().apply(self.forward(), &[ddx, w]);
        let dw = ddx.builder().apply(self.grad_filter(w.ty()), &[ddx, dy]);
        Gradient::Operands(vec![Some(ddy), Some(dw)])
    }
}

/// 1. `conv_grad_filter.C1`: a `conv` of `x` with the declared type, within its own constraints, gives the type of `dy`.
impl OpSpec for ConvGradFilter {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let (x, dy) = (&operands[0], &operands[1]);
        require_forward("conv_grad_filter.C1", &self.forward(), x, &self.ty, dy)?;
        Ok(smallvec::smallvec![self.ty.clone()])
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let sizes = Sizes::new(&operands[0], &results[0], &operands[1], self.groups);
        let group = sizes.group().map(|_| 0);
        let output = usize::from(group.is_some());
        let kernel = output + 2;
        let batch = kernel + sizes.space();
        let roles = Roles { group, output, input: output + 1, kernel, batch, space: batch + 1 };
        let reduce = std::iter::once(sizes.batch).chain(sizes.y_space.iter().copied()).collect();
        let reads = [roles.read_x(0, &sizes, &self.geometry()), roles.read_y(1, &sizes)];
        contraction(operands[0].dtype, sizes.w(), reduce, reads)
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let (x, dy) = (&cx.operands[0], &cx.operands[1]);
        let Some(ddw) = &cx.cotangents[0] else { return Gradient::Operands(vec![None, None]) };
        let dx = ddw.builder().apply(self.grad_input(x.ty()), &[dy, ddw]);
        let ddy = ddw.builder().apply(self.forward(), &[x, ddw]);
        Gradient::Operands(vec![Some(dx), Some(ddy)])
    }
}

fn check_geometry(faults: &mut Faults, space: usize, strides: &Ints, padding: &Ints, dilation: &Ints) {
    faults.require(strides.len() == space && dilation.len() == space && padding.len() == 2 * space, || {
        let message = format!(
            "{space} spatial dimensions, but {} strides, {} dilations and {} paddings",
            strides.len(),
            dilation.len(),
            padding.len()
        );
        Fault::new("conv.C3", message).help("one stride and one dilation per dimension, paddings [before, after] each")
    });
    let sane = strides.iter().chain(dilation).all(|v| (1..=LARGEST).contains(v))
        && padding.iter().enumerate().all(|(i, v)| (if i % 2 == 0 { 0 } else { -LARGEST }..=LARGEST).contains(v));
    faults.require(sane, || {
        let message = format!("strides {:?}, dilation {:?}, padding {:?}", &strides[..], &dilation[..], &padding[..]);
        Fault::new("conv.C4", message).help("strides and dilations start at 1, paddings before at 0")
    });
}

fn check_channels(faults: &mut Faults, x: &TensorType, w: &TensorType, groups: i64) {
    let (channels, read, output) = (&x.shape.dims()[1], &w.shape.dims()[1], &w.shape.dims()[0]);
    let count = usize::try_from(groups).unwrap_or(0);
    let divides = count >= 1 && output.floor_div(groups).and_then(|q| q.mul(&Dim::from(count))).as_ref() == Ok(output);
    let valid = faults.require(divides, || {
        Fault::new("conv.C5", format!("{groups} groups do not divide the {output} output channels"))
            .help("dimension 0 of `w` is a multiple of `groups`, which is at least 1")
    });
    if valid {
        faults.require(read.mul(&Dim::from(count)).as_ref() == Ok(channels), || {
            let message = format!("`x` has {channels} channels, but `w` reads {read} in each of {groups} groups");
            Fault::new("conv.C6", message).help(format!("dimension 1 of `w` is `{channels} / groups`"))
        });
    }
}

/// The gradients' operands are those of a forward convolution.
fn require_forward(
    label: &'static str,
    conv: &Conv,
    x: &TensorType,
    w: &TensorType,
    dy: &TensorType,
) -> Result<(), Vec<Fault>> {
    let forward = conv.infer(&[x.clone(), w.clone()])?;
    if forward.first().is_some_and(|y| y.shape == dy.shape && y.dtype == dy.dtype) {
        return Ok(());
    }
    let message = match forward.first() {
        Some(y) => format!("`conv` of {x} with {w} gives {y}, but `dy` is {dy}"),
        None => format!("`conv` of {x} with {w} has no result"),
    };
    Err(vec![Fault::new(label, message).help("declare the type of the operand whose gradient this is")])
}
