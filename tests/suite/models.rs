//! The scripts of `tests/models`, written from the language's description alone, train on random data.

use std::path::Path;

use indexmap::IndexMap;
use kiln_ir::types::DType;
use kiln_rt::Tensor;
use kiln_rt::data::Dataset;
use kiln_rt::executable::Binding;
use kiln_rt::kernels::{Level, detect};
use kiln_rt::philox::Philox;
use kiln_tests::training::{Training, elements};

const EXAMPLES: usize = 40;
/// Five times the four batches that are left beside the held out examples.
const STEPS: u64 = 20;

/// In -2..2.
fn uniform(position: u64) -> f32 {
    Philox::new(7).block(position)[0] as f32 / (1u32 << 30) as f32 - 2.0
}

/// Random numbers for the first input; for the others the sign of their sum.
fn data(inputs: &[Binding]) -> Dataset {
    let mut arrays = IndexMap::new();
    let mut signs: Vec<bool> = Vec::new();
    for (number, input) in inputs.iter().enumerate() {
        let mut extents = input.ty.extents();
        extents[0] = EXAMPLES;
        let row: usize = extents[1..].iter().product();
        let tensor = match (input.ty.dtype, number) {
            (DType::F32, 0) => {
                let values: Vec<f32> = (0..EXAMPLES * row).map(|at| uniform(at as u64)).collect();
                signs = values.chunks(row).map(|row| row.iter().sum::<f32>() > 0.0).collect();
                Tensor::from_vec(&extents[..], values).unwrap()
            }
            (DType::F32, _) => {
                let target = |sign: &bool| std::iter::repeat_n(f32::from(u8::from(*sign)), row);
                Tensor::from_vec(&extents[..], signs.iter().flat_map(target).collect()).unwrap()
            }
            (DType::I64, _) => {
                Tensor::from_vec(&extents[..], signs.iter().map(|&sign| i64::from(sign)).collect::<Vec<_>>()).unwrap()
            }
            (other, _) => panic!("no data of {other}"),
        };
        arrays.insert(input.name.to_string(), tensor);
    }
    Dataset::new("random data", arrays, inputs).unwrap()
}

fn trains(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(format!("{name}.kiln"));
    let text = std::fs::read_to_string(path).unwrap();
    let run = |level, threads| {
        let training = Training { name: name.to_owned(), text: text.clone(), level, threads };
        let data = data(&training.inputs("step0", 8).unwrap_or_else(|error| panic!("{error}")));
        let (session, report) = training.train(&data, None, STEPS).unwrap_or_else(|error| panic!("{error}"));
        let prediction = training.predict(&session, &data, &[3, 1, 4]).unwrap_or_else(|error| panic!("{error}"));
        (report.losses(), elements(&prediction))
    };
    let (losses, prediction) = run(detect(), 2);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[16..]) < 0.95 * mean(&losses[..4]), "{name} does not learn: {losses:?}");

    let (plain, plain_prediction) = run(Level::None, 1);
    let pairs = losses.iter().zip(&plain).chain(prediction.iter().zip(&plain_prediction));
    for (place, (found, without)) in pairs.enumerate() {
        let close = (found - without).abs() <= 1e-4 * without.abs().max(1e-2);
        assert!(close, "{name}: {found} with micro-kernels, {without} without, at {place}");
    }
    assert_eq!(prediction.len(), plain_prediction.len());
}

#[test]
fn stacks_of_convolutions() {
    trains("vgg");
}

#[test]
fn bottleneck_blocks() {
    trains("resnet");
}

#[test]
fn mixed_tokens_and_channels() {
    trains("mixer");
}

#[test]
fn autoencoder() {
    trains("autoencoder");
}

#[test]
fn yes_or_no() {
    trains("binary");
}

#[test]
fn two_towers_of_one_weight() {
    trains("siamese");
}
