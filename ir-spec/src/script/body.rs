//! Statements of models and blocks.

use super::application::{INSTANCE_KEYS, InstanceName};
use super::{Expander, Root, Scope};
use crate::builder::Tensor;
use crate::model::assemble::not_reportable;
use crate::text::ast::*;
use crate::text::suggest::did_you_mean;
use crate::types::{Name, TensorType};

/// Nesting of block uses: far below the stack of a test thread.
const DEPTH_LIMIT: usize = 64;

/// Statements in all uses together: blocks that use blocks grow exponentially.
const EXPANSION_LIMIT: usize = 200_000;

impl Expander<'_> {
    /// Expands the model: inputs, then statements.
    pub(super) fn model(&mut self, model: &GraphItem) {
        let mut scope = Scope::default();
        for param in &model.params {
            param.ty.dims.iter().for_each(|dim| self.note_dimensions(dim));
        }
        for param in &model.params {
            let name = &param.name.name;
            if scope.values.contains_key(name) {
                self.fault(param.name.span, "script.S10", format!("input `%{name}` is declared twice"));
                continue;
            }
            let value = match self.ty(&scope, &param.ty) {
                Some(ty) => self.builder.param(name, ty, param.below),
                None => self.poison(),
            };
            scope.values.insert(name.clone(), value);
        }
        // One loss is called so, several have the names of their values.
        let losses = model.body.statements.iter().filter(|s| matches!(s.kind, StatementKind::Loss(_))).count();
        for statement in &model.body.statements {
            if !self.budget(statement.span) {
                return;
            }
            match &statement.kind {
                StatementKind::Define { results, value, .. } => self.define(&mut scope, results, value),
                StatementKind::Predict(value) => {
                    let root = self.root(&scope, value, None);
                    if self.predict.is_some() {
                        self.fault(statement.span, "script.S10", "`predict` is given twice");
                    }
                    self.predict = root.or(self.predict.take());
                }
                StatementKind::Loss(value) => {
                    let root = self.root(&scope, value, (losses == 1).then_some("loss"));
                    self.reportable(value, root.as_ref());
                    self.losses.extend(root);
                }
                StatementKind::Metric(value) => {
                    let root = self.root(&scope, value, None);
                    self.reportable(value, root.as_ref());
                    self.metrics.extend(root);
                }
                StatementKind::Return { .. } | StatementKind::Yield(_) => {
                    self.fault(statement.span, "script.S11", "a model neither returns nor yields")
                        .help("say what leaves it: `predict %y`, `loss %l`, `metric %m`".to_owned());
                }
            }
        }
    }

    /// A value that leaves the model: under `name`, or the value's or the callee's.
    fn root(&mut self, scope: &Scope, value: &Applied, name: Option<&str>) -> Option<Root> {
        let (Applied::Value(own) | Applied::Call(Call { callee: own, .. })) = value;
        let results = self.apply(scope, value, &[]);
        let first = results.first()?;
        if first.is_invalid() {
            return None;
        }
        let name = name.map_or_else(|| own.name.clone(), Name::from);
        let at = self.location(own.span);
        Some(Root { name, value: first.value(), at })
    }

    /// Reports here what `assemble` would only see in a model without other faults.
    fn reportable(&mut self, value: &Applied, root: Option<&Root>) {
        let Some(root) = root else { return };
        if let Some(fault) = self.builder.with_graph(|g| not_reportable(g, root)) {
            let (Applied::Value(ident) | Applied::Call(Call { callee: ident, .. })) = value;
            self.faults.push(fault.width(ident.span.width));
        }
    }

    fn define(&mut self, scope: &mut Scope, results: &[ResultItem], value: &Applied) {
        let declared: Vec<Option<TensorType>> =
            results.iter().map(|r| r.ty.as_ref().and_then(|ty| self.ty(scope, ty))).collect();
        let before = self.builder.with_graph(|g| g.value_count());
        let found = self.apply(scope, value, &declared);
        let broken = found.iter().any(Tensor::is_invalid);
        if !broken && found.len() < results.len() {
            let message = format!("{} names for {} results", results.len(), found.len());
            self.fault(results[found.len()].name.span, "script.S7", message);
        }
        for (i, result) in results.iter().enumerate() {
            let value = found.get(i).cloned().unwrap_or_else(|| self.poison());
            if !value.is_invalid() {
                if let (Some(Some(ty)), Some(written)) = (declared.get(i), &result.ty)
                    && value.ty() != *ty
                {
                    let message = format!("`%{}` is declared {ty} and is {}", result.name.name, value.ty());
                    self.fault(written.span, "script.S12", message);
                }
                // An alias keeps the name it has.
                if value.value().index() >= before {
                    let name = self.fresh_name(&result.name.name);
                    self.builder.rename(&value, &name);
                }
            }
            scope.values.insert(result.name.name.clone(), value);
        }
    }

    /// The author's name under the current blocks, with a counter from its second use on.
    fn fresh_name(&mut self, name: &str) -> Name {
        let name = self.builder.scoped(name);
        let count = self.names.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { name } else { format!("{name}.{}", *count - 1).into() }
    }

    /// Results of a value, an op, a layer or a block. `declared` are the types on the definition line.
    fn apply(&mut self, scope: &Scope, value: &Applied, declared: &[Option<TensorType>]) -> Vec<Tensor> {
        let call = match value {
            Applied::Value(ident) => return vec![self.lookup(scope, ident)],
            Applied::Call(call) => call,
        };
        self.place(call.callee.span);
        let results = match self.blocks.get(&call.callee.name).copied() {
            Some(block) => self.use_block(scope, call, block),
            None => self.apply_op(scope, call, declared),
        };
        self.collect(call.callee.span);
        results
    }

    /// Expands a block in a scope of its own.
    fn use_block(&mut self, outer: &Scope, call: &Call, block: &BlockItem) -> Vec<Tensor> {
        let (name, span) = (&block.name.name, call.callee.span);
        let poisoned = vec![self.poison(); yielded(block).max(1)];
        if self.uses.iter().any(|(other, _)| other == name) {
            let chain: Vec<&str> = self.uses.iter().map(|(n, _)| &**n).skip_while(|n| *n != &**name).collect();
            let message = format!("block `{name}` uses itself: {} -> {name}", chain.join(" -> "));
            self.fault(span, "script.S8", message).help("a model is finite; repeat the line instead".to_owned());
            return poisoned;
        }
        if self.uses.len() >= DEPTH_LIMIT {
            self.fault(span, "script.S8", format!("blocks are nested deeper than {DEPTH_LIMIT}"));
            return poisoned;
        }
        let Some(mut scope) = self.block_scope(outer, call, block) else { return poisoned };
        let instance = self.instance(outer, call);
        let builder = self.builder.clone();
        self.uses.push((name.clone(), span.line));
        let mut body = || self.block_body(&mut scope, block);
        let results = match &instance {
            InstanceName::Counted => builder.scope(&builder.next_instance(name), body),
            InstanceName::New(name) => builder.scope(name, body),
            InstanceName::Shared(name) => builder.share(name, || builder.scope(name, &mut body)).flatten(),
        };
        self.uses.pop();
        results.unwrap_or(poisoned)
    }

    /// Operands and attributes of one use.
    fn block_scope(&mut self, outer: &Scope, call: &Call, block: &BlockItem) -> Option<Scope> {
        let (name, span) = (&block.name.name, call.callee.span);
        let faults = self.faults.len();
        let mut scope = Scope::default();
        let wanted: Vec<String> = block.operands.iter().map(|operand| format!("%{}", operand.name)).collect();
        if block.operands.len() != call.operands.len() {
            let message =
                format!("block `{name}` takes ({}), {} operands were given", wanted.join(", "), call.operands.len());
            self.fault(span, "script.S6", message);
        }
        for (operand, given) in block.operands.iter().zip(&call.operands) {
            let value = self.operand_value(outer, given);
            scope.values.insert(operand.name.clone(), value);
        }
        let mut given = self.attributes(outer, call);
        for attribute in &block.attributes {
            let key = &attribute.name.name;
            let own = given.iter().position(|(name, _)| name == key).map(|i| given.swap_remove(i).1);
            let value = match (own, &attribute.default) {
                (Some(value), _) => Some(value),
                (None, Some(default)) => self.evaluate(&scope, default),
                (None, None) => {
                    self.fault(span, "script.S4", format!("block `{name}` needs the attribute `{key}`"))
                        .help(format!("add it: `{{{key} = ...}}`"));
                    None
                }
            };
            if let Some(value) = value {
                scope.attributes.insert(key.clone(), value);
            }
        }
        for (key, _) in given.iter().filter(|(key, _)| !INSTANCE_KEYS.contains(&&**key)) {
            let field = call.attributes.as_ref().and_then(|record| record.get(key));
            let help = did_you_mean(key, block.attributes.iter().map(|a| &*a.name.name));
            let message = format!("block `{name}` has no attribute `{key}`");
            self.fault(field.map_or(span, |field| field.key.span), "script.S3", message).help_if(help);
        }
        (self.faults.len() == faults).then_some(scope)
    }

    fn block_body(&mut self, scope: &mut Scope, block: &BlockItem) -> Option<Vec<Tensor>> {
        for (i, statement) in block.body.statements.iter().enumerate() {
            if !self.budget(statement.span) {
                return None;
            }
            match &statement.kind {
                StatementKind::Define { results, value, .. } => self.define(scope, results, value),
                StatementKind::Yield(values) => {
                    if let Some(next) = block.body.statements.get(i + 1) {
                        self.fault(next.span, "script.S11", "nothing follows `yield`");
                    }
                    return Some(values.iter().map(|ident| self.lookup(scope, ident)).collect());
                }
                _ => {
                    self.fault(statement.span, "script.S11", "this statement belongs into a model, not into a block")
                        .help("`yield` the value and use it there".to_owned());
                }
            }
        }
        self.fault(block.body.end, "script.S11", format!("block `{}` yields nothing", block.name.name))
            .help("end it with `yield %y`".to_owned());
        None
    }

    fn budget(&mut self, span: Span) -> bool {
        self.expanded += 1;
        if self.expanded == EXPANSION_LIMIT {
            let message = format!("the blocks expand to more than {EXPANSION_LIMIT} statements");
            self.fault(span, "script.S8", message);
        }
        self.expanded < EXPANSION_LIMIT
    }
}

fn yielded(block: &BlockItem) -> usize {
    let last = block.body.statements.iter().rev().find_map(|statement| match &statement.kind {
        StatementKind::Yield(values) => Some(values.len()),
        _ => None,
    });
    last.unwrap_or(0)
}
