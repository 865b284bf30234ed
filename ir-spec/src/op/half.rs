//! `bf16` and `f16` hold numbers; ops compute in `f32` and round each result once.

use crate::body::{Body, Combine, Map};
use crate::builder::GraphBuilder;
use crate::graph::{Graph, ValueMap};
use crate::op::Op;
use crate::scalar::{ScalarExpr, ScalarNode};
use crate::types::TensorType;

impl Op {
    /// The meaning, for bound types that `infer` accepted: that of [`OpSpec::body`](super::OpSpec::body), but that nothing
    /// is computed in a half type.
    pub fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let body = || self.spec().body(operands, results);
        if !operands.iter().chain(results).any(|ty| ty.dtype.is_half()) {
            return body();
        }
        match body() {
            Body::Map(map) => Body::Map(in_f32(map)),
            Body::Composite(_) => {
                let wide = |types: &[TensorType]| types.iter().map(computed).collect::<Vec<_>>();
                match self.spec().body(&wide(operands), &wide(results)) {
                    Body::Composite(graph) => Body::Composite(Box::new(between_casts(&graph, operands, results))),
                    other => other,
                }
            }
            Body::Scatter(mut scatter) => {
                scatter.expr = widened(&scatter.expr);
                Body::Scatter(scatter)
            }
            other => other,
        }
    }
}

fn computed(ty: &TensorType) -> TensorType {
    TensorType { dtype: ty.dtype.computed(), ..ty.clone() }
}

/// The same map with expressions in `f32`; what only moves elements stays as it is.
fn in_f32(mut map: Map) -> Map {
    let moves = |expr: &ScalarExpr| matches!(expr.node(), ScalarNode::Read(_) | ScalarNode::Literal(_));
    for expr in &mut map.exprs {
        if map.combine != Combine::None || !moves(expr) {
            *expr = widened(expr);
        }
    }
    map
}

fn widened(expr: &ScalarExpr) -> ScalarExpr {
    let dtype = expr.dtype();
    match expr.node() {
        ScalarNode::Read(read) => ScalarExpr::read(*read, dtype).cast(dtype.computed()),
        ScalarNode::Literal(value) => ScalarExpr::literal(*value, dtype.computed()),
        ScalarNode::Index(_) => expr.clone(),
        ScalarNode::Unary(f, x) => widened(x).unary(*f),
        ScalarNode::Binary(f, a, b) => widened(a).binary(*f, widened(b)),
        ScalarNode::Compare(f, a, b) => widened(a).compare(*f, widened(b)),
        ScalarNode::Select(condition, a, b) => widened(condition).select(widened(a), widened(b)),
        ScalarNode::Cast(x) => widened(x).cast(dtype.computed()),
        ScalarNode::Philox { key, counter, position } => ScalarExpr::philox(*key, widened(counter), widened(position)),
    }
}

/// The graph of a composite over `f32` as one over the types of `operands` and `results`.
fn between_casts(graph: &Graph, operands: &[TensorType], results: &[TensorType]) -> Graph {
    let builder = GraphBuilder::new(graph.name());
    let mut map = ValueMap::empty(graph);
    for (param, ty) in graph.params().iter().zip(operands) {
        let name = graph.value_name(param.value);
        let operand = builder.param(name, ty.clone(), param.below);
        map.set(param.value, operand.cast(graph.ty(param.value).dtype).value());
    }
    for (_, data) in graph.nodes() {
        builder.with_graph_mut(|built| built.push_copy(graph, data, &mut map));
    }
    let cast = |(&value, ty): (_, &TensorType)| builder.tensor(map.get(value)).cast(ty.dtype);
    let returns: Vec<_> = graph.returns().iter().zip(results).map(cast).collect();
    builder.returns(&returns.iter().collect::<Vec<_>>());
    // Casts of known values have no faults.
    builder.finish().unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use crate::reference::Evaluator;
    use crate::types::DType;

    /// What an op of one line makes of numbers.
    fn value(text: &str, numbers: &[f64]) -> Vec<f64> {
        let source = format!("graph @f(%x: bf16[{}]) {{\n  %y = {text}\n  return %y\n}}\n", numbers.len());
        let module = crate::text::parse_module("half.kiln", &source).unwrap();
        let graph = module.graph("f").unwrap();
        let ty = graph.ty(graph.params()[0].value).clone();
        let array = crate::reference::Array::from_numbers(ty, |i| Some(numbers[i].into())).unwrap();
        let outcome = Evaluator::native().evaluate(graph, &[array], &|_| None).unwrap();
        outcome.returns[0].to_f64()
    }

    /// `torch.ones(1000, dtype=torch.bfloat16).sum()` is 1000; added one by one in `bf16` it would end at 256.
    #[test]
    fn sums_of_halves_are_rounded_once() {
        assert_eq!(value("reduce_sum %x {dims = [0]}", &[1.0; 1000]), [1000.0]);
    }

    /// `torch.nn.functional.gelu(torch.tensor([1.5, -0.75], dtype=torch.bfloat16))`
    #[test]
    fn a_formula_is_rounded_once() {
        assert_eq!(value("gelu %x", &[1.5, -0.75]), [1.398_437_5, -0.169_921_875]);
    }

    /// `torch.softmax(torch.tensor([1., 2., 3.], dtype=torch.bfloat16), 0)`
    #[test]
    fn a_composite_computes_in_f32() {
        assert_eq!(value("softmax %x {dim = 0}", &[1.0, 2.0, 3.0]), [0.089_843_75, 0.245_117_187_5, 0.664_062_5]);
    }

    #[test]
    fn dtypes_compute_in_themselves_but_halves() {
        assert_eq!((DType::Bf16.computed(), DType::I8.computed()), (DType::F32, DType::I8));
    }
}
