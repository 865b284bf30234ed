//! Every executor computes what the reference evaluator says.

use kiln_ir::builder::GraphBuilder;
use kiln_ir::graph::Graph;
use kiln_ir::op;
use kiln_ir::reference::Array;
use kiln_ir::types::{DType, TensorType};
use kiln_tests::executors::Executor;

/// Numbers in -2..2 from a small generator.
fn random(ty: TensorType, seed: u64) -> Array {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some((((state >> 40) as f64) / f64::from(1 << 22) - 2.0).into())
    };
    Array::from_numbers(ty, next).unwrap()
}

fn check(graph: &Graph, inputs: &[Array], tolerance: f64) {
    let truth = Executor::Truth.run(graph, inputs).unwrap();
    for executor in Executor::compiled() {
        let found = executor.run(graph, inputs).unwrap_or_else(|e| panic!("{executor:?}: {e}"));
        for (number, (want, have)) in truth.iter().zip(&found).enumerate() {
            let largest = want.to_f64().iter().fold(1.0f64, |m, v| m.max(v.abs()));
            for (position, (a, b)) in want.to_f64().into_iter().zip(have.to_f64()).enumerate() {
                let close = (a - b).abs() <= tolerance * largest || a == b || (a.is_nan() && b.is_nan());
                assert!(close, "{executor:?}: result {number} at {position}: {b}, not {a}");
            }
        }
    }
}

fn f32(shape: &[usize]) -> TensorType {
    TensorType::new(DType::F32, shape)
}

#[test]
fn dense_relu_softmax() {
    let b = GraphBuilder::new("g");
    let x = b.input("x", DType::F32, [5, 7]);
    let w = b.input("w", DType::F32, [7, 11]);
    let bias = b.input("b", DType::F32, [11]);
    let dot = op::Dot {
        a_contract: [1].into_iter().collect(),
        b_contract: [0].into_iter().collect(),
        a_batch: Default::default(),
        b_batch: Default::default(),
    };
    let h = b.apply(dot, &[&x, &w]);
    let h = (&h + &bias).relu();
    let y = b.apply(op::Softmax { dim: 1 }, &[&h]);
    b.returns(&[&y]);
    let graph = b.finish().unwrap();
    check(&graph, &[random(f32(&[5, 7]), 1), random(f32(&[7, 11]), 2), random(f32(&[11]), 3)], 1e-5);
}

#[test]
fn conv_pool_and_gradients() {
    let b = GraphBuilder::new("g");
    let x = b.input("x", DType::F32, [2, 3, 9, 8]);
    let w = b.input("w", DType::F32, [4, 3, 3, 3]);
    let bias = b.input("b", DType::F32, [4]);
    let ints = |v: &[i64]| v.iter().copied().collect();
    let conv = op::Conv { strides: ints(&[2, 1]), padding: ints(&[1, 1, 0, 1]), dilation: ints(&[1, 1]), groups: 1 };
    let h = b.apply(conv, &[&x, &w]);
    let h = (&h + &bias.broadcast(h.shape(), &[1])).relu();
    let pool = op::MaxPool { window: ints(&[2, 2]), strides: ints(&[2, 2]), padding: ints(&[0, 0, 0, 0]) };
    let p = b.apply_all(pool, &[&h], &["p", "place"]);
    let loss = p[0].square().sum(&[0, 1, 2, 3]);
    let grads = b.apply_all(op::GradientOf {}, &[&loss, &x, &w, &bias], &["dx", "dw", "db"]);
    b.returns(&[&loss, &p[0], &p[1], &grads[0], &grads[1], &grads[2]]);
    let graph = b.finish().unwrap();
    let inputs = [random(f32(&[2, 3, 9, 8]), 1), random(f32(&[4, 3, 3, 3]), 2), random(f32(&[4]), 3)];
    // The reference has no `gradient`: expand it first.
    let mut module = kiln_ir::Module::default();
    module.add_graph(graph);
    let mut remarks = kiln::pass::Remarks::default();
    kiln::pass::Pass::run(&kiln::autodiff::Autodiff, &mut module, &mut remarks).unwrap();
    check(module.graph("g").unwrap(), &inputs, 1e-4);
}

#[test]
fn max_pool_with_places() {
    let b = GraphBuilder::new("g");
    let x = b.input("x", DType::F32, [2, 3, 4, 6]);
    let ints = |v: &[i64]| v.iter().copied().collect();
    let pool = op::MaxPool { window: ints(&[2, 2]), strides: ints(&[2, 2]), padding: ints(&[0, 0, 0, 0]) };
    let p = b.apply_all(pool, &[&x], &["p", "place"]);
    b.returns(&[&p[0], &p[1]]);
    let graph = b.finish().unwrap();
    check(&graph, &[random(f32(&[2, 3, 4, 6]), 1)], 1e-5);
}
