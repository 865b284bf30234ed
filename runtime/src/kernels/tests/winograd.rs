use super::super::math::activation_f64;
use super::super::{
    Activation, Along, Arguments, ContractPlan, ContractSpec, Epilogue, Kernels, Side, WinogradError, WinogradPlan,
    WinogradTile,
};
use super::cases::{Conv, naive, numbers, out_len, read_len};
use super::run::levels;

/// Rows and columns of the kernel, size of the tiles.
pub(super) const ALGORITHMS: [((usize, usize), WinogradTile); 7] = [
    ((3, 3), WinogradTile::Two),
    ((3, 3), WinogradTile::Four),
    ((5, 5), WinogradTile::Two),
    ((1, 3), WinogradTile::Four),
    ((1, 5), WinogradTile::Two),
    ((3, 1), WinogradTile::Four),
    ((5, 1), WinogradTile::Two),
];

/// Of a 3 x 3 kernel.
pub(super) fn conv(batch: usize, channels: usize, outputs: usize, size: (usize, usize), pad: usize) -> Conv {
    Conv { batch, groups: 1, channels, outputs, size, kernel: (3, 3), stride: 1, pad, dilation: 1 }
}

impl Conv {
    /// Another kernel, and as many outputs as far as it has taps.
    pub(super) fn with_kernel(self, taps: (usize, usize)) -> Conv {
        Conv { kernel: taps, pad: self.pad + taps.0.max(taps.1) / 2 - self.kernel.0 / 2, ..self }
    }
}

/// Bounds of errors for all algorithms: of lines half of a plane's.
pub(super) fn with_lines([f23, f43, f25]: [f64; 3]) -> [f64; 7] {
    [f23, f43, f25, f43 / 2.0, f25 / 2.0, f43 / 2.0, f25 / 2.0]
}

/// Memory that starts at a cache line, filled with NaN: nothing may depend on what was in it.
pub(super) struct Aligned(Vec<[f32; 16]>);

impl Aligned {
    pub(super) fn new(bytes: usize) -> Aligned {
        Aligned(vec![[f32::NAN; 16]; bytes.div_ceil(64)])
    }

    pub(super) fn at(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|x| *x as f32).collect()
}

/// Buffers of one contraction: operands, vectors, residual, output.
pub(super) struct Data {
    left: Vec<f64>,
    right: Vec<f64>,
    bias: Vec<f64>,
    scale: Vec<f64>,
    residual: Vec<f64>,
}

impl Data {
    pub(super) fn new(spec: &ContractSpec) -> Data {
        let vector = spec.m[0].max(spec.n[0]);
        Data {
            left: numbers(read_len(&spec.left), 1),
            right: numbers(read_len(&spec.right), 2),
            bias: numbers(vector, 3),
            scale: numbers(vector, 4),
            residual: numbers(out_len(spec), 5),
        }
    }

    /// Runs on a copy of everything, with guards of NaN around the image that must not be read as numbers.
    pub(super) fn run(&self, spec: &ContractSpec, body: impl Fn(&Arguments)) -> Vec<f32> {
        let guarded = |values: &[f64]| {
            let mut padded = vec![f32::NAN; 64];
            padded.extend(narrow(values));
            padded.extend([f32::NAN; 64]);
            padded
        };
        let (left, right) = (guarded(&self.left), guarded(&self.right));
        let (bias, scale, residual) = (narrow(&self.bias), narrow(&self.scale), narrow(&self.residual));
        let len = out_len(spec);
        let mut out = vec![7.5f32; len + 128];
        body(&Arguments {
            left: left[64..].as_ptr().cast(),
            right: right[64..].as_ptr().cast(),
            out: out[64..].as_mut_ptr().cast(),
            bias: bias.as_ptr().cast(),
            scale: scale.as_ptr().cast(),
            residual: residual.as_ptr().cast(),
            partials: std::ptr::null_mut(),
            scratch: std::ptr::null_mut(),
        });
        assert!(out[..64].iter().chain(&out[64 + len..]).all(|x| *x == 7.5), "something outside was written");
        out[64..64 + len].to_vec()
    }

    fn winograd(&self, spec: &ContractSpec, tile: WinogradTile, kernels: &Kernels) -> Vec<f32> {
        self.planned(spec, &WinogradPlan::new(spec, tile, kernels).unwrap())
    }

    pub(super) fn planned(&self, spec: &ContractSpec, plan: &WinogradPlan) -> Vec<f32> {
        self.run(spec, |arguments| {
            let mut partials = Aligned::new(plan.partial_bytes());
            let mut scratch = Aligned::new(plan.scratch_bytes());
            let mut weights = Aligned::new(plan.packed_bytes());
            let mut arguments = Arguments { partials: partials.at(), scratch: scratch.at(), ..*arguments };
            let from = if plan.weights() == Side::Left { &mut arguments.left } else { &mut arguments.right };
            // SAFETY: the buffer has the plan's size and the operand is the spec's.
            unsafe { plan.pack_weights(*from, weights.at()) };
            *from = weights.at();
            // SAFETY: all buffers have the sizes that the spec and the plan state.
            unsafe { plan.run(&arguments) };
        })
    }

    pub(super) fn direct(&self, spec: &ContractSpec, kernels: &Kernels) -> Vec<f32> {
        let plan = ContractPlan::new(spec, kernels).unwrap();
        self.run(spec, |arguments| {
            let mut partials = Aligned::new(plan.partial_bytes());
            let mut scratch = Aligned::new(plan.scratch_bytes());
            let arguments = Arguments { partials: partials.at(), scratch: scratch.at(), ..*arguments };
            // SAFETY: all buffers have the sizes that the spec and the plan state.
            unsafe { plan.run(&arguments) };
        })
    }

    /// By loops in f64.
    pub(super) fn exact(&self, spec: &ContractSpec) -> Vec<f64> {
        let mut out = vec![7.5; out_len(spec)];
        let (code, alpha) = spec.epilogue.activation.code();
        for sum in naive(spec, &self.left, &self.right) {
            let along = |a: Option<Along>, values: &[f64], none: f64| match a {
                None => none,
                Some(Along::M) => values[sum.m],
                Some(Along::N) => values[sum.n],
            };
            let x = (sum.value + along(spec.epilogue.bias, &self.bias, 0.0))
                * along(spec.epilogue.scale, &self.scale, 1.0)
                + if spec.epilogue.residual { self.residual[sum.at] } else { 0.0 };
            out[sum.at] = activation_f64(code, alpha, x);
        }
        out
    }
}

/// Largest difference, relative to the largest value.
pub(super) fn error(actual: &[f32], exact: &[f64]) -> f64 {
    let most = exact.iter().fold(f64::MIN_POSITIVE, |most, x| most.max(x.abs()));
    let difference = actual.iter().zip(exact).map(|(a, e)| (f64::from(*a) - e).abs());
    // NaN counts as infinite.
    difference.fold(0.0, |most: f64, d| {
        if d <= most {
            most
        } else if d.is_nan() {
            f64::INFINITY
        } else {
            d
        }
    }) / most
}

/// All levels and algorithms, for a convolution or its gradient by the input.
fn check(conv: Conv, of: impl Fn(&Conv) -> ContractSpec) {
    check_by(conv, of, Data::winograd);
}

/// All levels and algorithms, with what `run` gives for one of them.
pub(super) fn check_by(
    conv: Conv,
    of: impl Fn(&Conv) -> ContractSpec,
    run: impl Fn(&Data, &ContractSpec, WinogradTile, &Kernels) -> Vec<f32>,
) {
    // Planes of one column have no algorithm by columns, as `what_does_not_fit_says_why` holds.
    for (taps, tile) in ALGORITHMS.into_iter().filter(|(taps, _)| taps.1 > 1 || conv.size.1 > 1) {
        let spec = of(&conv.with_kernel(taps));
        let data = Data::new(&spec);
        let exact = data.exact(&spec);
        for kernels in levels() {
            let found = error(&run(&data, &spec, tile, kernels), &exact);
            assert!(found < 2e-5, "{} {tile:?} {spec:?}: error {found}", kernels.level);
        }
    }
}

/// Batch, channels, outputs, size and padding.
type Sizes = (usize, usize, usize, (usize, usize), usize);

/// No multiples of a tile, a group or a block.
pub(super) const INDIVISIBLE: [Sizes; 10] = [
    (1, 1, 1, (3, 3), 0),
    (1, 1, 1, (1, 1), 1),
    (1, 2, 3, (5, 7), 1),
    (2, 3, 5, (5, 7), 0),
    (3, 5, 15, (4, 9), 2),
    (2, 17, 33, (13, 6), 1),
    (1, 4, 70, (9, 34), 1),
    (1, 40, 7, (9, 34), 1),
    (5, 3, 4, (7, 7), 1),
    (1, 6, 2, (3, 140), 1),
];

#[test]
fn sizes_that_divide_nothing() {
    for (batch, channels, outputs, size, pad) in INDIVISIBLE {
        let conv = conv(batch, channels, outputs, size, pad);
        check(conv, Conv::forward);
        check(conv, Conv::backward_data);
    }
}

/// Sizes that nobody has chosen.
#[test]
fn random_sizes() {
    let mut random = numbers(8 * 24, 9).into_iter();
    let mut below = |end: usize| (random.next().unwrap() * 1e6).abs() as usize % end;
    for _ in 0..24 {
        let size = (3 + below(14), 3 + below(40));
        let conv = conv(1 + below(3), 1 + below(36), 1 + below(50), size, below(3));
        check(conv, Conv::forward);
        check(conv, Conv::backward_data);
    }
}

#[test]
fn many_channels_and_launches_of_their_own() {
    // One block of tiles: the input is transformed once for several parts of the outputs.
    let small = conv(1, 40, 200, (8, 8), 1);
    for (taps, tile) in ALGORITHMS {
        let spec = small.with_kernel(taps).forward();
        for kernels in levels() {
            let plan = WinogradPlan::new(&spec, tile, kernels).unwrap();
            assert!(plan.input_tiles() > 1 && plan.tiles() > 1);
        }
    }
    check(small, Conv::forward);
    check(conv(2, 40, 200, (16, 16), 1), Conv::backward_data);
}

#[test]
fn epilogues() {
    let activations = [
        Activation::None,
        Activation::Relu,
        Activation::LeakyRelu(0.1),
        Activation::GeluTanh,
        Activation::Silu,
        Activation::Tanh,
        Activation::HardSigmoid,
        Activation::HardSwish,
    ];
    for activation in activations {
        let conv = conv(2, 3, 5, (6, 11), 1);
        let all = Epilogue { bias: Some(Along::M), scale: Some(Along::M), residual: true, activation };
        check(conv, |conv| ContractSpec { epilogue: all, ..conv.forward() });
        let few = Epilogue { scale: None, residual: false, ..all };
        check(conv, |conv| ContractSpec { epilogue: few, ..conv.forward() });
    }
}

#[test]
fn weights_on_the_right() {
    check(conv(2, 7, 9, (6, 5), 1), exchanged);
}

/// A convolution with its operands exchanged and a bias.
fn exchanged(conv: &Conv) -> ContractSpec {
    let mut spec = conv.forward();
    // Swaps the roles: dimension 1 (outputs) goes behind 2, 3, 4.
    std::mem::swap(&mut spec.m, &mut spec.n);
    std::mem::swap(&mut spec.left, &mut spec.right);
    spec.out_strides[1..].rotate_left(1);
    let moved = |d: usize| {
        if d == 1 {
            4
        } else if d <= 4 {
            d - 1
        } else {
            d
        }
    };
    for dim in spec.left.dims.iter_mut().chain(&mut spec.right.dims) {
        dim.terms.iter_mut().filter(|t| t.0 > 0).for_each(|t| t.0 = moved(t.0));
    }
    spec.epilogue.bias = Some(Along::N);
    spec
}

#[test]
fn tiles_in_any_split_give_the_same_bits() {
    for (taps, tile) in ALGORITHMS {
        let spec = conv(3, 20, 130, (14, 14), 1).with_kernel(taps).forward();
        for kernels in levels() {
            split_and_whole(&spec, tile, kernels);
        }
    }
}

fn split_and_whole(spec: &ContractSpec, tile: WinogradTile, kernels: &Kernels) {
    let data = Data::new(spec);
    let whole = data.winograd(spec, tile, kernels);
    let plan = WinogradPlan::new(spec, tile, kernels).unwrap();
    let split = data.run(spec, |arguments| {
        let mut partials = Aligned::new(plan.partial_bytes());
        let mut scratch = [Aligned::new(plan.scratch_bytes()), Aligned::new(plan.scratch_bytes())];
        let mut worker = |i: usize| Arguments { partials: partials.at(), scratch: scratch[i].at(), ..*arguments };
        let mut weights = Aligned::new(plan.packed_bytes());
        for panel in (0..plan.pack_tiles()).rev() {
            // SAFETY: the buffer has the plan's size and the operand is the spec's.
            unsafe {
                super::super::winograd_pack(plan.descriptor(), 0, arguments.left, weights.at(), panel, panel + 1);
            }
        }
        let workers = [0, 1].map(|i| Arguments { left: weights.at(), ..worker(i) });
        let stages = [
            (super::super::winograd_input as unsafe extern "C" fn(_, _, _, _), plan.input_tiles()),
            (super::super::winograd_tiles, plan.tiles()),
        ];
        for (stage, tiles) in stages {
            for tile in (0..tiles).rev() {
                // SAFETY: all buffers have the sizes that the spec and the plan state.
                unsafe { stage(plan.descriptor(), &raw const workers[tile as usize % 2], tile, tile + 1) };
            }
        }
    });
    assert_eq!(whole, split, "{}", kernels.level);
}

/// The bound of the documentation: error against f64, relative to the largest output.
#[test]
fn the_documented_error_holds() {
    let bounds = [(16, [3e-7, 1.5e-6, 1.5e-6]), (128, [1e-6, 3e-6, 3e-6]), (512, [1.5e-6, 5e-6, 5e-6])];
    for (channels, bounds) in bounds {
        let bounds = with_lines(bounds);
        for ((taps, tile), bound) in ALGORITHMS.into_iter().zip(bounds) {
            let spec = conv(1, channels, 6, (12, 12), 1).with_kernel(taps).forward();
            let data = Data::new(&spec);
            let exact = data.exact(&spec);
            for kernels in levels() {
                let direct = error(&data.direct(&spec, kernels), &exact);
                let found = error(&data.winograd(&spec, tile, kernels), &exact);
                let case = format!("{channels} channels, {taps:?}, {tile:?}, {}", kernels.level);
                println!("{case}: {found:.2e}, direct {direct:.2e}");
                assert!(found < bound, "{case}: {found:.2e}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_says_why() {
    let kernels = levels()[0];
    let reason = |spec: &ContractSpec| WinogradPlan::new(spec, WinogradTile::Four, kernels).unwrap_err();
    let fits = conv(2, 4, 4, (8, 8), 1);
    assert_eq!(reason(&Conv { stride: 2, ..fits }.forward()), WinogradError::Stride);
    assert_eq!(reason(&Conv { dilation: 2, ..fits }.forward()), WinogradError::Stride);
    assert_eq!(reason(&Conv { groups: 2, ..fits }.forward()), WinogradError::Groups);
    for kernel in [(1, 1), (2, 2), (3, 5), (4, 4), (7, 7)] {
        assert_eq!(reason(&Conv { kernel, pad: 3, ..fits }.forward()), WinogradError::Taps);
    }
    // There is an algorithm for this kernel, but none with these tiles.
    assert_eq!(reason(&fits.with_kernel((5, 5)).forward()), WinogradError::Taps);
    assert_eq!(reason(&fits.backward_weights()), WinogradError::Taps);
    let narrow = Conv { kernel: (3, 1), size: (8, 1), pad: 0, ..fits };
    assert_eq!(reason(&narrow.forward()), WinogradError::Form);
    let double = ContractSpec { element: super::super::Element::F64, ..fits.forward() };
    assert_eq!(reason(&double), WinogradError::Element);
    assert_eq!(reason(&super::cases::dot(1, 4, 4, 4, false, false)), WinogradError::Form);
}
