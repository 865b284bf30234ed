//! The convolutional network of every introduction, on CIFAR-10, with the Rust front end.

use std::path::Path;

use kiln_ir::diagnostic::render_all;
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
    let trained = model.finish().map(|module| kiln::train(&module, Path::new("examples"), 2));
    match trained {
        Ok(Ok(trained)) => println!("{}", trained.report.to_json()),
        Ok(Err(error)) => eprintln!("{error}"),
        Err(faults) => eprint!("{}", render_all(&faults, &|file| std::fs::read_to_string(file).ok())),
    }
}
