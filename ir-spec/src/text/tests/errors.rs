//! Every class of error at its line, column and width; all of a file at once.

use super::*;

/// The only finding of a body within `graph @f(%x: f32[2, 3], %i: i32[2, 3]) {` and `return %x }`; lines count from 2.
fn finding(body: &str) -> Diagnostic {
    let errors = findings(&format!("graph @f(%x: f32[2, 3], %i: i32[2, 3]) {{\n{body}\n  return %x\n}}\n"));
    assert_eq!(errors.len(), 1, "{body}: {errors:#?}");
    errors.into_iter().next().unwrap()
}

fn check(body: &str, label: &str, place: (u32, u32, u32), part: &str) {
    let found = finding(body);
    assert_eq!(places(std::slice::from_ref(&found)), [(label, place.0, place.1, place.2)], "{found:#?}");
    let text = format!("{} {}", found.message, found.help.unwrap_or_default());
    assert!(text.contains(part), "`{part}` is not in `{text}`");
}

#[test]
fn syntax() {
    check("  %y = relu %x %x", "syntax", (2, 16, 2), "expected `,` between operands, found `%x`");
    check("  %y = relu(%x)", "syntax", (2, 12, 1), "operands without parentheses, as in `relu %x`");
    check("  %y relu %x", "syntax", (2, 6, 4), "expected `=`");
    check("  %y = relu %x,", "syntax", (3, 3, 6), "expected an operand");
    check("  relu %x", "syntax", (2, 3, 4), "name its result");
    check("  retrun %x", "syntax", (2, 3, 6), "did you mean `return`?");
    check("  %y = clamp %x {low = 0.0 high = 1.0}", "syntax", (2, 28, 4), "`,` or `}`");
    check("  %y = clamp %x {low 0.0, high = 1.0}", "syntax", (2, 22, 3), "expected `=`");
    check("  %y: f32[2, = relu %x", "syntax", (2, 14, 1), "expected an expression");
    check("  %y = clamp %x {low = 1 +, high = 1.0}", "syntax", (2, 27, 1), "expected an expression");
}

#[test]
fn characters() {
    check("  %y = relu ?%x", "syntax", (2, 13, 1), "unexpected character `?`");
    check("  %y = clamp %x {low = 1x, high = 1}", "syntax", (2, 24, 2), "not a number");
    check("  %y = clamp %x {low = 99999999999999999999, high = 1}", "syntax", (2, 24, 20), "too large for 64 bits");
    check("  %y = clamp %x {low = 9223372036854775808, high = 1}", "syntax", (2, 24, 19), "too large for 64 bits");
    check("  %y = clamp %x {low = 1e999, high = 1}", "syntax", (2, 24, 5), "too large for a binary64");
    check("  %y = dropout %x {stream = \"a\n  %z = relu %x", "syntax", (2, 29, 2), "no closing");
    check("  %y = dropout %x {stream = \"a\\qb\"}", "syntax", (2, 31, 2), "unknown escape");
    check("  %y = state @", "syntax", (2, 14, 1), "a name must follow");
}

#[test]
fn tabs_count_as_one_column_and_letters_as_one() {
    check("\t%größe = relu %nope", "name", (2, 16, 5), "%nope is not defined");
}

#[test]
fn names() {
    check("  %y = relu %xx", "name", (2, 13, 3), "did you mean `x`?");
    check("  %y = relu %x\n  %y = exp %x", "name", (3, 3, 2), "defined twice, first in line 2");
    check("  %x = relu %x", "name", (2, 3, 2), "first in line 1");
}

#[test]
fn an_undefined_value_is_reported_once_and_what_depends_on_it_is_not() {
    let found = finding("  %a = relu %nope\n  %b = exp %nope\n  %c = add %a, %b");
    assert_eq!(places(&[found]), [("name", 2, 13, 5)]);
}

#[test]
fn ops_and_attributes() {
    check("  %y = rleu %x", "op.unknown", (2, 8, 4), "did you mean `relu`?");
    check("  %y = clamp %x {lwo = 0.0, high = 1.0}", "attribute", (2, 18, 3), "did you mean `low`?");
    check(
        "  %y = clamp %x {low = 0.0}",
        "attribute",
        (2, 8, 5),
        "`clamp` needs `high`, a number its row is `clamp x {low, high}`",
    );
    check("  %y = clamp %x {low = 0.0, high = [1]}", "attribute", (2, 36, 1), "`high` is a number, not `[1]`");
    check("  %y = clamp %x {low = 0.0, low = 0.0, high = 1}", "attribute", (2, 29, 3), "given twice");
    check("  %y = relu %x {slope = 1}", "attribute", (2, 17, 5), "`relu` has no attribute `slope`");
    check("  %y = clamp %x {low = 1 / 0, high = 1}", "attribute", (2, 24, 5), "division by zero");
    check(
        "  %y = avg_pool %x {window = [1], strides = [1], padding = [0, 0], count_outside = ture}",
        "attribute",
        (2, 84, 4),
        "did you mean `true`?",
    );
    check("  %y = const {value = 1}", "type", (2, 8, 5), "needs its result type");
}

#[test]
fn counts() {
    check("  %y = add %x", "V3", (2, 8, 3), "`add` takes (a, b), 1 operands are given");
    check("  %y, %z = relu %x", "V3", (2, 12, 4), "has 1 result, 2 are named");
    check(
        "  %y = arg_max %x {dim = 1}",
        "V3",
        (2, 8, 7),
        "has 2 results, 1 is named name all of them, `%y, %index = arg_max ...`",
    );
    check("  %y = add %x, 1.0", "syntax", (2, 16, 3), "a number is not an operand");
    check("  %y = relu @w", "syntax", (2, 13, 2), "read it first");
    check("  %y = %x", "syntax", (2, 3, 2), "one name");
}

#[test]
fn types() {
    check("  %y: f32[2, 4] = relu %x", "type", (2, 7, 9), "%y is declared f32[2, 4], `relu` gives f32[2, 3]");
    check("  %y: f23[2, 3] = relu %x", "type", (2, 7, 3), "there is no element type `f23`");
    check("  %y: f32[2, 3]@nx = relu %x", "type", (2, 16, 3), "not a layout");
    check("  %y: f32[2, 3]@nchw = relu %x", "type", (2, 7, 14), "does not fit 2 dimensions");
    check("  %y: f32[1 - 3] = relu %x", "type", (2, 11, 5), "`-2` is not a size");
    check("  %y: f32[n / 2] = relu %x", "type", (2, 11, 5), "--bind n=N");
}

#[test]
fn a_constraint_of_an_op_names_the_operands() {
    let found = finding("  %y = add %x, %i");
    assert_eq!(places(std::slice::from_ref(&found)), [("elementwise.C2", 2, 8, 3)]);
    assert_eq!(found.notes, ["%x: f32[2, 3]", "%i: i32[2, 3]"]);
}

#[test]
fn items() {
    let check = |text: &str, expected: &[(&str, u32, u32, u32)]| {
        assert_eq!(places(&findings(text)), expected, "{text}");
    };
    check("grahp @f() {\n  return\n}\n", &[("syntax", 1, 1, 5)]);
    check("graph @f() {\n  return\n}\ngraph @f() {\n  return\n}", &[("name", 4, 7, 2)]);
    check("graph @f() {\n}", &[("syntax", 2, 1, 1)]);
    check("graph @f() {\n  return\n  return\n}", &[("syntax", 3, 3, 6)]);
    check("graph @f() {\n  yield\n}", &[("syntax", 2, 3, 5)]);
    check("graph @f() {\n  return\n\ngraph @g() {\n  return\n}", &[("syntax", 4, 1, 5)]);
    check("graph @f() {\n  return", &[("syntax", 2, 9, 1)]);
    check("model @f() {\n  return\n}", &[("syntax", 1, 1, 5)]);
    check("state @w: f32[2] = prm glorot", &[("name", 1, 20, 3)]);
    check("state @w: f32[2] = param glorto", &[("name", 1, 26, 6)]);
    check("state @w: f32[2] = param constant", &[("attribute", 1, 26, 8)]);
    check("state @w: f32[2] = param constant {value = same}", &[("attribute", 1, 44, 4)]);
    check("state @w: f32[2] = param constant {vale = 1}", &[("attribute", 1, 36, 4)]);
    check("state @w: f32[2] = param he\nstate @w: f32[2] = param he", &[("name", 2, 7, 2)]);
    check("train {a = 1, a = 2}", &[("attribute", 1, 15, 1)]);
    check("train {a = 1}\ntrain {a = 2}", &[("name", 2, 1, 5)]);
}

#[test]
fn all_findings_of_a_file_come_at_once() {
    let text = "state @w: f32[2] = prm he
graph @f(%x: f32[2]) {
  %a = relu %x %x
  %b = exp %a
  %c = rleu %b
  %d = clamp %x {
    low = 0.0
    high = 1.0
  }
  %e = add %d, %nope
  %f: f32[3] = exp %x
  %g = fused %f {kind 1} { (%p: f32[2]) ->
    %q = nonsense
    yield %q
  }
  return %g
}
grph @g() {
  return
}
graph @h(%x: f32[2]) {
  %y = exp %z
  return %y
}
";
    let found = findings(text);
    let lines: Vec<u32> = found.iter().map(|d| d.at.as_ref().unwrap().line).collect();
    assert_eq!(lines, [1, 3, 5, 8, 10, 11, 12, 18, 22], "{found:#?}");
}

#[test]
fn bytes_that_are_not_text() {
    let errors = parse_bytes("t.kiln", b"state @w\n \xc3\xa4 \xff").unwrap_err();
    assert_eq!(places(&errors), [("syntax", 2, 4, 1)]);
    assert!(errors[0].message.contains("0xff"));
    let errors = parse_bytes("t.kiln", b"").unwrap_err();
    assert_eq!((places(&errors), &*errors[0].message), (vec![("syntax", 1, 1, 1)], "the text is empty"));
    assert_eq!(places(&parse_bytes("t.kiln", b"\0\0\0").unwrap_err())[0], ("syntax", 1, 1, 3));
    assert!(parse_bytes("t.kiln", b" \r\n\t\n").is_err());
}

#[test]
fn carriage_returns_and_byte_order_marks_are_not_seen() {
    let unix = "graph @f(%x: f32[2]) {\n  # note\n  %y: f32[2] = relu %x\n  return %y\n}\n";
    let dos = format!("\u{feff}{}", unix.replace('\n', "\r\n"));
    assert_eq!(module(unix), module(&dos));
    assert_eq!(format(&dos).unwrap(), unix);
}
