//! The kit finds what it is there to find.

use kiln_ir::graph::{Graph, ValueMap};
use kiln_ir::op::{Elementwise, Op};

use super::*;
use crate::pass::each_graph;

/// Replaces one elementwise op by another.
#[derive(Debug)]
struct Swap {
    from: Elementwise,
    to: Elementwise,
    claims: Changed,
}

impl Pass for Swap {
    fn name(&self) -> &'static str {
        "swap"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        each_graph(module, remarks, |graph, _| Ok(Some(self.rewrite(graph))))?;
        Ok(self.claims)
    }
}

impl Swap {
    fn rewrite(&self, graph: &Graph) -> Graph {
        let mut next = graph.successor();
        let mut map = ValueMap::params(graph);
        for (_, data) in graph.nodes() {
            let mut copy = data.clone();
            if copy.op == Op::Elementwise(self.from) {
                copy.op = Op::Elementwise(self.to);
            }
            next.push_copy(graph, &copy, &mut map);
        }
        next.finish_copy(graph, &map);
        next
    }
}

fn refusal(text: &str, from: Elementwise, to: Elementwise, claims: Changed) -> String {
    apply(module(text, &Bindings::new()).unwrap(), &Swap { from, to, claims }).unwrap_err()
}

const ADD: &str = "graph @f(%x: f32[3], %y: f32[3]) { %z = add %x, %y return %z }";

#[test]
fn another_result_is_found() {
    let message = refusal(ADD, Elementwise::Add, Elementwise::Sub, Changed::Yes);
    assert!(message.contains("result 0, element 0"), "{message}");
}

#[test]
fn integers_are_compared_at_the_ends_of_their_range() {
    // Equal for small numbers; twice the largest wraps.
    let before = module("graph @f(%x: i32[40]) { return %x }", &Bindings::new()).unwrap();
    let text =
        "graph @f(%x: i32[40]) { %two: i32[40] = const {value = 2} %d = mul %x, %two %y = div %d, %two return %y }";
    let after = module(text, &Bindings::new()).unwrap();
    let message = check_equivalent(&before, &after).unwrap_err();
    assert!(message.contains("Special inputs: result 0"), "{message}");
}

#[test]
fn an_untrue_claim_is_found() {
    let message = refusal(ADD, Elementwise::Exp, Elementwise::Exp, Changed::Yes);
    assert!(message.contains("changed nothing"), "{message}");
    let message = refusal(ADD, Elementwise::Add, Elementwise::Mul, Changed::No);
    assert!(message.contains("`Changed::No`"), "{message}");
}

#[test]
fn a_module_that_is_not_sound_is_found() {
    let text = "graph @f(%x: f32[3]) { %z = relu %x return %z }";
    let message = refusal(text, Elementwise::Relu, Elementwise::Not, Changed::Yes);
    assert!(message.contains("not sound"), "{message}");
}

#[test]
fn bits_that_differ_only_for_special_numbers_are_named() {
    // x + 0 is not x where x is -0.0.
    let before = module("graph @f(%x: f32[64]) { return %x }", &Bindings::new()).unwrap();
    let after = module(
        "graph @f(%x: f32[64]) { %0: f32[64] = const {value = 0.0} %y = add %x, %0 return %y }",
        &Bindings::new(),
    )
    .unwrap();
    assert_eq!(check_equivalent(&before, &after), Ok(Equivalence::FiniteBits));
}

#[test]
fn a_sum_in_another_order_is_rounding() {
    let order = |text: &str| {
        module(&format!("graph @f(%x: f32[9], %y: f32[9], %z: f32[9]) {{ {text} return %b }}"), &Bindings::new())
            .unwrap()
    };
    let before = order("%a = add %x, %y %b = add %a, %z");
    let after = order("%a = add %y, %z %b = add %x, %a");
    assert_eq!(check_equivalent(&before, &after), Ok(Equivalence::Rounded));
}

#[test]
fn a_wrong_gradient_is_found() {
    let text = |gradient: &str| {
        format!("graph @f(%x: f32[3]) {{ %s = square %x %loss = reduce_sum %s {{dims = [0]}} {gradient} return %dx }}")
    };
    let before = module(&text("%dx = gradient %loss, %x"), &Bindings::new()).unwrap();
    let right = module(&text("%dx = add %x, %x"), &Bindings::new()).unwrap();
    let wrong = module(&text("%dx = square %x"), &Bindings::new()).unwrap();
    assert_eq!(check_equivalent(&before, &right), Ok(Equivalence::Derivative));
    assert!(check_equivalent(&before, &wrong).is_err());
}

#[test]
fn what_is_held_back_does_not_move_in_a_difference() {
    let text = |gradient: &str| {
        format!(
            "graph @f(%x: f32[3]) {{ %s = square %x %c = detach %s %y = mul %c, %x %loss = reduce_sum %y {{dims = [0]}} {gradient} return %d }}"
        )
    };
    let before = module(&text("%d = gradient %loss, %x"), &Bindings::new()).unwrap();
    let right = module(&text("%d = square %x"), &Bindings::new()).unwrap();
    let through = module(&text("%three: f32[3] = const {value = 3.0} %d = mul %three, %s"), &Bindings::new()).unwrap();
    assert_eq!(check_equivalent(&before, &right), Ok(Equivalence::Derivative));
    assert!(check_equivalent(&before, &through).is_err());
}

#[test]
fn a_second_derivative_is_a_difference_of_differences() {
    let text = |gradient: &str| {
        format!(
            "graph @f(%x: f32[3]) {{ %s = square %x %c = mul %s, %x %loss = reduce_sum %c {{dims = [0]}} {gradient} return %d }}"
        )
    };
    let twice = "%dx = gradient %loss, %x %sum = reduce_sum %dx {dims = [0]} %d = gradient %sum, %x";
    let before = module(&text(twice), &Bindings::new()).unwrap();
    let right = module(&text("%six: f32[3] = const {value = 6.0} %d = mul %six, %x"), &Bindings::new()).unwrap();
    assert_eq!(check_equivalent(&before, &right), Ok(Equivalence::Derivative));
}
