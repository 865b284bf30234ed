//! Depthwise convolutions against loops in f64.

use super::super::math::activation_f64;
use super::super::window::{
    Axis, DepthwiseEpilogue, DepthwiseGradPlan, DepthwiseGradSpec, DepthwisePlan, DepthwiseSpec, WindowError,
    depthwise_grad_tiles, depthwise_tiles,
};
use super::super::{Activation, Kernels};
use super::cases::numbers;
use super::run::levels;

fn spec(planes: usize, size: [usize; 2], kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> DepthwiseSpec {
    let axis = |d: usize| Axis {
        input: size[d],
        output: (size[d] + 2 * padding[d] - kernel[d]) / stride[d] + 1,
        kernel: kernel[d],
        stride: stride[d],
        offset: -(padding[d] as i64),
    };
    DepthwiseSpec {
        planes,
        filters: planes,
        multiplier: 1,
        rows: axis(0),
        columns: axis(1),
        flipped: [false; 2],
        epilogue: DepthwiseEpilogue::default(),
    }
}

struct Tensors {
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
    scale: Vec<f32>,
    residual: Vec<f32>,
}

impl Tensors {
    fn of(spec: &DepthwiseSpec) -> Tensors {
        let floats = |len: usize, seed: u64| numbers(len, seed).into_iter().map(|x| x as f32).collect::<Vec<f32>>();
        Tensors {
            x: floats(spec.planes / spec.multiplier * spec.rows.input * spec.columns.input, 1),
            w: floats(spec.filters * spec.rows.kernel * spec.columns.kernel, 2),
            bias: floats(spec.filters, 3),
            scale: floats(spec.filters, 4),
            residual: floats(spec.planes * spec.rows.output * spec.columns.output, 5),
        }
    }
}

/// Tiles in the given order, the output starting from the residual.
fn run(spec: &DepthwiseSpec, kernels: &Kernels, t: &Tensors, in_place: bool) -> Vec<f32> {
    let plan = DepthwisePlan::new(spec, kernels).unwrap();
    let mut out = if in_place { t.residual.clone() } else { vec![f32::NAN; t.residual.len()] };
    let to = out.as_mut_ptr();
    let residual = if in_place { to.cast_const() } else { t.residual.as_ptr() };
    for tile in (0..plan.tiles()).rev() {
        let (x, w, bias, scale) = (t.x.as_ptr(), t.w.as_ptr(), t.bias.as_ptr(), t.scale.as_ptr());
        // SAFETY: the tensors have the sizes of the spec; the residual is the output or apart from it.
        unsafe { depthwise_tiles(plan.descriptor(), x, w, to, bias, scale, residual, tile, tile + 1) };
    }
    out
}

/// Each output by the definition, and the size of its terms.
fn naive(spec: &DepthwiseSpec, t: &Tensors) -> Vec<(f64, f64)> {
    let (rows, columns) = (spec.rows, spec.columns);
    let mut out = Vec::new();
    for plane in 0..spec.planes {
        let filter = plane % spec.filters;
        for (y, x) in (0..rows.output).flat_map(|y| (0..columns.output).map(move |x| (y, x))) {
            let (mut sum, mut size) = (0.0, 0.0);
            for (i, j) in (0..rows.kernel).flat_map(|i| (0..columns.kernel).map(move |j| (i, j))) {
                let at = |axis: Axis, o: usize, k: usize| (o * axis.stride + k) as i64 + axis.offset;
                let (iy, ix) = (at(rows, y, i), at(columns, x, j));
                let inside = (0..rows.input as i64).contains(&iy) && (0..columns.input as i64).contains(&ix);
                let plane = plane / spec.multiplier;
                let from = (plane * rows.input + iy.max(0) as usize) * columns.input + ix.max(0) as usize;
                let value = if inside { f64::from(t.x[from]) } else { 0.0 };
                let turned = |flipped: bool, k: usize, extent: usize| if flipped { extent - 1 - k } else { k };
                let i = turned(spec.flipped[0], i, rows.kernel);
                let j = turned(spec.flipped[1], j, columns.kernel);
                let term = value * f64::from(t.w[(filter * rows.kernel + i) * columns.kernel + j]);
                sum += term;
                size += term.abs();
            }
            let epilogue = &spec.epilogue;
            sum += if epilogue.bias { f64::from(t.bias[filter]) } else { 0.0 };
            sum *= if epilogue.scale { f64::from(t.scale[filter]) } else { 1.0 };
            sum += if epilogue.residual { f64::from(t.residual[out.len()]) } else { 0.0 };
            let (code, alpha) = epilogue.activation.code();
            out.push((activation_f64(code, alpha, sum), size));
        }
    }
    out
}

fn check(spec: &DepthwiseSpec) {
    let tensors = Tensors::of(spec);
    let expected = naive(spec, &tensors);
    for kernels in levels() {
        for in_place in [false, true] {
            let actual = run(spec, kernels, &tensors, in_place && spec.epilogue.residual);
            assert_eq!(actual.len(), expected.len());
            for (i, (&actual, &(value, size))) in actual.iter().zip(&expected).enumerate() {
                let same = f64::from(actual) == value || actual.is_nan() && value.is_nan();
                let bound = f64::from(f32::EPSILON) * (16.0 + 4.0 * size);
                let close = same || (f64::from(actual) - value).abs() <= bound;
                assert!(close, "{} {spec:?}: out[{i}] is {actual}, not {value}", kernels.level);
            }
        }
    }
}

#[test]
fn depthwise_of_odd_sizes_strides_and_paddings() {
    for (size, padding) in
        [([7, 7], [1, 1]), ([14, 14], [1, 1]), ([5, 37], [0, 1]), ([30, 17], [2, 0]), ([3, 3], [0, 0])]
    {
        for stride in [[1, 1], [2, 2], [3, 1], [1, 2]] {
            for kernel in [[3, 3], [2, 3], [1, 1], [3, 5]] {
                if (0..2).all(|d| size[d] + 2 * padding[d] >= kernel[d]) {
                    check(&spec(5, size, kernel, stride, padding));
                }
            }
        }
    }
    check(&spec(2, [40, 80], [3, 3], [1, 1], [1, 1]));
    check(&spec(2, [41, 79], [3, 3], [2, 2], [1, 1]));
    check(&spec(1, [1, 50], [1, 7], [1, 1], [0, 3]));
    check(&spec(3, [4, 4], [9, 9], [1, 1], [4, 4]));
    // Vectors of several rows: short ones, and windows further apart than two columns.
    check(&spec(3, [25, 5], [3, 3], [1, 1], [1, 1]));
    check(&spec(3, [7, 7], [5, 5], [1, 1], [2, 2]));
    check(&spec(3, [14, 14], [5, 5], [2, 2], [2, 2]));
    check(&spec(3, [9, 9], [3, 3], [1, 3], [1, 1]));
    // Outputs that lie as inputs do: a few vectors, many with whole rows, columns fewer than a window's half, rows without
    // padding, with more of it, and more rows in a window than in a plane.
    for size in [[4, 4], [7, 7], [10, 10], [19, 19], [40, 5], [3, 2], [12, 1], [1, 40]] {
        for (kernel, padding) in
            [([3, 3], [1, 1]), ([5, 5], [2, 2]), ([7, 7], [3, 3]), ([1, 3], [0, 1]), ([2, 5], [1, 2])]
        {
            check(&spec(3, size, kernel, [1, 1], padding));
        }
        check(&DepthwiseSpec { flipped: [true, true], ..spec(3, size, [3, 3], [1, 1], [2, 1]) });
    }
    check(&spec(2, [5, 200], [3, 9], [2, 9], [1, 4]));
}

#[test]
fn depthwise_filters_repeat_multiply_and_turn() {
    let base = spec(24, [9, 19], [3, 3], [1, 1], [1, 1]);
    check(&DepthwiseSpec { filters: 6, ..base.clone() });
    check(&DepthwiseSpec { filters: 12, multiplier: 3, ..base.clone() });
    check(&DepthwiseSpec { flipped: [true, true], ..base.clone() });
    check(&DepthwiseSpec { flipped: [true, false], ..spec(3, [9, 19], [4, 5], [1, 1], [1, 2]) });
}

#[test]
fn depthwise_epilogues() {
    let activations = [
        Activation::None,
        Activation::Relu,
        Activation::LeakyRelu(0.25),
        Activation::Clamp { low: -0.5, high: 0.75 },
        Activation::Silu,
        Activation::Tanh,
        Activation::HardSigmoid,
        Activation::HardSwish,
    ];
    for activation in activations {
        for bits in 0..8 {
            let epilogue =
                DepthwiseEpilogue { bias: bits & 1 > 0, scale: bits & 2 > 0, residual: bits & 4 > 0, activation };
            check(&DepthwiseSpec { epilogue, ..spec(3, [15, 21], [3, 3], [1, 1], [1, 1]) });
            check(&DepthwiseSpec { epilogue, ..spec(3, [15, 21], [5, 3], [2, 2], [2, 1]) });
            check(&DepthwiseSpec { epilogue, ..spec(3, [25, 5], [3, 3], [1, 1], [1, 1]) });
        }
    }
}

/// What is outside is 0, and 0 times infinity is NaN: borders are no exception.
#[test]
fn depthwise_keeps_nan_and_infinity() {
    for size in [[7, 18], [18, 7]] {
        keeps_nan_and_infinity(spec(3, size, [3, 3], [1, 1], [1, 1]));
    }
}

fn keeps_nan_and_infinity(mut spec: DepthwiseSpec) {
    for activation in [Activation::None, Activation::Clamp { low: 0.0, high: 6.0 }, Activation::Relu] {
        spec.epilogue.activation = activation;
        let mut tensors = Tensors::of(&spec);
        tensors.w[2] = f32::INFINITY;
        tensors.x[7 * 18 + 20] = f32::NAN;
        tensors.x[2 * 7 * 18 + 5] = f32::NEG_INFINITY;
        let expected = naive(&spec, &tensors);
        for kernels in levels() {
            for (i, (actual, (value, _))) in run(&spec, kernels, &tensors, false).iter().zip(&expected).enumerate() {
                let same = actual.is_nan() == value.is_nan() && (value.is_finite() || f64::from(*actual) == *value);
                assert!(same || value.is_nan(), "{}: out[{i}] is {actual}, not {value}", kernels.level);
            }
        }
    }
}

#[test]
fn depthwise_refuses_what_it_cannot_do() {
    let kernels = levels()[0];
    let refused = |spec: &DepthwiseSpec| DepthwisePlan::new(spec, kernels).err();
    assert_eq!(
        refused(&DepthwiseSpec { planes: 0, ..spec(1, [9, 9], [3, 3], [1, 1], [1, 1]) }),
        Some(WindowError::Empty)
    );
    let huge = Axis { input: 1 << 32, ..spec(1, [9, 9], [3, 3], [1, 1], [1, 1]).rows };
    let huge = DepthwiseSpec { rows: huge, ..spec(1, [9, 9], [3, 3], [1, 1], [1, 1]) };
    assert_eq!(refused(&huge), Some(WindowError::TooLarge));
}

/// The filters' gradient of a forward convolution, with NaN where no output looks.
fn check_gradient(forward: &DepthwiseSpec) {
    let tensors = Tensors::of(forward);
    let DepthwiseSpec { planes, filters, multiplier, rows, columns, .. } = *forward;
    let (x, dy) = (&tensors.x, &tensors.residual);
    let taps = rows.kernel * columns.kernel;
    let mut expected = vec![(0.0f64, 0.0f64); filters * taps];
    for (at, &dy) in dy.iter().enumerate() {
        let (plane, y, column) =
            (at / (rows.output * columns.output), at / columns.output % rows.output, at % columns.output);
        for tap in 0..taps {
            let iy = (y * rows.stride + tap / columns.kernel) as i64 + rows.offset;
            let ix = (column * columns.stride + tap % columns.kernel) as i64 + columns.offset;
            if (0..rows.input as i64).contains(&iy) && (0..columns.input as i64).contains(&ix) {
                let from = (plane / multiplier * rows.input + iy as usize) * columns.input + ix as usize;
                let term = f64::from(x[from]) * f64::from(dy);
                let sum = &mut expected[plane % filters * taps + tap];
                *sum = (sum.0 + term, sum.1 + term.abs());
            }
        }
    }
    let spec = DepthwiseGradSpec { planes, filters, multiplier, rows, columns };
    for kernels in levels() {
        let plan = DepthwiseGradPlan::new(&spec, kernels).unwrap();
        let mut dw = vec![f32::NAN; expected.len()];
        for tile in (0..plan.tiles()).rev() {
            // SAFETY: the tensors have the sizes of the spec.
            unsafe {
                depthwise_grad_tiles(plan.descriptor(), x.as_ptr(), dy.as_ptr(), dw.as_mut_ptr(), tile, tile + 1)
            };
        }
        for (i, (&actual, &(value, size))) in dw.iter().zip(&expected).enumerate() {
            let bound = f64::from(f32::EPSILON) * (4.0 + 8.0 * size);
            let close = (f64::from(actual) - value).abs() <= bound;
            assert!(close, "{} {spec:?}: dw[{i}] is {actual}, not {value}", kernels.level);
        }
    }
}

#[test]
fn gradients_of_depthwise_filters() {
    for (size, padding) in [([7, 7], [1, 1]), ([14, 14], [1, 1]), ([5, 37], [0, 1]), ([30, 17], [2, 0])] {
        for stride in [[1, 1], [2, 2], [3, 1], [1, 2]] {
            for kernel in [[3, 3], [2, 3], [1, 1], [3, 5]] {
                check_gradient(&spec(5, size, kernel, stride, padding));
            }
        }
    }
    let several = DepthwiseSpec { filters: 6, ..spec(24, [9, 40], [3, 3], [2, 2], [1, 1]) };
    check_gradient(&several);
    // Rows of taps that no whole number of groups in registers makes up, and more filters than share the totals.
    for (size, padding) in [([14, 14], [3, 3]), ([7, 40], [3, 2]), ([31, 17], [0, 1])] {
        for kernel in [[5, 5], [7, 7], [4, 5], [7, 3], [6, 7], [1, 7]] {
            for stride in [[1, 1], [2, 2], [2, 1]] {
                check_gradient(&DepthwiseSpec { filters: 9, ..spec(27, size, kernel, stride, padding) });
            }
        }
    }
    check_gradient(&DepthwiseSpec { filters: 50, ..spec(100, [12, 5], [3, 3], [1, 1], [1, 1]) });
    check_gradient(&DepthwiseSpec { filters: 12, multiplier: 3, ..several });
}

#[test]
fn tiles_are_a_power_of_two_and_equal() {
    for (planes, size) in [(960, 7), (576, 14), (192, 28), (64, 112)] {
        let spec = spec(planes, [size; 2], [3; 2], [1; 2], [1; 2]);
        for kernels in levels() {
            let plan = DepthwisePlan::new(&spec, kernels).unwrap();
            assert!(plan.tiles() > 1 && plan.tiles().is_power_of_two(), "{planes} {size}: {}", plan.tiles());
            assert_eq!(plan.tiles() as usize * plan.planes_per_tile(), planes);
        }
    }
}
