//! Pools and their gradients against loops; maxima and places exactly.

use super::super::window::{
    Axis, PoolGradPlan, PoolGradSpec, PoolPlan, PoolReduce, PoolSpec, Share, WindowError, pool_grad_tiles, pool_tiles,
};
use super::super::{Activation, Kernels};
use super::cases::numbers;
use super::run::levels;

/// Groups of several planes, and some that are left.
const PLANES: usize = 7;

fn axis(input: usize, kernel: usize, stride: usize, padding: usize) -> Axis {
    Axis { input, output: (input + 2 * padding - kernel) / stride + 1, kernel, stride, offset: -(padding as i64) }
}

fn pool(size: [usize; 2], kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2], reduce: PoolReduce) -> PoolSpec {
    let axis = |d: usize| axis(size[d], kernel[d], stride[d], padding[d]);
    PoolSpec { planes: PLANES, rows: axis(0), columns: axis(1), reduce, activation: Activation::None }
}

/// Few different numbers, so that maxima occur several times; NaN, infinities and both zeros among them.
fn special(len: usize, seed: u64) -> Vec<f32> {
    const SPECIAL: [f32; 8] = [0.0, -0.0, 1.0, -1.0, 1.0, f32::NEG_INFINITY, f32::INFINITY, f32::NAN];
    numbers(len, seed)
        .into_iter()
        .map(|x| SPECIAL[((x + 1.0) * 3.99) as usize % if seed.is_multiple_of(2) { 7 } else { 8 }])
        .collect()
}

/// For each output and each position of its window in order: where the input lies, if inside.
fn window(spec: &PoolSpec, plane: usize, y: usize, x: usize) -> Vec<Option<usize>> {
    let (rows, columns) = (spec.rows, spec.columns);
    let inside = |axis: Axis, o: usize, k: usize| {
        let at = (o * axis.stride + k) as i64 + axis.offset;
        usize::try_from(at).ok().filter(|&at| at < axis.input)
    };
    let positions = (0..rows.kernel).flat_map(|i| (0..columns.kernel).map(move |j| (i, j)));
    positions
        .map(|(i, j)| {
            let (y, x) = (inside(rows, y, i)?, inside(columns, x, j)?);
            Some((plane * rows.input + y) * columns.input + x)
        })
        .collect()
}

fn outputs(spec: &PoolSpec) -> Vec<(usize, usize, usize)> {
    let (rows, columns) = (spec.rows.output, spec.columns.output);
    (0..spec.planes).flat_map(|plane| (0..rows).flat_map(move |y| (0..columns).map(move |x| (plane, y, x)))).collect()
}

fn run(spec: &PoolSpec, kernels: &Kernels, x: &[f32]) -> (Vec<f32>, Vec<i32>) {
    let plan = PoolPlan::new(spec, kernels).unwrap();
    let len = outputs(spec).len();
    let (mut out, mut place) = (vec![f32::NAN; len], vec![-1; len]);
    for tile in (0..plan.tiles()).rev() {
        // SAFETY: the tensors have the sizes of the spec.
        unsafe { pool_tiles(plan.descriptor(), x.as_ptr(), out.as_mut_ptr(), place.as_mut_ptr(), tile, tile + 1) };
    }
    (out, place)
}

fn geometries() -> Vec<[[usize; 2]; 4]> {
    let mut all = Vec::new();
    // Among them planes that windows cover: pairs of rows, an odd one, rows of part of a vector, several tiles.
    for size in [[8, 8], [7, 33], [14, 70], [4, 140], [5, 1], [1, 40], [4, 4], [6, 12], [2, 28], [64, 64]] {
        for (kernel, stride) in
            [([2, 2], [2, 2]), ([3, 3], [2, 2]), ([3, 3], [1, 1]), ([1, 4], [3, 1]), ([3, 2], [1, 2])]
        {
            for padding in [[0, 0], [1, 1], [0, 1]] {
                if (0..2).all(|d| size[d] + 2 * padding[d] >= kernel[d]) {
                    all.push([size, kernel, stride, padding]);
                }
            }
        }
    }
    // Windows wholly in the padding.
    all.push([[2, 2], [2, 2], [2, 2], [2, 2]]);
    all
}

/// Windows further apart than two columns.
fn far() -> Vec<[[usize; 2]; 4]> {
    vec![
        [[1, 300], [1, 4], [1, 4], [0, 0]],
        [[9, 9], [3, 3], [3, 3], [0, 0]],
        [[11, 10], [2, 3], [3, 4], [1, 1]],
        [[12, 50], [4, 4], [4, 4], [0, 1]],
        // Sixteen windows reach over more vectors than stay in registers.
        [[3, 200], [3, 2], [1, 9], [1, 0]],
        [[40, 7], [5, 7], [9, 7], [2, 0]],
    ]
}

#[test]
fn maxima_and_places_are_exact() {
    for [size, kernel, stride, padding] in geometries().into_iter().chain(far()) {
        for (place, seed) in [(true, 1), (false, 2), (true, 4)] {
            let spec = pool(size, kernel, stride, padding, PoolReduce::Max { place });
            let x = special(PLANES * size[0] * size[1], seed);
            for kernels in levels() {
                let (out, places) = run(&spec, kernels, &x);
                for (i, &(plane, row, column)) in outputs(&spec).iter().enumerate() {
                    let values: Vec<f32> = window(&spec, plane, row, column)
                        .into_iter()
                        .map(|at| at.map_or(f32::NEG_INFINITY, |at| x[at]))
                        .collect();
                    let first_nan = values.iter().position(|v| v.is_nan());
                    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let expected = first_nan.or(values.iter().position(|&v| v == largest)).unwrap();
                    assert_eq!(out[i].to_bits(), values[expected].to_bits(), "{} {spec:?} {i}", kernels.level);
                    let wanted = if place { expected as i32 } else { -1 };
                    assert_eq!(places[i], wanted, "{} {spec:?} {i}", kernels.level);
                }
            }
        }
    }
}

#[test]
fn sums_are_in_row_major_order() {
    for [size, kernel, stride, padding] in geometries().into_iter().chain(far()) {
        for (scale, activation) in [(1.0, Activation::None), (0.25, Activation::Relu), (1.0, Activation::Tanh)] {
            let spec = pool(size, kernel, stride, padding, PoolReduce::Sum { scale });
            let spec = PoolSpec { activation, ..spec };
            let x: Vec<f32> = numbers(PLANES * size[0] * size[1], 7).into_iter().map(|v| v as f32).collect();
            for kernels in levels() {
                let (out, _) = run(&spec, kernels, &x);
                for (i, &(plane, row, column)) in outputs(&spec).iter().enumerate() {
                    let sum: f32 = window(&spec, plane, row, column).into_iter().flatten().map(|at| x[at]).sum();
                    let value = sum * scale as f32;
                    let (expected, bound) = match activation {
                        Activation::Relu => (value.max(0.0), 0.0),
                        Activation::Tanh => (value.tanh(), 1e-6),
                        _ => (value, 0.0),
                    };
                    assert!(
                        (out[i] - expected).abs() <= bound,
                        "{} {spec:?} {i}: {} {expected}",
                        kernels.level,
                        out[i]
                    );
                }
            }
        }
    }
}

#[test]
fn gradients_take_from_their_windows() {
    for [size, kernel, stride, padding] in geometries() {
        let forward = pool(size, kernel, stride, padding, PoolReduce::Max { place: true });
        let (inputs, windows) = (PLANES * size[0] * size[1], outputs(&forward));
        let floats = |len: usize, seed: u64| numbers(len, seed).into_iter().map(|v| v as f32).collect::<Vec<f32>>();
        let (dy, gate) = (floats(windows.len(), 1), floats(inputs, 2));
        let positions = kernel[0] * kernel[1];
        let places: Vec<i32> = (0..windows.len()).map(|i| ((i * 7) % positions) as i32).collect();
        // Of two filters, which the planes take in turn.
        let w = floats(2 * positions, 3);
        let shares = [Share::Whole, Share::Chosen, Share::Weighted { filters: 2 }];
        for (share, gated) in shares.into_iter().flat_map(|share| [(share, false), (share, true)]) {
            let spec =
                PoolGradSpec { planes: PLANES, rows: forward.rows, columns: forward.columns, share, gate: gated };
            let mut expected = vec![0.0f64; inputs];
            for (i, &(plane, row, column)) in windows.iter().enumerate() {
                for (position, at) in window(&forward, plane, row, column).into_iter().enumerate() {
                    let share = match share {
                        Share::Whole => 1.0,
                        Share::Chosen => f64::from(u8::from(places[i] == position as i32)),
                        Share::Weighted { filters } => f64::from(w[plane % filters * positions + position]),
                    };
                    if let Some(at) = at {
                        expected[at] += share * f64::from(dy[i]);
                    }
                }
            }
            for kernels in levels() {
                let plan = PoolGradPlan::new(&spec, kernels).unwrap();
                // The gate may lie where the gradient goes.
                let mut dx = gate.clone();
                let to = dx.as_mut_ptr();
                for tile in 0..plan.tiles() {
                    // SAFETY: the tensors have the sizes of the spec.
                    unsafe {
                        let (dy, places, w) = (dy.as_ptr(), places.as_ptr(), w.as_ptr());
                        pool_grad_tiles(plan.descriptor(), dy, places, to, w, to, tile, tile + 1);
                    };
                }
                for (i, &value) in dx.iter().enumerate() {
                    let wanted = if gated && gate[i] <= 0.0 { 0.0 } else { expected[i] };
                    let close = (f64::from(value) - wanted).abs() < 1e-5;
                    assert!(close, "{} {spec:?} {i}: {value}, not {wanted}", kernels.level);
                }
            }
        }
    }
}

#[test]
fn pools_refuse_what_they_cannot_do() {
    let kernels = levels()[0];
    let wide = pool([9, 9], [3, 3], [3, 3], [0, 0], PoolReduce::Max { place: false });
    let none = PoolSpec { planes: 0, ..pool([9, 9], [3, 3], [2, 2], [0, 0], PoolReduce::Max { place: false }) };
    assert_eq!(PoolPlan::new(&none, kernels).err(), Some(WindowError::Empty));
    let wide = PoolGradSpec { planes: 1, rows: wide.rows, columns: wide.columns, share: Share::Chosen, gate: false };
    assert_eq!(PoolGradPlan::new(&wide, kernels).err(), Some(WindowError::Stride));
}
