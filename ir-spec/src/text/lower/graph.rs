//! Graphs and regions: statement by statement, each node checked as it is appended.

use std::collections::HashMap;

use crate::builder::diagnose;
use crate::diagnostic::Diagnostic;
use crate::graph::{Graph, Location, Provenance, Value, Values};
use crate::op::{self, Op, OpEntry, Types};
use crate::text::ast::*;
use crate::text::lower::Lowering;
use crate::text::lower::attributes::row;
use crate::text::suggest::did_you_mean;
use crate::types::{Name, TensorType};

/// Undefined names that get advice: each is compared with every name of its graph.
const ADVICE_LIMIT: usize = 16;

/// One graph under construction.
struct Scope {
    graph: Graph,
    /// `None` for a value that an error left out: its uses are not errors of their own.
    values: HashMap<Name, (Option<Value>, u32)>,
    /// Names in order, for advice that does not depend on hashes.
    names: Vec<Name>,
    undefined: usize,
}

impl Scope {
    fn new(graph: Graph) -> Scope {
        Scope { graph, values: HashMap::new(), names: Vec::new(), undefined: 0 }
    }
}

impl Lowering {
    pub(super) fn graph_item(&mut self, item: &GraphItem) {
        let name = item.name.name.clone();
        if self.module.graphs.contains_key(&name) {
            return self.error("name", item.name.span, format!("graph @{name} is declared twice"));
        }
        let mut scope = Scope::new(Graph::new(name.clone()));
        self.params(&mut scope, &item.params);
        self.body(&mut scope, &item.body, false);
        self.module.graphs.insert(name, scope.graph);
    }

    fn region(&mut self, region: &Region) -> Graph {
        let mut scope = Scope::new(Graph::default());
        self.params(&mut scope, &region.params);
        self.body(&mut scope, &region.body, true);
        scope.graph
    }

    fn params(&mut self, scope: &mut Scope, params: &[ParamItem]) {
        for param in params {
            let ty = self.ty(&param.ty);
            if self.declare(scope, &param.name) {
                let value = ty.map(|ty| scope.graph.add_param(param.name.name.clone(), ty, param.below));
                self.define(scope, &param.name, value);
            }
        }
    }

    fn body(&mut self, scope: &mut Scope, body: &Block, region: bool) {
        let mut ended = false;
        for statement in &body.statements {
            if ended {
                let end = if region { "yield" } else { "return" };
                self.error("syntax", statement.span, format!("nothing can follow `{end}`"));
                break;
            }
            match &statement.kind {
                StatementKind::Define { results, value, provenance } => {
                    self.definition(scope, statement.span, results, value, provenance);
                }
                StatementKind::Return { values, updates } if !region => {
                    ended = true;
                    self.returned(scope, values);
                    for (state, value) in updates {
                        if let Some(value) = self.resolve(scope, value) {
                            scope.graph.add_update(state.name.clone(), value);
                        }
                    }
                }
                StatementKind::Yield(values) if region => {
                    ended = true;
                    self.returned(scope, values);
                }
                StatementKind::Return { .. } => self.misplaced(statement.span, "a region ends with `yield`"),
                StatementKind::Yield(_) => self.misplaced(statement.span, "a graph ends with `return`"),
                StatementKind::Predict(_) | StatementKind::Loss(_) | StatementKind::Metric(_) => {
                    self.misplaced(statement.span, "`predict`, `loss` and `metric` belong to a `model`");
                }
            }
            ended |= matches!(statement.kind, StatementKind::Return { .. } | StatementKind::Yield(_));
        }
        // A statement that could not be read may have been the end.
        if !ended && !self.incomplete {
            let (what, word) = if region { ("region", "yield") } else { ("graph", "return") };
            self.error("syntax", body.end, format!("the {what} has no `{word}`"));
        }
    }

    fn misplaced(&mut self, span: Span, message: &str) {
        self.error("syntax", span, message);
    }

    fn returned(&mut self, scope: &mut Scope, values: &[Ident]) {
        let values: Vec<Option<Value>> = values.iter().map(|value| self.resolve(scope, value)).collect();
        scope.graph.set_returns(values.into_iter().flatten());
    }

    /// Whether the name is free; reports it otherwise.
    fn declare(&mut self, scope: &Scope, name: &Ident) -> bool {
        let first = scope.values.get(&name.name).filter(|(_, line)| *line > 0);
        if let Some((_, line)) = first {
            let message = format!("%{} is defined twice, first in line {line}", name.name);
            self.error("name", name.span, message);
        }
        first.is_none()
    }

    fn define(&mut self, scope: &mut Scope, name: &Ident, value: Option<Value>) {
        scope.values.insert(name.name.clone(), (value, name.span.line));
        scope.names.push(name.name.clone());
    }

    /// The value of a name; an undefined one is reported once.
    fn resolve(&mut self, scope: &mut Scope, name: &Ident) -> Option<Value> {
        if let Some((value, _)) = scope.values.get(&name.name) {
            return *value;
        }
        if self.lost.contains(&name.name) {
            return None;
        }
        let mut diagnostic = Diagnostic::error("name", format!("%{} is not defined", name.name));
        scope.undefined += 1;
        if scope.undefined <= ADVICE_LIMIT {
            diagnostic.help = did_you_mean(&name.name, scope.names.iter().map(|n| &**n));
        }
        self.report(diagnostic, name.span);
        scope.values.insert(name.name.clone(), (None, 0));
        None
    }

    fn definition(&mut self, scope: &mut Scope, span: Span, results: &[ResultItem], value: &Applied, origin: &Origin) {
        let declared: Vec<Option<TensorType>> =
            results.iter().map(|result| result.ty.as_ref().and_then(|ty| self.ty(ty))).collect();
        let faulty_type = results.iter().zip(&declared).any(|(result, ty)| result.ty.is_some() && ty.is_none());
        let node = match value {
            Applied::Value(_) => {
                let diagnostic = Diagnostic::error("syntax", "a value has one name in the graph form");
                self.report(diagnostic.help("use the value itself"), span);
                None
            }
            Applied::Call(call) => self.call(scope, call, &declared, results).filter(|_| !faulty_type),
        };
        let names_free: Vec<bool> = results.iter().map(|result| self.declare(scope, &result.name)).collect();
        let Some(Checked { op, operands, types, regions }) = node.filter(|_| names_free.iter().all(|free| *free))
        else {
            for (result, free) in results.iter().zip(names_free) {
                if free {
                    self.define(scope, &result.name, None);
                }
            }
            return;
        };
        let typed = results.iter().zip(types).map(|(result, ty)| (result.name.name.clone(), ty));
        let provenance = self.provenance(origin, span);
        let typed: Vec<(Name, TensorType)> = typed.collect();
        // `a = .., a = ..` on one line: the second name of a pair is not free either.
        let node = scope.graph.push(op, operands, typed, regions, provenance);
        let values = scope.graph.node(node).results.clone();
        for (i, (result, value)) in results.iter().zip(values).enumerate() {
            if results[..i].iter().any(|earlier| earlier.name.name == result.name.name) {
                self.error("name", result.name.span, format!("%{} is defined twice in this line", result.name.name));
            }
            self.define(scope, &result.name, Some(value));
        }
    }

    fn provenance(&self, origin: &Origin, span: Span) -> Provenance {
        let source = match (&origin.source, &origin.derived) {
            (Some((file, line)), _) => Some(Location { file: file.clone(), line: *line, column: 1 }),
            (None, Some(_)) => None,
            (None, None) => Some(span.location(&self.file)),
        };
        Provenance { source, derived: origin.derived.clone() }
    }

    /// A call with everything that can be checked checked; `None` after an error in it or in what it reads.
    fn call(
        &mut self,
        scope: &mut Scope,
        call: &Call,
        declared: &[Option<TensorType>],
        results: &[ResultItem],
    ) -> Option<Checked> {
        let regions: Vec<Graph> = call.regions.iter().map(|region| self.region(region)).collect();
        let operands = self.operands(scope, call);
        let Some(entry) = op::entry(&call.callee.name) else {
            let mut diagnostic = Diagnostic::error("op.unknown", format!("there is no op `{}`", call.callee.name));
            diagnostic.help = did_you_mean(&call.callee.name, op::table().map(|entry| entry.mnemonic));
            self.report(diagnostic, call.callee.span);
            return None;
        };
        let ty = declared.first().cloned().flatten().or_else(|| self.state_type(entry, call));
        let op = self.op(entry, call, ty.as_ref());
        let count = if entry.mnemonic == "state" { 0 } else { call.operands.len() };
        if !entry.takes(count) {
            let wanted = entry.operands.join(", ");
            let message = format!("`{}` takes ({wanted}), {count} operands are given", entry.mnemonic);
            self.report(Diagnostic::error("V3", message).help(row(entry)), call.callee.span);
            return None;
        }
        let (op, operands) = (op?, operands?);
        let types = self.types(scope, call, &op, &operands, &regions)?;
        if types.len() != results.len() {
            let count = |n: usize| if n == 1 { "1 result".to_owned() } else { format!("{n} results") };
            let named = if results.len() == 1 { "1 is".to_owned() } else { format!("{} are", results.len()) };
            let message = format!("`{}` has {}, {named} named", entry.mnemonic, count(types.len()));
            let names: Vec<String> = entry.results.iter().map(|name| format!("%{name}")).collect();
            let help = format!("name all of them, `{} = {} ...`", names.join(", "), entry.mnemonic);
            let error = Diagnostic::error("V3", message);
            let error = if names.len() == types.len() { error.help(help) } else { error };
            self.report(error, call.callee.span);
            return None;
        }
        let types = self.check(entry, results, declared, types);
        Some(Checked { op, operands, types, regions })
    }

    /// The declared type of the state that a `state` op without a type reads.
    fn state_type(&self, entry: &OpEntry, call: &Call) -> Option<TensorType> {
        match call.operands.as_slice() {
            [Operand::State(name)] if entry.mnemonic == "state" => {
                self.module.states.get(&name.name).map(|state| state.ty.clone())
            }
            _ => None,
        }
    }

    fn operands(&mut self, scope: &mut Scope, call: &Call) -> Option<Values> {
        let mut values: Option<Values> = Some(Values::new());
        for operand in &call.operands {
            let value = match operand {
                Operand::Value(name) => self.resolve(scope, name),
                Operand::State(_) if &*call.callee.name == "state" => continue,
                Operand::State(name) => {
                    let help = format!("read it first: `%w = state @{}`", name.name);
                    let diagnostic = Diagnostic::error("syntax", "a state is not an operand");
                    self.report(diagnostic.help(help), name.span);
                    None
                }
                Operand::Scalar(expr) => {
                    let diagnostic = Diagnostic::error("syntax", "a number is not an operand in the graph form");
                    self.report(diagnostic.help("define it: `%c: f32[] = const {value = ...}`"), expr.span);
                    None
                }
            };
            values = values.zip(value).map(|(mut values, value)| {
                values.push(value);
                values
            });
        }
        values
    }

    /// Result types by `infer`; those of a group are what its region yields.
    fn types(&mut self, scope: &Scope, call: &Call, op: &Op, operands: &[Value], regions: &[Graph]) -> Option<Types> {
        let wanted = usize::from(matches!(op, Op::Fused(_)));
        if regions.len() != wanted {
            let message = format!("`{}` has {} regions, {wanted} expected", op.mnemonic(), regions.len());
            self.error("syntax", call.callee.span, message);
            return None;
        }
        if let [region] = regions {
            return Some(region.returns().iter().map(|&value| region.ty(value).clone()).collect());
        }
        match op.spec().infer(&scope.graph.types(operands)) {
            Ok(types) => Some(types),
            Err(faults) => {
                let place = Provenance { source: Some(call.callee.span.location(&self.file)), derived: None };
                for fault in faults {
                    let diagnostic = diagnose(&scope.graph, fault, operands, &place);
                    self.errors.push(diagnostic.width(call.callee.span.width));
                }
                None
            }
        }
    }

    /// Declared against inferred types. The layout is what the line says: types do not depend on it.
    fn check(
        &mut self,
        entry: &OpEntry,
        results: &[ResultItem],
        declared: &[Option<TensorType>],
        inferred: Types,
    ) -> Types {
        let mut types = Types::new();
        for ((result, declared), inferred) in results.iter().zip(declared).zip(inferred) {
            match declared {
                Some(ty) if ty.dtype != inferred.dtype || ty.shape != inferred.shape => {
                    let span = result.ty.as_ref().map_or(result.name.span, |ty| ty.span);
                    let message =
                        format!("%{} is declared {ty}, `{}` gives {inferred}", result.name.name, entry.mnemonic);
                    self.report(
                        Diagnostic::error("type", message).help(format!("write `{inferred}`, or leave it out")),
                        span,
                    );
                    types.push(inferred);
                }
                Some(ty) => types.push(ty.clone()),
                None => types.push(inferred),
            }
        }
        types
    }
}

/// A node that can be appended.
struct Checked {
    op: Op,
    operands: Values,
    types: Types,
    regions: Vec<Graph>,
}
