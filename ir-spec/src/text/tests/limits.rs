//! Large and hostile texts: linear time, no deep recursion. Quadratic behaviour would run for minutes here.

use std::fmt::Write;

use super::*;

#[test]
fn a_hundred_thousand_nodes() {
    let mut text = "graph @f(%x: f32[2]) {\n".to_owned();
    let mut last = "x".to_owned();
    for i in 0..100_000 {
        writeln!(text, "  %v{i}: f32[2] = relu %{last}").unwrap();
        last = format!("v{i}");
    }
    writeln!(text, "  return %{last}\n}}").unwrap();
    let parsed = module(&text);
    assert_eq!(parsed.graph("f").unwrap().nodes().len(), 100_000);
    assert_eq!(print(&parsed, &PrintOptions::default()), text);
    assert_eq!(format(&text).unwrap(), text);
}

#[test]
fn a_hundred_thousand_errors() {
    let mut text = "graph @f(%x: f32[2]) {\n".to_owned();
    for i in 0..20_000 {
        writeln!(text, "  %a{i} = relu %b{i}\n  %c{i} = rleu %x\n  %d{i} = = {{\n  %e{i} = {{ [ (").unwrap();
    }
    text.push_str("  return %x\n}\n");
    assert_eq!(findings(&text).len(), 80_000);
}

#[test]
fn many_findings_are_rendered_from_one_look_at_the_text() {
    let mut text = "graph @f(%x: f32[2]) {\n".to_owned();
    (0..50_000).for_each(|i| writeln!(text, "  %c{i} = rleu %x").unwrap());
    text.push_str("  return %x\n}\n");
    let asked = std::cell::Cell::new(0);
    let rendered = crate::diagnostic::render_all(&findings(&text), &|_| {
        asked.set(asked.get() + 1);
        Some(text.clone())
    });
    assert_eq!(asked.get(), 1);
    assert!(rendered.contains("\n50001 |   %c49999 = rleu %x\n      |             ^^^^\n"), "{}", &rendered[..400]);
}

#[test]
fn of_a_long_line_the_part_around_the_place_is_shown() {
    let text = format!("graph @f(%x: f32[2]) {{ {} %y = rleu %x return %x }}", " ".repeat(100_000));
    let rendered = findings(&text)[0].render(&|_| Some(text.clone()));
    let lines: Vec<&str> = rendered.lines().collect();
    assert_eq!(lines[3].find("rleu"), lines[4].find("^^^^"), "{rendered}");
    assert!(rendered.len() < 1000);
}

#[test]
fn deep_nesting_is_refused_once() {
    let deep = 100_000;
    for (open, close) in
        [("(", ")"), ("[", "]"), ("{a = ", "}"), ("adam {a = ", "}"), ("-", ""), ("1 + (", ")"), ("[1*", "]")]
    {
        let text = format!("train {{x = {}1{}}}", open.repeat(deep), close.repeat(deep));
        assert_eq!(places(&findings(&text)).first().map(|p| p.0), Some("syntax.depth"), "{open}");
        assert_eq!(findings(&text).len(), 1);
        let unclosed = format!("train {{x = {}", open.repeat(deep));
        assert_eq!(findings(&unclosed).len(), 1);
        let dims = format!("graph @f(%x: f32[{}1{}]) {{\n  return\n}}", open.repeat(deep), close.repeat(deep));
        assert_eq!(findings(&dims).len(), 1);
    }
    let chain = format!("train {{x = 1{}}}", " + 1".repeat(deep));
    assert_eq!(places(&findings(&chain)).first().map(|p| p.0), Some("syntax.depth"));
    assert!(format(&chain).is_err());
}

#[test]
fn chains_of_operators_within_brackets_are_as_deep_as_they_are() {
    // Each bracket adds a chain: the tree would be 200 * 200 levels high.
    let chain = " + 1".repeat(200);
    let text = format!("train {{x = {}1{}}}", "[".repeat(200), format!("]{chain}").repeat(200));
    assert_eq!(places(&findings(&text)).first().map(|p| p.0), Some("syntax.depth"));
    let text = format!("train {{x = {}1{}}}", "(".repeat(200), format!("{chain})").repeat(200));
    assert_eq!(places(&findings(&text)).first().map(|p| p.0), Some("syntax.depth"));
}

#[test]
fn deep_regions_are_refused_once() {
    let deep = 20_000;
    let mut text = "graph @f(%x: f32[2]) {\n".to_owned();
    for _ in 0..deep {
        text.push_str("%y = fused %x {kind = \"map\"} { (%x: f32[2]) ->\n");
    }
    assert_eq!(places(&findings(&text)), [("syntax.depth", 256, 41, 1)]);
    text.push_str(&"yield %x }\n".repeat(deep));
    text.push_str("return %x }");
    assert_eq!(findings(&text).len(), 1);
}

#[test]
fn nesting_below_the_limit_is_fine() {
    let mut text = "graph @f(%x: f32[2]) {\n".to_owned();
    for _ in 0..200 {
        text.push_str("%y = fused %x {kind = \"map\"} { (%x: f32[2]) ->\n");
    }
    text.push_str(&"yield %x\n}\n".repeat(200));
    text.push_str("return %x\n}\n");
    let whole = module(&text);
    assert_eq!(module(&print(&whole, &PrintOptions::default())), whole);
    let text = format!("train {{x = {}1{}}}", "(".repeat(250), ")".repeat(250));
    assert!(findings(&text).is_empty());
}

#[test]
fn polynomials_cannot_explode() {
    let names: Vec<String> = (0..40).map(|i| format!("n{i}")).collect();
    let sum = format!("({})", names.join(" + "));
    let text = format!("graph @f(%x: f32[{}]) {{\n  return\n}}", vec![sum; 40].join("*"));
    assert_eq!(places(&findings(&text)).first().map(|p| p.0), Some("type"));
}

/// Every prefix and every text with one byte changed is read without a panic.
#[test]
fn broken_texts_do_not_panic() {
    let text = "state @w: f32[2, n*2]@nc = param constant {value = -1e-3} # note
graph @f(%x: f32[2] below 7, %y: i64[]) {
  %a: f32[2], %b = fused %x, %y {kind = \"map\", l = [1, (2 + 3) % 4]} { (%p: f32[2]) -> yield %p } @a.kiln:3 @grad(%x, 0)
  return %a update @w = %b
}
block r(%x, n, s = 1) { yield %x }
train {o = adam {r = nan(0xfff8000000000000)}, \"}
";
    for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
        let _ = parse_module("t.kiln", &text[..end]);
        for change in ["{", "}", "(", "]", "%", "@", "\"", "\n", "->", "=", "9"] {
            let broken = format!("{}{change}{}", &text[..end], &text[end + 1..]);
            let _ = parse_module("t.kiln", &broken);
            if let Ok(formatted) = format(&broken) {
                assert_eq!(format(&formatted).unwrap(), formatted);
            }
        }
    }
}
