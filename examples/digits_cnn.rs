//! The convolutional network of `digits_cnn.kiln` with the Rust front end: the same model, bit for bit.
//!
//! `cargo run --release -p kiln-tests --example digits_cnn`

use std::path::Path;
use std::process::ExitCode;

use kiln_ir::diagnostic::render_all;
use kiln_ir::layer::{Conv, Padding};
use kiln_ir::model::{Model, Optimizer, Train};
use kiln_ir::{DType, dims};
use kiln_rt::train::Progress;

fn main() -> ExitCode {
    let model = Model::new("digits");
    let x = model.input("x", DType::F32, dims!["batch", 1, 8, 8]);
    let label = model.labels("label", dims!["batch"], 10);
    let h = x.layer(Conv::new(32, 3).padding(Padding::Same)).relu().max_pool(2);
    let h = h.layer(Conv::new(64, 3).padding(Padding::Same)).relu().max_pool(2);
    let logits = h.flatten().dense(10);
    model.predict(&logits.softmax());
    model.loss(&logits.cross_entropy(&label));
    model.metric("accuracy", &logits.accuracy(&label));
    model.train(Train::new("data/digits.npz", Optimizer::adam(0.001)).batch(32).epochs(30));

    let module = match model.finish() {
        Ok(module) => module,
        Err(faults) => {
            eprint!("{}", render_all(&faults, &|file| std::fs::read_to_string(file).ok()));
            return ExitCode::FAILURE;
        }
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    match kiln::train(&module, &folder, &mut Progress::default()) {
        Ok(trained) => {
            println!("{} steps in {:.1} s", trained.report.steps, trained.report.seconds);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
