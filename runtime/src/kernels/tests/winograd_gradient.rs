use super::super::{
    Along, Arguments, ContractSpec, Element, Epilogue, Kernels, WinogradError, WinogradGradientPlan, WinogradTile,
    winograd_gradient_input, winograd_gradient_sum, winograd_gradient_tiles,
};
use super::cases::Conv;
use super::run::levels;
use super::winograd::{ALGORITHMS, Aligned, Data, INDIVISIBLE, check_by, conv, error, with_lines};

pub(super) fn gradient(data: &Data, spec: &ContractSpec, tile: WinogradTile, kernels: &Kernels) -> Vec<f32> {
    let plan = WinogradGradientPlan::new(spec, tile, kernels).unwrap();
    data.run(spec, |arguments| {
        let mut partials = Aligned::new(plan.partial_bytes());
        let mut scratch = Aligned::new(plan.scratch_bytes());
        let arguments = Arguments { partials: partials.at(), scratch: scratch.at(), ..*arguments };
        // SAFETY: all buffers have the sizes that the spec and the plan state.
        unsafe { plan.run(&arguments) };
    })
}

/// All levels and algorithms.
fn check(conv: Conv, of: impl Fn(&Conv) -> ContractSpec) {
    check_by(conv, of, gradient);
}

/// The contraction with its operands exchanged: taps and channels become rows.
fn exchanged(mut spec: ContractSpec) -> ContractSpec {
    std::mem::swap(&mut spec.m, &mut spec.n);
    std::mem::swap(&mut spec.left, &mut spec.right);
    spec.out_strides[1..].rotate_left(1);
    let moved = |d: usize| match d {
        1 => 4,
        2..=4 => d - 1,
        _ => d,
    };
    for dim in spec.left.dims.iter_mut().chain(&mut spec.right.dims) {
        dim.terms.iter_mut().for_each(|t| t.0 = moved(t.0));
    }
    spec
}

#[test]
fn sizes_that_divide_nothing() {
    for (batch, channels, outputs, size, pad) in INDIVISIBLE {
        let conv = conv(batch, channels, outputs, size, pad);
        check(conv, Conv::backward_weights);
        check(conv, |conv| exchanged(conv.backward_weights()));
    }
}

#[test]
fn operands_ahead_in_parts_and_chunks() {
    // Several parts of outputs and channels, the last ones narrower, and chunks of which the last is shorter.
    check(conv(2, 100, 150, (6, 6), 1), Conv::backward_weights);
    check(conv(35, 8, 16, (12, 12), 1), Conv::backward_weights);
}

#[test]
fn operands_by_each_tile() {
    let wide = conv(16, 1, 130, (24, 24), 1);
    for (taps, tile) in ALGORITHMS {
        let spec = wide.with_kernel(taps).backward_weights();
        for kernels in levels() {
            let plan = WinogradGradientPlan::new(&spec, tile, kernels).unwrap();
            assert!(plan.input_tiles() == 0 && plan.sum_tiles() > 0, "{}", plan.describe());
        }
    }
    check(wide, Conv::backward_weights);
}

/// A transposed convolution's taps run the other way.
#[test]
fn turned_taps() {
    check(conv(2, 3, 5, (6, 9), 1), |conv| {
        let mut spec = conv.backward_weights();
        for (dim, tap) in [(2, 3), (3, 4)] {
            let dim = &mut spec.right.dims[dim];
            dim.terms.iter_mut().filter(|t| t.0 == tap).for_each(|t| t.1 = -1);
            dim.offset += conv.kernel.0 as i64 - 1;
        }
        spec
    });
}

#[test]
fn tiles_in_any_split_give_the_same_bits() {
    let convs = [conv(40, 20, 130, (14, 14), 1), conv(80, 2, 3, (24, 24), 1)];
    let cases = convs.into_iter().flat_map(|conv| ALGORITHMS.map(|(taps, tile)| (conv.with_kernel(taps), tile)));
    for (conv, tile) in cases {
        let spec = conv.backward_weights();
        let data = Data::new(&spec);
        for kernels in levels() {
            let plan = WinogradGradientPlan::new(&spec, tile, kernels).unwrap();
            assert!(plan.tiles() > 1 && plan.sum_tiles() + plan.input_tiles() > 0, "{}", plan.describe());
            let split = data.run(&spec, |arguments| {
                let mut partials = Aligned::new(plan.partial_bytes());
                let mut scratch = [0, 1].map(|_| Aligned::new(plan.scratch_bytes()));
                let workers = [0, 1].map(|i: usize| Arguments {
                    partials: partials.at(),
                    scratch: scratch[i].at(),
                    ..*arguments
                });
                let stages = [
                    (winograd_gradient_input as unsafe extern "C" fn(_, _, _, _), plan.input_tiles()),
                    (winograd_gradient_tiles, plan.tiles()),
                    (winograd_gradient_sum, plan.sum_tiles()),
                ];
                for (stage, tiles) in stages {
                    for tile in (0..tiles).rev() {
                        // SAFETY: all buffers have the sizes that the spec and the plan state.
                        unsafe { stage(plan.descriptor(), &raw const workers[tile as usize % 2], tile, tile + 1) };
                    }
                }
            });
            assert_eq!(gradient(&data, &spec, tile, kernels), split, "{}", kernels.level);
        }
    }
}

/// The bound of the documentation: error against f64, relative to the largest output.
#[test]
fn the_documented_error_holds() {
    let bounds = [(1, 12, [6e-7, 1.5e-6, 2.5e-6]), (16, 12, [1.2e-6, 3e-6, 7e-6]), (64, 16, [2e-6, 5e-6, 1e-5])];
    for (batch, size, bounds) in bounds {
        let bounds = with_lines(bounds);
        for ((taps, tile), bound) in ALGORITHMS.into_iter().zip(bounds) {
            let spec = conv(batch, 6, 16, (size, size), 1).with_kernel(taps).backward_weights();
            let data = Data::new(&spec);
            let exact = data.exact(&spec);
            for kernels in levels() {
                let direct = error(&data.direct(&spec, kernels), &exact);
                let found = error(&gradient(&data, &spec, tile, kernels), &exact);
                let case = format!("{batch} x {size} x {size}, {taps:?}, {tile:?}, {}", kernels.level);
                println!("{case}: {found:.2e}, direct {direct:.2e}");
                assert!(found < bound, "{case}: {found:.2e}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_says_why() {
    let kernels = levels()[0];
    let reason = |spec: &ContractSpec| WinogradGradientPlan::new(spec, WinogradTile::Four, kernels).unwrap_err();
    let fits = conv(2, 4, 4, (8, 8), 1);
    assert_eq!(reason(&Conv { stride: 2, ..fits }.backward_weights()), WinogradError::Stride);
    assert_eq!(reason(&Conv { dilation: 2, ..fits }.backward_weights()), WinogradError::Stride);
    assert_eq!(reason(&Conv { groups: 2, ..fits }.backward_weights()), WinogradError::Groups);
    assert_eq!(reason(&Conv { kernel: (3, 5), ..fits }.backward_weights()), WinogradError::Taps);
    assert_eq!(reason(&fits.with_kernel((5, 5)).backward_weights()), WinogradError::Taps);
    let double = ContractSpec { element: Element::F64, ..fits.backward_weights() };
    assert_eq!(reason(&double), WinogradError::Element);
    let mut biased = fits.backward_weights();
    biased.epilogue = Epilogue { bias: Some(Along::M), ..Epilogue::default() };
    assert_eq!(reason(&biased), WinogradError::Form);
    assert!(WinogradGradientPlan::new(&fits.forward(), WinogradTile::Four, kernels).is_err());
}
