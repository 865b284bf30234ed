//! The kit as a pass author outside of this repository uses it: the pass of the README.

use kiln::pipeline::Pipeline;
use kiln::rewrite::{Declined, Match, Patch, Pattern, Rewrite, Rules};
use kiln::{Options, assert_pass_snapshot};
use kiln_ir::Module;
use kiln_ir::builder::Tensor;
use kiln_ir::types::Bindings;

/// `x * sigmoid(x)` is `silu(x)`.
fn find_silu() -> Rules {
    Rules::one(FindSilu)
}

struct FindSilu;

impl Rewrite for FindSilu {
    fn name(&self) -> &'static str {
        "find_silu"
    }

    fn pattern(&self) -> Pattern {
        Pattern::any("x") * Pattern::op("sigmoid", [Pattern::any("x")]).named("gate")
    }

    fn apply(&self, found: &Match<'_>, patch: &Patch<'_>) -> Result<Tensor, Declined> {
        if patch.uses(found.value("gate")) > 1 {
            return Err(Declined::new("multiple_uses", "the sigmoid is needed by itself"));
        }
        Ok(patch.tensor(found.value("x")).silu())
    }
}

const GATED: &str = "graph @f(%x: f32[2, 3]) { %gate = sigmoid %x %y = mul %x, %gate return %y }";

#[test]
fn a_product_with_its_sigmoid_is_silu() {
    assert_pass_snapshot!(find_silu(), GATED, @r#"
    ## before: 2 nodes

    graph @f(%x: f32[2, 3]) {
      %gate: f32[2, 3] = sigmoid %x
      %y: f32[2, 3] = mul %x, %gate
      return %y
    }

    ## after find_silu: 1 node, 1 rewrite, same up to rounding

    graph @f(%x: f32[2, 3]) {
      %y: f32[2, 3] = silu %x
      return %y
    }

    ## remarks

    find_silu: @f %y [applied] replaced mul(x, sigmoid(x))
    "#);
}

#[test]
fn a_sigmoid_with_two_uses_stays_and_the_remark_says_why() {
    let text = "graph @f(%x: f32[3]) { %gate = sigmoid %x %y = mul %x, %gate return %y, %gate }";
    let said = kiln::testing::run_pass(text, &find_silu());
    assert!(said.contains("unchanged"), "{said}");
    assert!(said.contains("find_silu: @f %y [multiple_uses] the sigmoid is needed by itself"), "{said}");
}

#[test]
fn a_pass_of_another_crate_joins_the_pipeline() {
    let module: Module = kiln::testing::module(GATED, &Bindings::new()).unwrap();
    let pipeline = Pipeline::standard(None).with(Box::new(find_silu()), "decompose");
    let program = kiln::compile::compile_with(&module, &pipeline, &Options::default(), &mut |_| {}).unwrap();
    let ops: Vec<&str> = program.module.graphs["f"].nodes().map(|(_, data)| data.op.mnemonic()).collect();
    assert_eq!(ops, ["silu"]);
}
