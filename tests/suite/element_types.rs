//! Half types and integers against PyTorch 2.15: what `num(p, q, m, s, off) = ((i p + q) mod m - off) / s` at linear
//! position `i` gives, in the type's own arithmetic on the CPU.

use kiln_ir::reference::Array;
use kiln_ir::scalar::Number;
use kiln_ir::text;
use kiln_tests::executors::Executor;

/// `(p, q, m, s, off)`.
type Formula = (i64, i64, i64, f64, i64);

fn num((p, q, m, s, off): Formula, position: usize) -> f64 {
    ((position as i64 * p + q).rem_euclid(m) - off) as f64 / s
}

/// Results of a graph on the reference evaluator and on everything compiled.
fn results(source: &str, formulas: &[Formula]) -> Vec<(Executor, Vec<f64>)> {
    let module = text::parse_module("element_types.kiln", source).unwrap();
    let (_, graph) = module.graphs.first().unwrap();
    let inputs: Vec<Array> = graph
        .params()
        .iter()
        .zip(formulas)
        .map(|(param, &formula)| {
            let ty = graph.ty(param.value).clone();
            let float = ty.dtype.is_float();
            let number = |i| {
                let value = num(formula, i);
                Some(if float { Number::Float(value) } else { Number::Int(value as i64) })
            };
            Array::from_numbers(ty, number).unwrap()
        })
        .collect();
    let mut executors = Executor::compiled();
    executors.push(Executor::Reference);
    let run = |executor: Executor| (executor, executor.run(graph, &inputs).unwrap().remove(0).to_f64());
    executors.into_iter().map(run).collect()
}

fn assert_first(source: &str, formulas: &[Formula], expected: &[f64]) {
    for (executor, found) in results(source, formulas) {
        assert_eq!(&found[..expected.len()], expected, "{executor:?}");
    }
}

const A: Formula = (7, 3, 11, 8.0, 5);
const B: Formula = (5, 1, 13, 8.0, 6);

/// `num(A) @ num(B)`: sums of eighths are exact in `f32`, so that every order gives these bits.
#[test]
fn products_of_halves() {
    let rows = [
        [1.125, -0.390625, 0.53125, -0.171875, -0.46875, 1.46875, -0.65625],
        [0.859375, 0.125, -0.40625, -0.125, 0.359375, 1.046875, -0.296875],
        [0.421875, 0.46875, -1.515625, -0.25, 1.015625, 0.453125, -0.109375],
        [-0.1875, 0.640625, -0.5625, -0.546875, 1.5, -0.3125, -0.09375],
        [-0.453125, -0.21875, 0.21875, -0.15625, 1.296875, -0.90625, -1.28125],
    ];
    for half in ["bf16", "f16"] {
        let source = format!(
            "graph @f(%a: {half}[5, 300], %b: {half}[300, 7]) {{
               %y = dot %a, %b {{a_contract = [1], b_contract = [0]}}
               return %y
             }}"
        );
        assert_first(&source, &[A, B], rows.as_flattened());
    }
}

/// `conv2d(num(A), num(B), num((1, 0, 4, 4, 1)), padding=1)` in `bf16`, the first two rows.
#[test]
fn convolution_of_bf16() {
    let source = "graph @f(%x: bf16[1, 6, 7, 7], %w: bf16[4, 6, 3, 3], %bias: bf16[4]) {
      %y = conv %x, %w {strides = [1, 1], padding = [1, 1, 1, 1], dilation = [1, 1]}
      %b: bf16[1, 4, 7, 7] = broadcast %bias {dims = [1]}
      %z = add %y, %b
      return %z
    }";
    let expected = [
        -1.515625, 1.5, 0.71875, -1.4375, 0.1875, 0.78125, -0.859375, 0.203125, -0.578125, -0.265625, -0.640625,
        -0.84375, 1.359375, -1.640625,
    ];
    assert_first(source, &[A, B, (1, 0, 4, 4.0, 1)], &expected);
}

/// `torch._int_mm` of bytes from -128 to 127: rows 0 and 39.
#[test]
fn products_of_bytes() {
    let source = "graph @f(%a: i8[40, 300], %b: i8[300, 16]) {
      %a1: i32[40, 300] = cast %a
      %b1: i32[300, 16] = cast %b
      %y = dot %a1, %b1 {a_contract = [1], b_contract = [0]}
      return %y
    }";
    let first = [
        13650.0, 3324.0, 46758.0, -16816.0, 2042.0, 55716.0, -34738.0, 16376.0, 21154.0, -37044.0, 46326.0, 2720.0,
        -89270.0, 26356.0, 15006.0, -60344.0,
    ];
    let last = [
        -85086.0, 68060.0, 31254.0, -65456.0, 50314.0, 24772.0, -34306.0, 48184.0, -26254.0, 12460.0, 61670.0,
        -80608.0, 9306.0, 25236.0, -84786.0, 21768.0,
    ];
    for (executor, found) in results(source, &[(37, 11, 256, 1.0, 128), (91, 7, 256, 1.0, 128)]) {
        assert_eq!((&found[..16], &found[39 * 16..]), (&first[..], &last[..]), "{executor:?}");
    }
}

/// `linspace(-3, 3, 13)` through functions and composites: computed in `f32`, rounded once.
#[test]
fn functions_of_halves() {
    let unary = |half: &str, op: &str| format!("graph @f(%x: {half}[13]) {{ %y = {op} return %y }}");
    let x = [(1, 0, 13, 2.0, 6)];
    let gelu = [
        -0.004058837890625,
        -0.0155029296875,
        -0.04541015625,
        -0.10009765625,
        -0.158203125,
        -0.154296875,
        0.0,
        0.345703125,
        0.83984375,
        1.3984375,
        1.953125,
        2.484375,
        3.0,
    ];
    assert_first(&unary("bf16", "gelu %x"), &x, &gelu);
    let softmax = [
        0.0009765625,
        0.00160980224609375,
        0.002655029296875,
        0.004364013671875,
        0.007232666015625,
        0.01190185546875,
        0.0196533203125,
        0.0322265625,
        0.05322265625,
        0.087890625,
        0.14453125,
        0.2392578125,
        0.39453125,
    ];
    assert_first(&unary("bf16", "softmax %x {dim = 0}"), &x, &softmax);
    let exp = [
        0.049774169921875,
        0.08209228515625,
        0.1353759765625,
        0.22314453125,
        0.367919921875,
        0.6064453125,
        1.0,
        1.6484375,
        2.71875,
        4.48046875,
        7.390625,
        12.1796875,
        20.078125,
    ];
    assert_first(&unary("f16", "exp %x"), &x, &exp);
}
