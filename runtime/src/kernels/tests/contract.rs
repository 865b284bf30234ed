use super::super::math::activation_f64;
use super::super::{
    Activation, Along, ContractError, ContractPlan, ContractSpec, Element, Epilogue, Kernels, Level, Packed, Side,
};
use super::cases::{Conv, dot, naive, numbers, out_len};
use super::run::{Tensors, from_bytes, levels, numbers_of, operands_of, output, run, to_bytes, with_arguments};

/// Bounds that numbers in -1..1 often exceed.
const CLAMP: Activation = Activation::Clamp { low: -0.25, high: 0.75 };

/// Runs `spec` and compares with the loops.
fn check(spec: &ContractSpec, kernels: &Kernels) {
    check_parts(spec, std::slice::from_ref(spec), kernels);
}

/// Runs `parts`, which together compute `spec`, and compares with the loops of `spec`.
fn check_parts(spec: &ContractSpec, parts: &[ContractSpec], kernels: &Kernels) {
    let [(left, left_type), (right, right_type)] = operands_of(spec);
    let of_output = |len: usize, seed: u64| numbers_of(spec.output(), len, seed);
    let [m, n] = [&spec.m, &spec.n].map(|e| e.iter().product::<usize>());
    let vector = |along: Option<Along>, seed: u64| match along {
        None => Vec::new(),
        Some(Along::M) => of_output(m, seed),
        Some(Along::N) => of_output(n, seed),
    };
    let bias = vector(spec.epilogue.bias, 3);
    let scale = vector(spec.epilogue.scale, 4);
    let len = out_len(spec);
    let residual = of_output(len, 5);
    // Elements that the contraction does not own must survive.
    let untouched = of_output(len, 6);

    let bytes = |values: &[f64]| to_bytes(values, spec.output());
    let tensors = Tensors {
        left: to_bytes(&left, left_type),
        right: to_bytes(&right, right_type),
        bias: bytes(&bias),
        scale: bytes(&scale),
        residual: bytes(&residual),
    };
    let mut out = bytes(&untouched);
    for part in parts {
        run(&ContractPlan::new(part, kernels).unwrap(), &tensors, &mut out);
    }

    let actual = from_bytes(&out, spec.output());
    let mut expected = untouched;
    let epsilon = match spec.element {
        Element::F64 => f64::EPSILON,
        Element::I32 => 0.0,
        _ => f64::from(f32::EPSILON),
    };
    // Half a unit in the last place of what is stored.
    let stored = match spec.output() {
        Element::Bf16 => 2f64.powi(-8),
        Element::F16 => 2f64.powi(-11),
        _ => 0.0,
    };
    let mut bounds = vec![0.0; len];
    let (code, alpha) = spec.epilogue.activation.code();
    for sum in naive(spec, &left, &right) {
        let pick = |along: Option<Along>, values: &[f64], none: f64| match along {
            None => none,
            Some(Along::M) => values[sum.m],
            Some(Along::N) => values[sum.n],
        };
        let mut x = sum.value + pick(spec.epilogue.bias, &bias, 0.0);
        x *= pick(spec.epilogue.scale, &scale, 1.0);
        x += if spec.epilogue.residual { residual[sum.at] } else { 0.0 };
        expected[sum.at] = activation_f64(code, alpha, x);
        bounds[sum.at] = epsilon * (16.0 + 4.0 * sum.size) + stored * expected[sum.at].abs();
    }
    for i in 0..len {
        let difference = (actual[i] - expected[i]).abs();
        let owned = if bounds[i] > 0.0 { bounds[i] } else { epsilon };
        assert!(difference <= owned, "{} {spec:?}: out[{i}] is {}, not {}", kernels.level, actual[i], expected[i],);
    }
}

pub(super) fn check_all(spec: &ContractSpec) {
    for kernels in levels() {
        check(spec, kernels);
    }
}

#[test]
fn dots_of_all_storage_orders_and_edge_sizes() {
    let sizes = [
        (1, 1, 1),
        (1, 64, 37),
        (3, 5, 7),
        (14, 32, 16),
        (15, 33, 17),
        (29, 10, 64),
        (64, 1, 50),
        (31, 97, 131),
        (32, 4, 20),
    ];
    for (m, n, k) in sizes {
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            check_all(&dot(1, m, n, k, ta, tb));
        }
    }
}

#[test]
fn batches_and_several_k_blocks() {
    check_all(&dot(3, 17, 40, 700, false, false));
    check_all(&dot(2, 40, 17, 1100, true, true));
}

#[test]
fn split_sums_are_reduced() {
    // 68 columns are panels of 32 and a narrow last one.
    for (element, n) in [(Element::F32, 24), (Element::F64, 24), (Element::F32, 68)] {
        let mut spec = dot(1, 20, n, 6000, true, false);
        spec.element = element;
        spec.epilogue =
            Epilogue { bias: Some(Along::M), residual: true, activation: Activation::Relu, ..Epilogue::default() };
        for kernels in levels() {
            let plan = ContractPlan::new(&spec, kernels).unwrap();
            assert!(plan.reduce_tiles() > 0 && plan.partial_bytes() > 0);
            check(&spec, kernels);
        }
    }
}

#[test]
fn double_precision() {
    let mut spec = dot(2, 23, 41, 67, false, true);
    spec.element = Element::F64;
    for activation in [Activation::None, Activation::LeakyRelu(0.25), CLAMP, Activation::GeluErf] {
        spec.epilogue.activation = activation;
        check_all(&spec);
    }
}

#[test]
fn column_output_swaps_the_operands() {
    let mut spec = dot(1, 40, 24, 30, false, false);
    spec.out_strides = vec![0, 1, 40];
    spec.epilogue.bias = Some(Along::N);
    spec.epilogue.scale = Some(Along::M);
    for kernels in levels() {
        assert!(ContractPlan::new(&spec, kernels).unwrap().swapped());
        check(&spec, kernels);
    }
}

/// Channels by pixels where pixels do not fill vectors: channels become lanes, and blocks are turned before the store.
#[test]
fn few_pixels_are_rows() {
    for activation in [Activation::None, Activation::Relu, Activation::LeakyRelu(0.1), CLAMP, Activation::Silu] {
        for (bias, residual) in [(None, false), (Some(Along::M), true)] {
            let mut spec = dot(1, 70, 49, 700, false, false);
            spec.packed.left = true;
            spec.epilogue = Epilogue { bias, residual, activation, ..Epilogue::default() };
            for kernels in levels() {
                let swapped = ContractPlan::new(&spec, kernels).unwrap().swapped();
                assert!(swapped || kernels.level != Level::Avx512);
                check(&spec, kernels);
            }
        }
    }
}

pub(super) const CONV: Conv = Conv {
    batch: 2,
    groups: 1,
    channels: 3,
    outputs: 5,
    size: (9, 11),
    kernel: (3, 3),
    stride: 1,
    pad: 0,
    dilation: 1,
};

fn convolutions() -> Vec<Conv> {
    vec![
        CONV,
        Conv { pad: 1, ..CONV },
        Conv { pad: 2, dilation: 2, ..CONV },
        Conv { stride: 2, pad: 1, ..CONV },
        Conv { stride: 3, pad: 1, kernel: (4, 2), ..CONV },
        Conv { groups: 3, channels: 2, outputs: 4, pad: 1, ..CONV },
        Conv { groups: 7, channels: 1, outputs: 1, pad: 1, stride: 2, ..CONV },
        Conv { batch: 1, channels: 1, outputs: 1, size: (1, 1), kernel: (1, 1), ..CONV },
        Conv { size: (5, 37), kernel: (1, 7), pad: 3, dilation: 1, ..CONV },
        Conv { batch: 3, channels: 17, outputs: 19, size: (7, 7), pad: 1, ..CONV },
        Conv { batch: 4, channels: 33, outputs: 31, size: (16, 16), pad: 1, ..CONV },
    ]
}

#[test]
fn convolutions_forward() {
    for conv in convolutions() {
        let mut spec = conv.forward();
        assert_eq!(out_len(&spec), conv.lens()[2]);
        check_all(&spec);
        spec.epilogue =
            Epilogue { bias: Some(Along::M), residual: true, activation: Activation::Relu, ..Epilogue::default() };
        check_all(&spec);
    }
}

#[test]
fn convolutions_backward_data() {
    for conv in convolutions() {
        check_all(&conv.backward_data());
    }
}

#[test]
fn phases_divide_nowhere_and_give_the_same_sums() {
    let mut divided = 0;
    for conv in convolutions() {
        let mut spec = conv.backward_data();
        spec.epilogue.bias = Some(Along::M);
        spec.epilogue.residual = true;
        let parts = spec.phases();
        assert!(parts.iter().all(|p| p.right.dims.iter().all(|d| d.divisor == 1)));
        divided += usize::from(parts.len() == conv.stride * conv.stride && conv.stride > 1);
        for kernels in levels() {
            check_parts(&spec, &parts, kernels);
        }
    }
    assert_eq!(divided, 3);
    // A 1 x 1 kernel leaves three of four phases without taps.
    let conv = Conv { stride: 2, kernel: (1, 1), ..CONV };
    for kernels in levels() {
        check_parts(&conv.backward_data(), &conv.backward_data().phases(), kernels);
    }
}

/// Weights whose terms along the sum are taps of one filter after the other, in whole groups of rows and in parts of one,
/// packed ahead and not.
#[test]
fn weights_of_phases_are_gathered() {
    for (c, kernel) in [(16, (4, 4)), (21, (4, 4)), (5, (4, 4)), (20, (3, 3)), (18, (5, 5)), (18, (4, 9))] {
        let conv = Conv { channels: c, outputs: 7, size: (9, 10), kernel, pad: 1, stride: 2, ..CONV };
        for packed in [false, true] {
            let mut spec = conv.backward_data();
            spec.packed.left = packed;
            for kernels in levels() {
                check_parts(&spec, &spec.phases(), kernels);
            }
        }
    }
}

#[test]
fn convolutions_backward_weights() {
    for conv in convolutions() {
        let spec = conv.backward_weights();
        assert_eq!(out_len(&spec), conv.lens()[1]);
        check_all(&spec);
    }
}

/// Batches of which tables hold a part: images that fill panels, and images that do so a few at a time.
#[test]
fn tables_of_a_few_images_serve_all() {
    let batches = [
        Conv { batch: 8, channels: 2, outputs: 3, size: (32, 32), pad: 1, ..CONV },
        Conv { batch: 256, channels: 2, outputs: 3, size: (7, 7), pad: 1, ..CONV },
        Conv { batch: 16, channels: 17, outputs: 2, size: (32, 33), pad: 1, stride: 2, ..CONV },
    ];
    for conv in batches {
        let mut forward = conv.forward();
        forward.epilogue.residual = true;
        for spec in [forward, conv.backward_data(), conv.backward_weights()] {
            check_all(&spec);
        }
    }
}

/// Forward convolution by the textbook loops: pins the test's own specs, which the other tests share.
#[test]
fn forward_spec_is_a_convolution() {
    let conv = Conv { stride: 2, pad: 1, groups: 2, ..CONV };
    let [x_len, w_len, y_len] = conv.lens();
    let (x, w) = (numbers(x_len, 1), numbers(w_len, 2));
    let ((h, wd), (oh, ow), (kh, kw)) = (conv.size, conv.out_size(), conv.kernel);
    let (c, o) = (conv.channels, conv.outputs);
    let mut y = vec![0.0; y_len];
    for (b, go, oy, ox) in (0..conv.batch).flat_map(|b| {
        (0..conv.groups * o).flat_map(move |go| (0..oh).flat_map(move |oy| (0..ow).map(move |ox| (b, go, oy, ox))))
    }) {
        let mut sum = 0.0;
        for ci in 0..c {
            for i in 0..kh {
                for j in 0..kw {
                    let (iy, ix) = ((oy * 2 + i).wrapping_sub(1), (ox * 2 + j).wrapping_sub(1));
                    if iy < h && ix < wd {
                        let channel = go / o * c + ci;
                        sum += x[((b * conv.groups * c + channel) * h + iy) * wd + ix]
                            * w[((go * c + ci) * kh + i) * kw + j];
                    }
                }
            }
        }
        y[((b * conv.groups * o + go) * oh + oy) * ow + ox] = sum;
    }
    for sum in naive(&conv.forward(), &w, &x) {
        assert!((y[sum.at] - sum.value).abs() < 1e-12);
    }
}

#[test]
fn every_epilogue() {
    let activations = [
        Activation::None,
        Activation::Relu,
        Activation::LeakyRelu(0.1),
        Activation::GeluTanh,
        Activation::GeluErf,
        Activation::Silu,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::HardSigmoid,
        Activation::HardSwish,
        CLAMP,
    ];
    for activation in activations {
        for (bias, scale, residual) in
            [(None, None, false), (Some(Along::M), Some(Along::N), false), (Some(Along::N), Some(Along::M), true)]
        {
            let mut spec = dot(1, 15, 37, 20, false, false);
            spec.epilogue = Epilogue { bias, scale, residual, activation };
            check_all(&spec);
            // Rows of 5 with gaps: several runs in a group.
            spec.n = vec![6, 5];
            spec.right.dims[2] = super::cases::dim(&[(2, 5), (3, 1)], 0, 37, 1);
            spec.right.dims[1].terms = vec![(4, 1)];
            spec.left.dims[2].terms = vec![(4, 1)];
            spec.out_strides = vec![700, 44, 7, 1];
            check_all(&spec);
        }
    }
}

#[test]
fn packed_operands() {
    for packed in
        [Packed { left: true, right: false }, Packed { left: false, right: true }, Packed { left: true, right: true }]
    {
        let mut specs = vec![dot(2, 31, 70, 600, false, true), CONV.forward()];
        // A weight shared by the batch is packed once.
        let mut shared = dot(3, 20, 33, 10, false, false);
        shared.left.dims.remove(0);
        specs.push(shared);
        for mut spec in specs {
            spec.packed = packed;
            check_all(&spec);
        }
    }
}

#[test]
fn shared_operand_is_packed_once() {
    let mut spec = dot(3, 20, 33, 10, false, false);
    spec.left.dims.remove(0);
    let plan = ContractPlan::new(&spec, levels()[0]).unwrap();
    assert_eq!(plan.packed_bytes(Side::Left), 20 * 10 * 4);
}

#[test]
fn empty_sum_is_the_epilogue_of_zero() {
    let mut spec = dot(1, 3, 5, 0, false, false);
    spec.left.dims.truncate(2);
    spec.right.dims.remove(1);
    spec.epilogue.bias = Some(Along::N);
    check_all(&spec);
}

#[test]
fn relu_and_clamp_keep_nan() {
    for kernels in levels() {
        for (n, activation) in [(16, Activation::Relu), (5, Activation::Relu), (16, CLAMP), (5, CLAMP)] {
            let mut spec = dot(1, 1, n, 1, false, false);
            spec.epilogue.activation = activation;
            let plan = ContractPlan::new(&spec, kernels).unwrap();
            let operand = |values: &[f64]| to_bytes(values, Element::F32);
            let tensors = Tensors { left: operand(&[f64::NAN]), right: operand(&vec![1.0; n]), ..Tensors::default() };
            let out = from_bytes(&output(&plan, &spec, &tensors), Element::F32);
            assert!(out.iter().all(|x| x.is_nan()), "{} {out:?}", plan.kernel());
        }
    }
}

#[test]
fn tiles_in_any_order_give_the_same_bits() {
    let spec = Conv { batch: 8, channels: 16, outputs: 24, size: (15, 15), ..CONV }.forward();
    bits_of_tiles_in_any_order(&spec);
}

pub(super) fn bits_of_tiles_in_any_order(spec: &ContractSpec) {
    let kernels = Kernels::for_level(super::super::detect()).unwrap();
    let plan = ContractPlan::new(spec, kernels).unwrap();
    assert!(plan.tiles() > 1);
    let tensors = Tensors::new(spec);
    let run = |backwards: bool| {
        let mut out = vec![0u8; out_len(spec) * spec.output().bytes()];
        let order: Vec<u64> = if backwards { (0..plan.tiles()).rev().collect() } else { (0..plan.tiles()).collect() };
        with_arguments(&plan, &tensors, &mut out, |arguments| {
            for tile in order {
                // SAFETY: tensors and output are the spec's, and the workspaces have the plan's sizes.
                unsafe { super::super::contract_tiles(plan.descriptor(), arguments, tile, tile + 1) };
            }
        });
        out
    };
    assert_eq!(run(false), run(true));
}

#[test]
fn malformed_specs_are_refused() {
    let kernels = levels()[0];
    let refused = |spec: &ContractSpec| ContractPlan::new(spec, kernels).unwrap_err();
    let good = dot(1, 2, 3, 4, false, false);

    let mut spec = good.clone();
    spec.left.dims[1].terms = vec![(2, 1)];
    assert_eq!(refused(&spec), ContractError::WrongDimension);
    let mut spec = good.clone();
    spec.out_strides.pop();
    assert_eq!(refused(&spec), ContractError::WrongDimension);
    let mut spec = good.clone();
    spec.left.dims[1].divisor = 0;
    assert_eq!(refused(&spec), ContractError::BadDivisor);
    let mut spec = good.clone();
    spec.left.dims[1].stride = 1 << 40;
    assert_eq!(refused(&spec), ContractError::TooLarge);
    let mut spec = good.clone();
    spec.batch = vec![5];
    assert_eq!(refused(&spec), ContractError::CheckedBatch);
    let mut spec = good;
    spec.m = vec![0];
    assert_eq!(refused(&spec), ContractError::Empty);
}
