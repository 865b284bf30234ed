#![allow(unsafe_code, clippy::unwrap_used, reason = "a timing program: calls entry points, may panic")]
//! GFLOP/s of the contraction kernels on one thread, next to the FMA peak measured in the same run.
//!
//! `cargo bench -p kiln-rt [-- part-of-a-name] [KILN_KERNELS=avx2]`

use std::hint::black_box;
use std::time::Instant;

use kiln_rt::kernels::{
    Activation, AffineDim, AffineRead, Along, Arguments, ContractPlan, ContractSpec, Element, Epilogue, Kernels, Level,
    Packed, Side, WinogradGradientPlan, WinogradPlan, WinogradTile, detect, winograd_gradient_input,
    winograd_gradient_sum, winograd_gradient_tiles,
};

fn main() {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let level = std::env::var("KILN_KERNELS").ok().and_then(|name| Level::from_name(&name));
    let kernels = Kernels::for_level(level.unwrap_or_else(detect)).unwrap();
    let peak = peak_gflops();
    println!("level {}, FMA peak {peak:.1} GFLOP/s", kernels.level);
    println!(
        "{:26} {:20} {:>5} {:>18} {:>9} {:>8} {:>6} {:>8}",
        "case", "kernel", "tiles", "mc x nc x kc", "us", "GFLOP/s", "peak", "plan us"
    );
    for (name, spec) in cases() {
        if name.contains(&filter) {
            measure(&name, &spec, kernels, peak);
        }
    }
    winograd(&filter, kernels, peak);
    gradients(&filter, kernels, peak);
    for (name, f) in [
        ("exp", kernels.strips.exp),
        ("log", kernels.strips.log),
        ("tanh", kernels.strips.tanh),
        ("erf", kernels.strips.erf),
        ("sigmoid", kernels.strips.sigmoid),
    ] {
        if name.contains(&filter) {
            let mut data = vec![0.5f32; 4096];
            let seconds = best(|| {
                // SAFETY: the strip's length is the buffer's.
                unsafe { f(black_box(data.as_ptr()), data.as_mut_ptr(), 4096) }
                data[0] = 0.5;
            });
            println!("{name:26} {:.3} ns per element", seconds / 4096.0 * 1e9);
        }
    }
}

/// Shortest of many runs, about 0.3 s of them.
fn best(mut body: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut shortest = f64::MAX;
    let mut runs = 0;
    while runs < 5 || (start.elapsed().as_secs_f64() < 0.3 && runs < 20_000) {
        let begin = Instant::now();
        body();
        shortest = shortest.min(begin.elapsed().as_secs_f64());
        runs += 1;
    }
    shortest
}

fn measure(name: &str, spec: &ContractSpec, kernels: &Kernels, peak: f64) {
    let begin = Instant::now();
    let plans: Vec<ContractPlan> = spec.phases().iter().map(|part| ContractPlan::new(part, kernels).unwrap()).collect();
    let planning = begin.elapsed().as_secs_f64();
    let plan = &plans[0];
    let most = |bytes: fn(&ContractPlan) -> usize| plans.iter().map(bytes).max().unwrap_or(0);
    let read_len = |read: &AffineRead| 1 + read.dims.iter().map(|d| (d.extent - 1) * d.stride as usize).sum::<usize>();
    let extents = || spec.batch.iter().chain(&spec.m).chain(&spec.n);
    let out_len = 1 + extents().zip(&spec.out_strides).map(|(e, s)| (e - 1) * *s as usize).sum::<usize>();
    let left = vec![0.5f32; read_len(&spec.left)];
    let right = vec![0.25f32; read_len(&spec.right)];
    let bias = vec![1.0f32; spec.m.iter().product::<usize>().max(spec.n.iter().product())];
    let mut out = vec![0.0f32; out_len];
    let mut scratch = vec![[0u64; 8]; most(ContractPlan::scratch_bytes) / 64 + 2];
    let mut partials = vec![[0u64; 8]; most(ContractPlan::partial_bytes) / 64 + 2];
    let aligned = |v: &mut Vec<[u64; 8]>| {
        let at = v.as_mut_ptr().cast::<u8>();
        at.wrapping_add(at.align_offset(64))
    };
    let mut panels = vec![[0u64; 8]; plan.packed_bytes(Side::Right).max(plan.packed_bytes(Side::Left)) / 64 + 2];
    let (mut left_at, mut right_at) = (left.as_ptr().cast::<u8>(), right.as_ptr().cast::<u8>());
    for (packed, side, at) in
        [(plan.packed().left, Side::Left, &mut left_at), (plan.packed().right, Side::Right, &mut right_at)]
    {
        if packed {
            let to = aligned(&mut panels);
            // SAFETY: the buffer has the plan's size.
            unsafe { plan.pack(side, *at, to, (0, plan.pack_tiles(side))) };
            *at = to;
        }
    }
    let arguments = Arguments {
        left: left_at,
        right: right_at,
        out: out.as_mut_ptr().cast(),
        bias: bias.as_ptr().cast(),
        scale: std::ptr::null(),
        residual: std::ptr::null(),
        partials: aligned(&mut partials),
        scratch: aligned(&mut scratch),
    };
    let seconds = best(|| {
        for plan in &plans {
            // SAFETY: the buffers have the sizes that spec and plan state.
            unsafe { plan.run(black_box(&arguments)) }
        }
    });
    let macs: usize = extents().chain(&spec.k).product();
    let gflops = 2e-9 * macs as f64 / seconds;
    let t = plan.tiling();
    println!(
        "{name:26} {:20} {:>5} {:>18} {:9.1} {gflops:8.1} {:5.0}% {:8.0}",
        plan.kernel(),
        plan.tiles(),
        format!("{}x{}x{}", t.mc, t.nc, t.kc),
        seconds * 1e6,
        gflops / peak * 100.0,
        planning * 1e6,
    );
}

/// Layers of VGG-16, ResNet-18 and ResNet-50, of the small CNN, then of 5 x 5 taps, of AlexNet, Inception and small networks: GFLOP/s of the
/// direct sum in the time of each algorithm, with weights packed ahead and without.
fn winograd(filter: &str, kernels: &Kernels, peak: f64) {
    let square = [
        (1, 64, 224),
        (1, 64, 56),
        (1, 128, 28),
        (1, 256, 14),
        (1, 512, 7),
        (16, 64, 56),
        (16, 128, 28),
        (16, 256, 14),
        (16, 512, 7),
        (1, 512, 28),
        (1, 512, 14),
    ];
    let square = square.map(|(b, c, size)| Conv { b, c, o: c, size, taps: 3, pad: 1, stride: 1 });
    let cnn = [1, 32, 128].map(|b| Conv { b, c: 32, o: 64, size: 15, taps: 3, pad: 0, stride: 1 });
    let wide = [
        (1, 64, 192, 27, 2),
        (16, 64, 192, 27, 2),
        (1, 16, 32, 28, 2),
        (1, 32, 96, 28, 2),
        (1, 48, 64, 35, 2),
        (1, 48, 128, 14, 2),
        (32, 6, 16, 14, 0),
        (128, 32, 64, 14, 2),
    ];
    let wide = wide.map(|(b, c, o, size, pad)| Conv { b, c, o, size, taps: 5, pad, stride: 1 });
    for conv in square.into_iter().chain(cnn).chain(wide) {
        let Conv { b, c, o, size, taps, .. } = conv;
        let name = format!("layer {b}x{c}x{o}x{size} k{taps}");
        if !name.contains(filter) {
            continue;
        }
        let mut row = format!("{name:24}");
        for (ahead, data) in [(true, false), (false, false), (false, true)] {
            let mut spec = if data { conv.backward_data() } else { conv.forward() };
            spec.packed.left = ahead;
            row += if data {
                " | data"
            } else if ahead {
                " packed"
            } else {
                " | in step"
            };
            row += &format!(" {:6.1}", layer(&spec, None, kernels));
            for tile in WinogradTile::ALL {
                if let Ok(plan) = WinogradPlan::new(&spec, tile, kernels) {
                    row += &format!(" {:6.1}", layer(&spec, Some(plan), kernels));
                }
            }
        }
        println!("{row}  (direct F2 F4; peak {peak:.0})");
    }
}

/// Gradients by the weights, of layers of ResNet-18 for 32 x 32 images, of VGG-16 and of the small CNN: microseconds of
/// operands, products and partial sums, and GFLOP/s of the direct sum in the time of the whole.
fn gradients(filter: &str, kernels: &Kernels, peak: f64) {
    let shapes = [
        (16, 64, 64, 32, 3, 1),
        (16, 128, 128, 16, 3, 1),
        (16, 256, 256, 8, 3, 1),
        (16, 512, 512, 4, 3, 1),
        (128, 32, 64, 15, 3, 0),
        (32, 32, 64, 15, 3, 0),
        (16, 64, 64, 56, 3, 1),
        (16, 512, 512, 7, 3, 1),
        (4, 256, 256, 56, 3, 1),
        (16, 64, 192, 27, 5, 2),
        (16, 32, 96, 28, 5, 2),
        (32, 6, 16, 14, 5, 0),
        (128, 32, 64, 14, 5, 2),
    ];
    for (b, c, o, size, taps, pad) in shapes {
        let name = format!("gradient {b}x{c}x{o}x{size} k{taps} p{pad}");
        if !name.contains(filter) {
            continue;
        }
        let mut spec = Conv { b, c, o, size, taps, pad, stride: 1 }.backward_weights();
        spec.epilogue = Epilogue::default();
        let mut row = format!("{name:29} direct {:6.1}", layer(&spec, None, kernels));
        for tile in WinogradTile::ALL {
            let Ok(plan) = WinogradGradientPlan::new(&spec, tile, kernels) else { continue };
            let stages = gradient(&spec, &plan);
            let gflops = 2e-9 * plan.multiply_adds() as f64 / stages.iter().sum::<f64>();
            let [input, tiles, sum] = stages.map(|seconds| 1e6 * seconds);
            row += &format!(" | {input:7.1} {tiles:7.1} {sum:6.1} us {gflops:6.1}");
        }
        println!("{row}  (F2, F4; peak {peak:.0})");
    }
}

/// Seconds of each stage.
fn gradient(spec: &ContractSpec, plan: &WinogradGradientPlan) -> [f64; 3] {
    let lines = |bytes: usize| vec![[0.0f32; 16]; bytes / 64 + 2];
    let aligned = |v: &mut Vec<[f32; 16]>| {
        let at = v.as_mut_ptr().cast::<u8>();
        at.wrapping_add(at.align_offset(64))
    };
    let read_len = |read: &AffineRead| 1 + read.dims.iter().map(|d| (d.extent - 1) * d.stride as usize).sum::<usize>();
    let (left, right) = (vec![0.01f32; read_len(&spec.left)], vec![0.25f32; read_len(&spec.right)]);
    let mut out = vec![0.0f32; spec.m.iter().chain(&spec.n).product()];
    let (mut scratch, mut partials) = (lines(plan.scratch_bytes()), lines(plan.partial_bytes()));
    let arguments = Arguments {
        left: left.as_ptr().cast(),
        right: right.as_ptr().cast(),
        out: out.as_mut_ptr().cast(),
        bias: std::ptr::null(),
        scale: std::ptr::null(),
        residual: std::ptr::null(),
        partials: aligned(&mut partials),
        scratch: aligned(&mut scratch),
    };
    // SAFETY: the buffers have the sizes that spec and plan state.
    unsafe { plan.run(&arguments) };
    let stages = [
        (winograd_gradient_input as unsafe extern "C" fn(_, _, _, _), plan.input_tiles()),
        (winograd_gradient_tiles, plan.tiles()),
        (winograd_gradient_sum, plan.sum_tiles()),
    ];
    stages.map(|(stage, tiles)| {
        // SAFETY: likewise.
        best(|| unsafe { stage(plan.descriptor(), black_box(&raw const arguments), 0, tiles) })
    })
}

/// Effective GFLOP/s of one algorithm.
fn layer(spec: &ContractSpec, winograd: Option<WinogradPlan>, kernels: &Kernels) -> f64 {
    let direct = ContractPlan::new(spec, kernels).unwrap();
    let (scratch, partial, packed) = match &winograd {
        None => (direct.scratch_bytes(), direct.partial_bytes(), direct.packed_bytes(Side::Left)),
        Some(plan) => (plan.scratch_bytes(), plan.partial_bytes(), plan.packed_bytes()),
    };
    let lines = |bytes: usize| vec![[0.0f32; 16]; bytes / 64 + 2];
    let aligned = |v: &mut Vec<[f32; 16]>| {
        let at = v.as_mut_ptr().cast::<u8>();
        at.wrapping_add(at.align_offset(64))
    };
    let read_len = |read: &AffineRead| 1 + read.dims.iter().map(|d| (d.extent - 1) * d.stride as usize).sum::<usize>();
    let extents = || spec.m.iter().chain(&spec.n);
    let out_len = 1 + extents().zip(&spec.out_strides).map(|(e, s)| (e - 1) * *s as usize).sum::<usize>();
    let (left, right) = (vec![0.01f32; read_len(&spec.left)], vec![0.25f32; read_len(&spec.right)]);
    let bias = vec![1.0f32; spec.m[0]];
    let mut out = vec![0.0f32; out_len];
    let (mut scratch, mut partials, mut panels) = (lines(scratch), lines(partial), lines(packed));
    let (tensor, to) = (left.as_ptr().cast::<u8>(), aligned(&mut panels));
    let pack = || {
        // SAFETY: the buffers have the sizes that spec and plan state.
        unsafe {
            match &winograd {
                None => direct.pack(Side::Left, tensor, to, (0, direct.pack_tiles(Side::Left))),
                Some(plan) => plan.pack_weights(tensor, to),
            }
        }
    };
    pack();
    let ahead = spec.packed.left;
    let weights = if ahead || winograd.is_some() { to.cast_const() } else { tensor };
    let arguments = Arguments {
        left: weights,
        right: right.as_ptr().cast(),
        out: out.as_mut_ptr().cast(),
        bias: bias.as_ptr().cast(),
        scale: std::ptr::null(),
        residual: std::ptr::null(),
        partials: aligned(&mut partials),
        scratch: aligned(&mut scratch),
    };
    let seconds = best(|| {
        if !ahead && winograd.is_some() {
            pack();
        }
        // SAFETY: the buffers have the sizes that spec and plan state.
        unsafe {
            match &winograd {
                None => direct.run(black_box(&arguments)),
                Some(plan) => plan.run(black_box(&arguments)),
            }
        }
    });
    2e-9 * extents().chain(&spec.k).product::<usize>() as f64 / seconds
}

fn cases() -> Vec<(String, ContractSpec)> {
    let mut cases = Vec::new();
    for n in [256, 512, 1024, 2048] {
        cases.push((format!("dot {n}^3"), ContractSpec { shares_panels: true, ..dot(n, n, n, false) }));
        cases.push((format!("dot {n}^3 nt"), ContractSpec { shares_panels: true, ..dot(n, n, n, true) }));
    }
    cases.push(("dot 32x1024x1024".into(), dot(32, 1024, 1024, false)));
    cases.push(("dot 32x10x1024 nt".into(), dot(32, 10, 1024, true)));
    cases.push(("dot 32x128x784 nt".into(), dot(32, 128, 784, true)));
    cases.push(("dot 1x1024x1024".into(), dot(1, 1024, 1024, false)));
    cases.push(("dot 1x1024x1024 nt".into(), dot(1, 1024, 1024, true)));
    for (m, n, k) in [(1, 1024, 1024), (32, 1024, 1024)] {
        let mut spec = dot(m, n, k, true);
        spec.packed = Packed { left: false, right: true };
        cases.push((format!("dot {m}x{n}x{k} packed"), spec));
    }
    // Convolutions of one pixel, weights packed: MobileNetV2 at batch 1.
    for (c, size, o) in [
        (32, 112, 16),
        (16, 112, 96),
        (96, 56, 24),
        (24, 56, 144),
        (32, 28, 192),
        (192, 28, 32),
        (64, 14, 384),
        (384, 14, 64),
        (96, 14, 576),
        (160, 7, 960),
        (960, 7, 160),
        (320, 7, 1280),
    ] {
        let mut spec = dot(o, size * size, c, false);
        spec.packed.left = true;
        spec.epilogue.activation = Activation::Clamp { low: 0.0, high: 6.0 };
        cases.push((format!("1x1 {c}x{size}->{o}"), spec));
    }
    // What activations add to a short sum.
    for (name, activation) in [
        ("none", Activation::None),
        ("silu", Activation::Silu),
        ("sigmoid", Activation::Sigmoid),
        ("tanh", Activation::Tanh),
        ("gelu", Activation::GeluErf),
    ] {
        let mut spec = dot(96, 112 * 112, 16, false);
        spec.packed.left = true;
        spec.epilogue.activation = activation;
        cases.push((format!("1x1 16x112->96 {name}"), spec));
    }
    // First layers of MobileNetV2 and of a network on small images.
    for (size, stride) in [(224, 2), (32, 1)] {
        let mut spec = Conv { b: 1, c: 3, o: 32, size, taps: 3, pad: 1, stride }.forward();
        spec.packed.left = true;
        cases.push((format!("first 3x{size}->32 s{stride}"), spec));
    }
    for (c, size, o, pad, stride) in [
        (3, 32, 32, 0, 1),
        (3, 32, 32, 1, 1),
        (32, 15, 64, 0, 1),
        (32, 15, 64, 1, 1),
        (64, 13, 64, 1, 1),
        (64, 28, 128, 1, 2),
    ] {
        let conv = Conv { b: 32, c, o, size, taps: 3, pad, stride };
        let name = |d: &str| format!("conv {c}x{size}->{o} p{pad} s{stride} {d}");
        cases.push((name("fwd"), conv.forward()));
        cases.push((name("data"), conv.backward_data()));
        cases.push((name("wgt"), conv.backward_weights()));
    }
    cases
}

fn dim(terms: &[(usize, i64)], offset: i64, extent: usize, stride: usize) -> AffineDim {
    AffineDim { terms: terms.to_vec(), offset, divisor: 1, extent, stride: stride as i64 }
}

fn spec(sizes: [Vec<usize>; 3], left: Vec<AffineDim>, right: Vec<AffineDim>, out: Vec<i64>) -> ContractSpec {
    let [m, n, k] = sizes;
    ContractSpec {
        element: Element::F32,
        batch: Vec::new(),
        m,
        n,
        k,
        left: AffineRead { dims: left },
        right: AffineRead { dims: right },
        out_strides: out,
        epilogue: Epilogue { bias: Some(Along::M), activation: Activation::Relu, ..Epilogue::default() },
        ..ContractSpec::default()
    }
}

/// `[m, k] x [k, n]`, or `[m, k] x [n, k]`.
fn dot(m: usize, n: usize, k: usize, transposed: bool) -> ContractSpec {
    let (bk, bn) = if transposed { (1, k) } else { (n, 1) };
    spec(
        [vec![m], vec![n], vec![k]],
        vec![dim(&[(0, 1)], 0, m, k), dim(&[(2, 1)], 0, k, 1)],
        vec![dim(&[(2, 1)], 0, k, bk), dim(&[(1, 1)], 0, n, bn)],
        vec![n as i64, 1],
    )
}

/// Convolution of square images.
struct Conv {
    b: usize,
    c: usize,
    o: usize,
    size: usize,
    taps: usize,
    pad: usize,
    stride: usize,
}

impl Conv {
    fn out(&self) -> usize {
        (self.size + 2 * self.pad - self.taps) / self.stride + 1
    }

    fn weights(&self, o: usize, c: usize, i: usize) -> Vec<AffineDim> {
        let taps = self.taps;
        vec![
            dim(&[(o, 1)], 0, self.o, self.c * taps * taps),
            dim(&[(c, 1)], 0, self.c, taps * taps),
            dim(&[(i, 1)], 0, taps, taps),
            dim(&[(i + 1, 1)], 0, taps, 1),
        ]
    }

    /// `b` and `c` loops, then the loops of output rows and taps.
    fn image(&self, b: usize, c: usize, y: usize, i: usize) -> Vec<AffineDim> {
        let (s, p) = (self.stride as i64, self.pad as i64);
        let size = self.size;
        vec![
            dim(&[(b, 1)], 0, self.b, self.c * size * size),
            dim(&[(c, 1)], 0, self.c, size * size),
            dim(&[(y, s), (i, 1)], -p, size, size),
            dim(&[(y + 1, s), (i + 1, 1)], -p, size, 1),
        ]
    }

    fn forward(&self) -> ContractSpec {
        let out = self.out();
        let plane = (out * out) as i64;
        spec(
            [vec![self.o], vec![self.b, out, out], vec![self.c, self.taps, self.taps]],
            self.weights(0, 4, 5),
            self.image(1, 4, 2, 5),
            vec![plane, self.o as i64 * plane, out as i64, 1],
        )
    }

    fn backward_data(&self) -> ContractSpec {
        let (out, size) = (self.out(), self.size);
        let plane = (size * size) as i64;
        let mut dy = vec![
            dim(&[(1, 1)], 0, self.b, self.o * out * out),
            dim(&[(4, 1)], 0, self.o, out * out),
            dim(&[(2, 1), (5, -1)], self.pad as i64, out, out),
            dim(&[(3, 1), (6, -1)], self.pad as i64, out, 1),
        ];
        dy[2].divisor = self.stride as i64;
        dy[3].divisor = self.stride as i64;
        spec(
            [vec![self.c], vec![self.b, size, size], vec![self.o, self.taps, self.taps]],
            self.weights(4, 0, 5),
            dy,
            vec![plane, self.c as i64 * plane, size as i64, 1],
        )
    }

    fn backward_weights(&self) -> ContractSpec {
        let (out, taps) = (self.out(), self.taps as i64);
        let dy = vec![
            dim(&[(4, 1)], 0, self.b, self.o * out * out),
            dim(&[(0, 1)], 0, self.o, out * out),
            dim(&[(5, 1)], 0, out, out),
            dim(&[(6, 1)], 0, out, 1),
        ];
        spec(
            [vec![self.o], vec![self.c, self.taps, self.taps], vec![self.b, out, out]],
            dy,
            self.image(4, 1, 5, 2),
            vec![self.c as i64 * taps * taps, taps * taps, taps, 1],
        )
    }
}

/// FMA throughput of the widest vectors here, from registers.
#[cfg(target_arch = "x86_64")]
fn peak_gflops() -> f64 {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    fn wide(rounds: u32) -> f32 {
        let (a, b) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
        // Different starts, or LLVM rotates one chain through the registers.
        let mut sums: [__m512; 12] = std::array::from_fn(|i| _mm512_set1_ps(black_box(i as f32)));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        sums.into_iter().map(|s| _mm512_reduce_add_ps(s)).sum()
    }

    #[target_feature(enable = "avx2,fma")]
    fn narrow(rounds: u32) -> f32 {
        let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
        let mut sums: [__m256; 12] = std::array::from_fn(|i| _mm256_set1_ps(black_box(i as f32)));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        sums.into_iter().map(|s| _mm256_cvtss_f32(s)).sum()
    }

    const ROUNDS: u32 = 100_000;
    if Level::Avx512.available() {
        let seconds = best(|| {
            // SAFETY: the feature was just detected.
            black_box(unsafe { wide(ROUNDS) });
        });
        f64::from(ROUNDS) * 12.0 * 32.0 / seconds * 1e-9
    } else if Level::Avx2.available() {
        let seconds = best(|| {
            // SAFETY: the features were just detected.
            black_box(unsafe { narrow(ROUNDS) });
        });
        f64::from(ROUNDS) * 12.0 * 16.0 / seconds * 1e-9
    } else {
        f64::NAN
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn peak_gflops() -> f64 {
    f64::NAN
}
