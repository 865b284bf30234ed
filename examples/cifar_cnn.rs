//! The convolutional network of every introduction, on CIFAR-10, with the Rust front end.

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
        // Integrator: `kiln::train(&module, &options)` or the like goes here.
        Ok(module) => println!("{} states, {} graphs", module.states.len(), module.graphs.len()),
        Err(faults) => print!("{}", kiln_ir::diagnostic::render_all(&faults, &|file| std::fs::read_to_string(file).ok())),
    }
}
