//! The parts of SPEC.md about scripts: layers, keys of `train`, optimizers.

use std::fmt::Write;

use super::render::list;
use super::{Constraint, layer_constraints};
use crate::layer;
use crate::model::{OPTIMIZERS, RECIPE_KEYS, STEP_KEYS};
use crate::op;

/// One section per layer, from its row in the table.
pub(super) fn layers(out: &mut String) {
    let constraints = layer_constraints();
    for entry in layer::TABLE {
        // Ops of the same name have the heading without the word.
        let _ = writeln!(out, "### Layer `{}`\n\n{}", entry.mnemonic, entry.doc.replace("\n ", "\n").trim());
        let operands: Vec<String> = entry.operands.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(out, "\n- operands: {}", operands.join(", "));
        for attribute in entry.attributes {
            let default = attribute.default.map_or("must be given".to_owned(), |text| format!("default `{text}`"));
            let _ = writeln!(out, "- attribute `{}`: {}, {default}", attribute.name, attribute.kind);
        }
        let own = |constraint: &&Constraint| constraint.label.split_once('.').is_some_and(|(l, _)| l == entry.mnemonic);
        list(out, &constraints.iter().filter(own).collect::<Vec<_>>());
        out.push('\n');
    }
}

/// The keys of `train`, those of the fit loop first.
pub(super) fn train_keys(out: &mut String) {
    let _ = writeln!(out, "| key | takes | default | meaning |\n|---|---|---|---|");
    let kept = RECIPE_KEYS.iter().map(|key| (key.name, key.kind, key.default, key.doc));
    let built = STEP_KEYS.iter().map(|key| (key.name, key.kind, key.default, key.doc));
    for (name, kind, default, doc) in kept.chain(built) {
        let default = default.map_or("must be given".to_owned(), |text| format!("`{text}`"));
        let _ = writeln!(out, "| `{name}` | {kind} | {default} | {doc} |");
    }
}

/// The optimizers with their attributes and defaults.
pub(super) fn optimizers(out: &mut String) {
    for (name, rate) in OPTIMIZERS {
        let attributes = op::entry(name).map_or(&[][..], |entry| entry.attributes);
        let mut text = vec![format!("rate = {rate}")];
        text.extend(attributes.iter().map(|a| format!("{} = {}", a.name, a.default.unwrap_or("..."))));
        let _ = writeln!(out, "- `{name} {{{}}}`", text.join(", "));
    }
}
