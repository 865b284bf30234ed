//! Images of a batch as products of their own.

use super::super::apart::{apart, moved};
use super::super::spec::AffineRead;
use super::super::{Activation, Along, ContractSpec, Epilogue, Kernels, Level, Packed, Side};
use super::cases::{Conv, dot};
use super::contract::check_all;

fn conv(batch: usize, size: (usize, usize)) -> ContractSpec {
    let conv =
        Conv { batch, groups: 1, channels: 16, outputs: 24, size, kernel: (1, 1), stride: 1, pad: 0, dilation: 1 };
    ContractSpec { packed: Packed { left: true, right: false }, ..conv.forward() }
}

#[test]
fn images_become_a_dimension_of_the_batch() {
    // Loops g | o | n y x | c i j become g n | o | y x | c i j.
    let spec = conv(3, (25, 5));
    let apart = moved(&spec, Side::Right).unwrap();
    assert_eq!((apart.batch, apart.m, apart.n), (vec![1, 3], vec![24], vec![25, 5]));
    assert_eq!(apart.out_strides, [24 * 125, 24 * 125, 125, 5, 1]);
    let indices = |read: &AffineRead| read.dims.iter().map(|dim| dim.terms[0].0).collect::<Vec<_>>();
    assert_eq!([indices(&spec.right), indices(&apart.right)], [vec![2, 0, 3, 4], vec![1, 0, 3, 4]]);
    assert_eq!([indices(&spec.left), indices(&apart.left)], [vec![0, 5, 6, 7], vec![0, 5, 6, 7]]);
}

#[test]
fn planes_of_many_panels_that_end_with_one_stay_together() {
    let table = Kernels::for_level(Level::Portable).unwrap().f32;
    let is_apart = |spec: &ContractSpec| apart(spec, table).is_some();
    // 125 pixels end within a panel; 128 fill theirs, and 4 would fill no panel.
    assert!(is_apart(&conv(32, (25, 5))));
    assert!(!is_apart(&conv(32, (32, 32))) && !is_apart(&conv(32, (2, 2))));
    // Not without another dimension, and not where the other operand would be packed for each image.
    assert!(!is_apart(&dot(1, 64, 64, 64, false, false)));
    assert!(!is_apart(&ContractSpec { packed: Packed::default(), ..conv(32, (25, 5)) }));
}

/// Outputs of convolutions with packed weights against loops, whatever becomes of their images.
#[test]
fn convolutions_of_several_images_with_packed_weights() {
    let epilogue =
        Epilogue { bias: Some(Along::M), residual: true, activation: Activation::Relu, ..Epilogue::default() };
    for size in [(25, 5), (7, 7), (1, 61)] {
        for (kernel, pad, stride) in [((1, 1), 0, 1), ((3, 3), 1, 1), ((3, 2), 1, 2)] {
            let base = Conv { batch: 4, groups: 1, channels: 7, outputs: 30, size, kernel, stride, pad, dilation: 1 };
            let conv = if size.0 + 2 * pad >= kernel.0 { base } else { Conv { kernel: (1, kernel.1), ..base } };
            check_all(&ContractSpec { packed: Packed { left: true, right: false }, epilogue, ..conv.forward() });
        }
    }
}
