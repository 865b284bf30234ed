#![allow(unsafe_code, clippy::unwrap_used, reason = "a timing program: calls entry points, may panic")]
//! GFLOP/s and GB/s of depthwise convolutions, pools and their gradients on one thread.
//!
//! `cargo bench -p kiln-rt --bench windows [-- part-of-a-name] [KILN_KERNELS=avx2]`

use std::hint::black_box;
use std::time::Instant;

use kiln_rt::kernels::window::{
    Axis, DepthwiseEpilogue, DepthwiseGradPlan, DepthwiseGradSpec, DepthwisePlan, DepthwiseSpec, PoolGradPlan,
    PoolGradSpec, PoolPlan, PoolReduce, PoolSpec, Share, depthwise_grad_tiles, depthwise_tiles, pool_grad_tiles,
    pool_tiles,
};
use kiln_rt::kernels::{Activation, Kernels, Level, detect};

fn main() {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let level = std::env::var("KILN_KERNELS").ok().and_then(|name| Level::from_name(&name));
    let kernels = Kernels::for_level(level.unwrap_or_else(detect)).unwrap();
    println!("{:44} {:>9} {:>8} {:>7}", "case", "us", "GFLOP/s", "GB/s");
    for (planes, size, kernel, stride, padding) in GEOMETRIES {
        let [rows, columns] = size.map(|input| Axis {
            input,
            output: (input + 2 * padding - kernel) / stride + 1,
            kernel,
            stride,
            offset: -(padding as i64),
        });
        for case in [depthwise, depthwise_grad, max_pool, max_pool_places, sum_pool, max_pool_grad] {
            case(&Shape { planes, rows, columns }, kernels, &filter);
        }
    }
}

/// Planes, extent, kernel, stride, padding: MobileNetV2, ResNet-18, VGG-16 and a small network in batches of 32 and alone.
const GEOMETRIES: [(usize, [usize; 2], usize, usize, usize); 35] = [
    (32, [112; 2], 3, 1, 1),
    (96, [112; 2], 3, 2, 1),
    (144, [56; 2], 3, 1, 1),
    (144, [56; 2], 3, 2, 1),
    (192, [28; 2], 3, 1, 1),
    (384, [14; 2], 3, 1, 1),
    (576, [14; 2], 3, 2, 1),
    (960, [7; 2], 3, 1, 1),
    (64, [112; 2], 3, 2, 1),
    (64, [224; 2], 2, 2, 0),
    (256, [56; 2], 2, 2, 0),
    (32 * 32, [30; 2], 2, 2, 0),
    (32 * 64, [13; 2], 2, 2, 0),
    (32 * 32, [28; 2], 2, 2, 0),
    (32 * 64, [12; 2], 2, 2, 0),
    (32, [30; 2], 2, 2, 0),
    (64, [13; 2], 2, 2, 0),
    (32 * 32, [8; 2], 2, 2, 0),
    (32 * 64, [4; 2], 2, 2, 0),
    (16 * 256, [16; 2], 4, 4, 0),
    (960, [7; 2], 5, 1, 2),
    (240, [28; 2], 5, 2, 2),
    (480, [14; 2], 5, 1, 2),
    (2048, [5; 2], 3, 1, 1),
    (2048, [25, 5], 3, 1, 1),
    (1024, [3; 2], 3, 1, 1),
    (1024, [4; 2], 3, 1, 1),
    (1024, [6; 2], 3, 1, 1),
    (1024, [8; 2], 3, 1, 1),
    (1024, [10; 2], 3, 1, 1),
    (1024, [12; 2], 3, 1, 1),
    (1024, [17; 2], 3, 1, 1),
    (1024, [19; 2], 3, 1, 1),
    (1024, [4; 2], 5, 1, 2),
    (512, [7; 2], 7, 1, 3),
];

struct Shape {
    planes: usize,
    rows: Axis,
    columns: Axis,
}

impl Shape {
    fn input(&self) -> usize {
        self.planes * self.rows.input * self.columns.input
    }

    fn output(&self) -> usize {
        self.planes * self.rows.output * self.columns.output
    }

    /// Runs `body` and prints a line; `elements` are those that have to be read or written.
    fn report(&self, kernel: &str, filter: &str, operations: usize, elements: usize, body: impl FnMut()) {
        let name = format!("{kernel} {}x{}x{}", self.planes, self.rows.input, self.columns.input);
        if name.contains(filter) {
            let seconds = best(body);
            let work = (operations * self.output() * self.rows.kernel * self.columns.kernel) as f64;
            let (gflops, bytes) = (1e-9 * work / seconds, 4e-9 * elements as f64 / seconds);
            println!("{name:44} {:9.1} {gflops:8.1} {bytes:7.1}", seconds * 1e6);
        }
    }
}

/// Shortest of many runs, about 0.2 s of them.
fn best(mut body: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut shortest = f64::MAX;
    let mut runs = 0;
    while runs < 5 || (start.elapsed().as_secs_f64() < 0.2 && runs < 20_000) {
        let begin = Instant::now();
        body();
        shortest = shortest.min(begin.elapsed().as_secs_f64());
        runs += 1;
    }
    shortest
}

fn depthwise(shape: &Shape, kernels: &Kernels, filter: &str) {
    if shape.rows.kernel.is_multiple_of(2) {
        return;
    }
    let spec = DepthwiseSpec {
        planes: shape.planes,
        filters: shape.planes,
        multiplier: 1,
        rows: shape.rows,
        columns: shape.columns,
        flipped: [false; 2],
        epilogue: DepthwiseEpilogue {
            bias: true,
            activation: Activation::Clamp { low: 0.0, high: 6.0 },
            ..DepthwiseEpilogue::default()
        },
    };
    let plan = DepthwisePlan::new(&spec, kernels).unwrap();
    let (x, w, bias) = (
        vec![0.5f32; shape.input()],
        vec![0.25f32; shape.planes * shape.rows.kernel.pow(2)],
        vec![1.0f32; shape.planes],
    );
    let mut out = vec![0.0f32; shape.output()];
    let none = std::ptr::null();
    shape.report(plan.kernel(), filter, 2, shape.input() + shape.output(), || {
        let (x, w, bias, to) = (black_box(x.as_ptr()), w.as_ptr(), bias.as_ptr(), out.as_mut_ptr());
        // SAFETY: the tensors have the sizes of the spec.
        unsafe { depthwise_tiles(plan.descriptor(), x, w, to, bias, none, none, 0, plan.tiles()) };
    });
}

fn depthwise_grad(shape: &Shape, kernels: &Kernels, filter: &str) {
    if shape.rows.kernel != 3 {
        return;
    }
    let (rows, columns) = (shape.rows, shape.columns);
    let spec = DepthwiseGradSpec { planes: shape.planes, filters: shape.planes, multiplier: 1, rows, columns };
    let plan = DepthwiseGradPlan::new(&spec, kernels).unwrap();
    let (x, dy) = (vec![0.5f32; shape.input()], vec![0.25f32; shape.output()]);
    let mut dw = vec![0.0f32; shape.planes * 9];
    shape.report(plan.kernel(), filter, 2, shape.input() + shape.output(), || {
        let (x, dy, dw) = (black_box(x.as_ptr()), dy.as_ptr(), dw.as_mut_ptr());
        // SAFETY: the tensors have the sizes of the spec.
        unsafe { depthwise_grad_tiles(plan.descriptor(), x, dy, dw, 0, plan.tiles()) };
    });
}

fn max_pool(shape: &Shape, kernels: &Kernels, filter: &str) {
    pool(shape, kernels, filter, PoolReduce::Max { place: false });
}

fn max_pool_places(shape: &Shape, kernels: &Kernels, filter: &str) {
    pool(shape, kernels, filter, PoolReduce::Max { place: true });
}

fn sum_pool(shape: &Shape, kernels: &Kernels, filter: &str) {
    pool(shape, kernels, filter, PoolReduce::Sum { scale: 0.25 });
}

fn pool(shape: &Shape, kernels: &Kernels, filter: &str, reduce: PoolReduce) {
    let (rows, columns) = (shape.rows, shape.columns);
    let spec = PoolSpec { planes: shape.planes, rows, columns, reduce, activation: Activation::None };
    let plan = PoolPlan::new(&spec, kernels).unwrap();
    let x = vec![0.5f32; shape.input()];
    let (mut out, mut place) = (vec![0.0f32; shape.output()], vec![0; shape.output()]);
    let written = if reduce == (PoolReduce::Max { place: true }) { 2 } else { 1 };
    shape.report(plan.kernel(), filter, 1, shape.input() + written * shape.output(), || {
        let (x, to, place) = (black_box(x.as_ptr()), out.as_mut_ptr(), place.as_mut_ptr());
        // SAFETY: the tensors have the sizes of the spec.
        unsafe { pool_tiles(plan.descriptor(), x, to, place, 0, plan.tiles()) };
    });
}

fn max_pool_grad(shape: &Shape, kernels: &Kernels, filter: &str) {
    let (rows, columns) = (shape.rows, shape.columns);
    let spec = PoolGradSpec { planes: shape.planes, rows, columns, share: Share::Chosen, gate: true };
    let Ok(plan) = PoolGradPlan::new(&spec, kernels) else { return };
    let (dy, place) = (vec![0.5f32; shape.output()], vec![1; shape.output()]);
    // As in models, the gradient lies over the gate.
    let mut dx = vec![1.0f32; shape.input()];
    shape.report(plan.kernel(), filter, 1, 2 * (shape.input() + shape.output()), || {
        let (dy, place, dx) = (black_box(dy.as_ptr()), place.as_ptr(), dx.as_mut_ptr());
        // SAFETY: the tensors have the sizes of the spec.
        unsafe { pool_grad_tiles(plan.descriptor(), dy, place, dx, dx, dx, 0, plan.tiles()) };
    });
}
