#![allow(missing_docs, clippy::unwrap_used, clippy::allow_attributes_without_reason)]
use kiln::{Options, pass::Remarks, pipeline::Pipeline};
use kiln_ir::{Bindings, script};
use std::time::Instant;
fn main() {
    println!(
        "sizes node {} value {} op {} ty {} dim {}",
        size_of::<kiln_ir::graph::NodeData>(),
        size_of::<kiln_ir::graph::ValueData>(),
        size_of::<kiln_ir::op::Op>(),
        size_of::<kiln_ir::TensorType>(),
        size_of::<kiln_ir::Dim>()
    );
    for file in std::env::args().skip(1) {
        for _ in 0..3 {
            let text = std::fs::read_to_string(&file).unwrap();
            let t = Instant::now();
            let mut times: Vec<(String, f64)> = vec![];
            let mut t0 = Instant::now();
            let mut lap = |n: &str, times: &mut Vec<(String, f64)>| {
                times.push((n.to_string(), t0.elapsed().as_secs_f64() * 1e3));
                t0 = Instant::now();
            };
            let b: Bindings = [("batch".into(), 32)].into_iter().collect();
            let mut module = script::load("x", &text, &b).unwrap();
            lap("load", &mut times);
            module.graphs.retain(|n, _| &**n == "step0");
            kiln_ir::verify::verify(&module, kiln_ir::verify::Bound::Yes);
            lap("verify", &mut times);
            let mut m2 = module.clone();
            Pipeline::standard(None)
                .run(&mut m2, &mut Remarks::default(), false, &mut |s| {
                    times.push((format!("  {}", s.pass), s.time.as_secs_f64() * 1e3));
                })
                .unwrap();
            lap("passes", &mut times);
            let g = m2.graphs.values().next().unwrap();
            println!(
                "{} nodes before, {} after",
                module.graphs.values().next().unwrap().nodes().len(),
                g.nodes().len()
            );
            let s = kiln::schedule::schedule(g);
            lap("schedule", &mut times);
            let k = kiln_rt::kernels::Kernels::for_level(kiln_rt::kernels::detect());
            let lowered: Vec<_> = s.kernels.iter().map(|x| kiln::lower::lower(g, x, k).unwrap()).collect();
            lap("lower", &mut times);
            let p = kiln::placement::place(
                g,
                &s,
                &lowered,
                &kiln::memory::Options { exact_nodes: 2000, ..Default::default() },
            )
            .unwrap();
            lap("place", &mut times);
            let nests: Vec<_> = lowered.iter().flat_map(|l| l.launches.iter().map(|(n, _)| n.clone())).collect();
            lap("clone nests", &mut times);
            let c = kiln::codegen::jit::JitCode::compile(&nests, Default::default()).unwrap();
            println!("{} nests {} distinct", nests.len(), c.kernels().len());
            lap("jit", &mut times);
            drop((p, c, nests, lowered, s, m2));
            lap("drop", &mut times);
            drop(module);
            lap("dropm", &mut times);
            let all = t.elapsed().as_secs_f64() * 1e3;
            println!("{file}: {all:.1}");
            for (n, t) in &times {
                print!("{n} {t:.2}, ");
            }
            println!();
            let _ = Options::default();
        }
    }
}
