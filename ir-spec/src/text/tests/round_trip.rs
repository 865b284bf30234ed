//! `print(parse(s)) == s` and `parse(print(m)) == m`.

use super::*;
use crate::attribute::{AttrValue, Literal};
use crate::graph::{Graph, Provenance};
use crate::module::{Initializer, Recipe, Role, State};
use crate::op::{self, Elementwise, Op};
use crate::scalar::Number;
use crate::types::{DType, Dim, Shape, TensorType};

const CANONICAL: &[&str] = &[
    "graph @f(%x: f32[2, 3]) {\n  %y: f32[2, 3] = relu %x\n  return %y\n}\n",
    "graph @none() {\n  return\n}\n",
    r#"state @conv1.w: f32[32, 1, 3, 3] = param glorot
state @step: i64[] = counter constant {value = 0}
state @b: f32[8] = param uniform {low = -0.5, high = 0.5}
state @m: f32[8] = moment normal {mean = 0.0, deviation = 1e-7}
state @s: f32[8] = statistic fan_in {fan = 12}
state @h: f32[8, 8] = param he

graph @step0(%x: f32[batch, 8, seq*2 - 1], %label: i64[batch] below 10) {
  %w: f32[32, 1, 3, 3] = state @conv1.w
  %x.2: f32[batch, 8, seq*2 - 1] = add %x, %x
  %0: f32[batch, 8, seq*2 - 1] = mul %x.2, %x
  %c: f32[] = const {value = 0.1}
  %d: f64[] = const {value = 0.1}
  %dense: i32[3] = const {value = [1, -2, 3]}
  %step: i64[] = state @step
  return %0, %c update @step = %step, @conv1.w = %w
}

graph @eval(%y: f32[batch*batch*4 + 1]) {
  return %y
}

train {step = @step0, data = "data/digits.npz", batch = 32, optimizer = adam {rate = 0.001}, shuffle = true}

weights {conv1.w = "net.0.weight", b = "fc \"b\"\n" transposed}
"#,
    r#"graph @g(%x: f32[4, 16, 8, 8]@nChw16c, %w: f32[4, 16, 8, 8]@nhwc) {
  %y: f32[4, 16, 8, 8]@nChw16c = fused %x, %w {kind = "map"} { (%a: f32[4, 16, 8, 8]@nChw16c, %k: f32[4, 16, 8, 8]@nhwc) ->
    %1: f32[4, 16, 8, 8]@nChw16c = add %a, %k
    %2: f32[4, 16, 8, 8]@nChw16c = relu %1
    yield %2
  }
  return %y
}
"#,
    r#"graph @pool(%x: f32[1, 1, 4, 4]) {
  %y: f32[1, 1, 2, 2], %place: i32[1, 1, 2, 2] = max_pool %x {window = [2, 2], strides = [2, 2], padding = [0, 0, 0, 0]}
  return %y, %place
}
"#,
];

#[test]
fn canonical_text_prints_as_it_was() {
    for text in CANONICAL {
        assert_eq!(print(&module(text), &PrintOptions::default()), *text);
    }
}

#[test]
fn canonical_text_is_formatted() {
    for text in CANONICAL {
        let formatted = format(text).unwrap();
        assert_eq!(formatted, *text);
    }
}

#[test]
fn types_and_provenance_are_optional() {
    let long = "graph @f(%x: f32[2]) {\n  %y: f32[2] = relu %x\n  return %y\n}\n";
    let short = "graph @f(%x: f32[2]) { %y = relu %x return %y }";
    assert_eq!(module(short), module(long));
    let told = "graph @f(%x: f32[2]) {\n  %y: f32[2] = relu %x @digits.kiln:12 @grad(%x, 0)\n  return %y\n}\n";
    assert_eq!(module(told), module(long));
    assert_eq!(print(&module(told), &PrintOptions { provenance: true }), told);
    let derived = "graph @f(%x: f32[2]) {\n  %y: f32[2] = relu %x @\"a \\\"b(\"\n  return %y\n}\n";
    assert_eq!(print(&module(derived), &PrintOptions { provenance: true }), derived);
    let file = "graph @f(%x: f32[2]) {\n  %y: f32[2] = relu %x @\"my file.kiln\":3\n  return %y\n}\n";
    assert_eq!(print(&module(file), &PrintOptions { provenance: true }), file);
}

#[test]
fn the_type_of_a_state_read_may_be_left_out() {
    let text = "graph @f() {\n %w = state @w\n return %w\n}\nstate @w: f32[3] = param he";
    let parsed = module(text);
    let graph = parsed.graph("f").unwrap();
    assert_eq!(graph.ty(graph.returns()[0]), &TensorType::new(DType::F32, [3]));
}

#[test]
fn values_keep_their_places() {
    let text = "graph @f(%x: f32[2]) {\n  %y: f32[2] = relu %x\n  return %y\n}\n";
    let parsed = module(text);
    let (_, node) = parsed.graph("f").unwrap().nodes().next().unwrap();
    assert_eq!(node.provenance.source.as_ref().unwrap().to_string(), "t.kiln:2:3");
}

/// Every elementwise op of the table, on operands its domain takes.
#[test]
fn every_elementwise_op_survives() {
    for &op in Elementwise::ALL {
        let entry = op.entry();
        let dtype = [DType::F32, DType::I32, DType::Bool].into_iter().find(|&dtype| {
            let mut types = vec![TensorType::new(dtype, [2, 3]); entry.operands.len()];
            if op == Elementwise::Select {
                types[0].dtype = DType::Bool;
            }
            op::OpSpec::infer(&op, &types).is_ok()
        });
        let mut graph = Graph::new("f");
        let mut values = Vec::new();
        let mut types = Vec::new();
        for (i, name) in entry.operands.iter().enumerate() {
            let dtype = if op == Elementwise::Select && i == 0 { DType::Bool } else { dtype.unwrap() };
            types.push(TensorType::new(dtype, [2, 3]));
            values.push(graph.add_param(*name, TensorType::new(dtype, [2, 3]), None));
        }
        let ty = op::OpSpec::infer(&op, &types).unwrap().remove(0);
        let node = graph.push(op.into_op(), values, [("out".into(), ty)], Vec::new(), Provenance::default());
        let result = graph.node(node).results[0];
        graph.set_returns([result]);
        survives(graph);
    }
}

trait IntoOp {
    fn into_op(self) -> Op;
}

impl IntoOp for Elementwise {
    fn into_op(self) -> Op {
        Op::Elementwise(self)
    }
}

fn survives(graph: Graph) {
    let mut whole = Module::default();
    whole.add_graph(graph);
    module_survives(&whole);
}

fn module_survives(whole: &Module) {
    for provenance in [false, true] {
        let text = print(whole, &PrintOptions { provenance });
        assert_eq!(&module(&text), whole, "{text}");
        assert_eq!(print(&module(&text), &PrintOptions::default()), print(whole, &PrintOptions::default()));
    }
    let text = print(whole, &PrintOptions::default());
    assert_eq!(format(&text).unwrap(), text);
}

fn constant(ty: &TensorType, value: Literal) -> Graph {
    let mut graph = Graph::new("f");
    let op = op::Const { ty: ty.clone(), value };
    let node = graph.push(op.into(), [], [("c".into(), ty.clone())], Vec::new(), Provenance::default());
    let result = graph.node(node).results[0];
    graph.set_returns([result]);
    graph
}

#[test]
fn floats_read_back_bit_equal() {
    let odd = [
        0.0,
        -0.0,
        1.0,
        0.1,
        1e300,
        -5e-324,
        f64::MAX,
        f64::MIN_POSITIVE,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        -f64::NAN,
        f64::from_bits(0x7ff8_0000_0000_0001),
        1.0 / 3.0,
        1e16,
        123_456_789_012_345_680.0,
    ];
    let wide = TensorType::new(DType::F64, [odd.len()]);
    survives(constant(&wide, Literal::Dense(odd.iter().map(|&v| Number::Float(v)).collect())));
    // Bit patterns spread over the range of f32: the printer uses the digits that f32 needs.
    let mut bits: u32 = 1;
    let mut narrow = Vec::new();
    for _ in 0..2000 {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let value = f32::from_bits(bits);
        if !value.is_nan() {
            narrow.push(Number::Float(f64::from(value)));
        }
    }
    survives(constant(&TensorType::new(DType::F32, [narrow.len()]), Literal::Dense(narrow.into())));
}

#[test]
fn integers_read_back_up_to_the_limits() {
    let numbers = [i64::MIN, -1, 0, i64::MAX].map(Number::Int);
    survives(constant(&TensorType::new(DType::I64, [4]), Literal::Dense(numbers.into())));
    survives(constant(&TensorType::new(DType::Bool, [2]), Literal::Splat(Number::Int(1))));
}

#[test]
fn literals_take_the_declared_element_type() {
    let text = "graph @f() {\n  %c: f32[2] = const {value = 1}\n  %d: i32[] = const {value = 2.0}\n  %b: bool[] = const {value = true}\n  return %c, %d, %b\n}\n";
    let printed = print(&module(text), &PrintOptions::default());
    assert!(printed.contains("%c: f32[2] = const {value = 1.0}"), "{printed}");
    assert!(printed.contains("%d: i32[] = const {value = 2}"), "{printed}");
    assert!(printed.contains("%b: bool[] = const {value = 1}"), "{printed}");
}

#[test]
fn odd_names_are_quoted() {
    let mut graph = Graph::new("my graph");
    let ty = TensorType::new(DType::F32, [2]);
    let x = graph.add_param("an input", ty.clone(), Some(u64::MAX));
    let y = graph.add_param("größe", ty.clone(), None);
    let z = graph.add_param("", ty, None);
    graph.set_returns([x, y, z]);
    graph.add_update("net/0-weight", x);
    graph.add_update("quote\"\\\n\u{1}", y);
    let mut whole = Module::default();
    whole.add_graph(graph);
    let recipe = Recipe {
        entries: [
            ("step".into(), AttrValue::Word("@my graph".into())),
            ("seed".into(), AttrValue::Int(-3)),
            ("note".into(), AttrValue::Text("tab\t\"x\" 日本 \u{7f}".into())),
            (
                "nested".into(),
                AttrValue::List(vec![AttrValue::Record("".into(), vec![("a".into(), AttrValue::Bool(true))])]),
            ),
        ]
        .into_iter()
        .collect(),
    };
    whole.recipe = Some(recipe);
    module_survives(&whole);
}

#[test]
fn layouts_and_polynomials_survive() {
    let dim = Dim::named("n").mul(&Dim::named("n")).unwrap().offset(-3).unwrap();
    let minus = Dim::named("seq").mul(&Dim::named("batch")).unwrap().add(&Dim::from(7)).unwrap();
    let shape: Shape = [dim, minus, Dim::from(16), Dim::from(5)].into_iter().collect();
    for text in ["nchw", "nhwc", "nChw16c", "Nchw8n", "wchn"] {
        let layout = crate::text::parser::layout(text).unwrap();
        assert_eq!(layout.to_string(), text);
        let mut graph = Graph::new("f");
        let ty = TensorType { dtype: DType::Bf16, shape: shape.clone(), layout };
        let x = graph.add_param("x", ty, None);
        graph.set_returns([x]);
        survives(graph);
    }
}

#[test]
fn every_role_and_initialiser_survives() {
    let inits = [
        Initializer::Constant(-0.0),
        Initializer::Uniform { low: -1e-9, high: 3.0 },
        Initializer::Normal { mean: 0.0, deviation: f64::INFINITY },
        Initializer::Glorot,
        Initializer::He,
        Initializer::FanIn(1 << 40),
        Initializer::Seed,
    ];
    let mut whole = Module::default();
    for role in Role::ALL {
        for (i, init) in inits.iter().enumerate() {
            let ty = TensorType::new(DType::F32, [3]);
            let state = State { ty, role, init: init.clone(), source: None };
            whole.states.insert(format!("{}.{i}", role.name()).into(), state);
        }
    }
    module_survives(&whole);
}

#[test]
fn the_empty_module_and_the_empty_recipe_survive() {
    module_survives(&Module::default());
    module_survives(&Module { recipe: Some(Recipe::default()), ..Module::default() });
}

#[test]
fn nested_regions_survive() {
    let text = "graph @f(%x: f32[2]) {
  %y: f32[2] = fused %x {kind = \"map\"} { (%a: f32[2]) ->
    %b: f32[2] = fused %a {kind = \"row\"} { (%c: f32[2]) ->
      %d: f32[2] = exp %c
      yield %d
    }
    %e: f32[2] = relu %b
    yield %e
  }
  return %y
}
";
    assert_eq!(print(&module(text), &PrintOptions::default()), text);
    module_survives(&module(text));
}

#[test]
fn one_node_prints_alone() {
    let parsed = module(CANONICAL[0]);
    let graph = parsed.graph("f").unwrap();
    let (_, node) = graph.nodes().next().unwrap();
    assert_eq!(print_node(graph, node, &PrintOptions::default()), "%y: f32[2, 3] = relu %x");
}
