//! The convolutional network of every introduction, on CIFAR-10, with the Rust front end. Prints the module, which is
//! what `kiln train` takes:
//!
//! `cargo run --release -p kiln-tests --example cifar_cnn | cargo run --release -- train - --data cifar10.npz`

use kiln_ir::model::{Model, Optimizer, Train};
use kiln_ir::{DType, dims};

fn main() {
    let model = Model::new("cifar");
    let x = model.input("x", DType::F32, dims!["batch", 3, 32, 32]);
    let label = model.labels("label", dims!["batch"], 10);
    let h = x.conv(32, 3).relu().max_pool(2);
    let h = h.conv(64, 3).relu().max_pool(2);
    let logits = h.flatten().dense(10);
    model.predict(&logits.softmax());
    model.loss(&logits.cross_entropy(&label));
    model.metric("accuracy", &logits.accuracy(&label));
    model.train(Train::new("data/cifar10.npz", Optimizer::adam(0.001)).batch(32).epochs(10));
    match model.finish() {
        Ok(module) => print!("{}", kiln_ir::text::print(&module, &Default::default())),
        Err(faults) => {
            eprint!("{}", kiln_ir::diagnostic::render_all(&faults, &|file| std::fs::read_to_string(file).ok()))
        }
    }
}
