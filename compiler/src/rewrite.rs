//! Local rewrites: a pattern in operator syntax, a guard that declines with a reason, and the nodes that replace a match.
//!
//! ```
//! use kiln::rewrite::Pattern;
//!
//! // max(x, 0) + y, whatever y is.
//! let x = Pattern::any("x");
//! let pattern = Pattern::op("relu", [x]).named("relu") + Pattern::any("y");
//! assert_eq!(pattern.to_string(), "add(relu(x), y)");
//! ```
//!
//! A rule is a [`Rewrite`]; [`Rules`] makes a pass of several. The sweep goes through each graph in program order and
//! writes its successor, so a rule sees the results of rules before it only in the next round; a round that changes
//! nothing ends the pass.

use std::fmt;
use std::ops::{Add, Div, Mul, Sub};

use kiln_ir::builder::{GraphBuilder, Tensor};
use kiln_ir::graph::{Graph, NodeData, Provenance, Value, ValueMap};
use kiln_ir::types::Name;
use kiln_ir::{Diagnostic, Module};

use crate::pass::{Changed, Pass, Remark, Remarks};

/// Rounds after which a set of rules that still changes something is a defect of the rules.
const MOST_ROUNDS: usize = 32;

/// What a node and the nodes behind it must look like.
#[derive(Clone, Debug)]
pub struct Pattern {
    op: Option<(&'static str, Vec<Pattern>)>,
    name: Option<&'static str>,
}

impl Pattern {
    /// Any value, captured under a name.
    pub fn any(name: &'static str) -> Pattern {
        Pattern { op: None, name: Some(name) }
    }

    /// The first result of an op with these operands.
    pub fn op(mnemonic: &'static str, operands: impl IntoIterator<Item = Pattern>) -> Pattern {
        Pattern { op: Some((mnemonic, operands.into_iter().collect())), name: None }
    }

    /// Captures the matched value under a name.
    pub fn named(self, name: &'static str) -> Pattern {
        Pattern { name: Some(name), ..self }
    }

    /// Matches at a value.
    pub fn matches<'a>(&self, graph: &'a Graph, value: Value) -> Option<Match<'a>> {
        let mut found = Match { graph, captures: Vec::new() };
        self.collect(value, &mut found).then_some(found)
    }

    fn collect(&self, value: Value, found: &mut Match<'_>) -> bool {
        if let Some(name) = self.name {
            if found.captures.iter().any(|(n, v)| *n == name && *v != value) {
                return false;
            }
            found.captures.push((name, value));
        }
        let Some((mnemonic, operands)) = &self.op else { return true };
        let Some((_, data)) = found.graph.producer(value) else { return false };
        let same = data.op.mnemonic() == *mnemonic && data.results[0] == value && data.operands.len() == operands.len();
        same && operands.iter().zip(data.operands.clone()).all(|(pattern, v)| pattern.collect(v, found))
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $mnemonic:literal),*) => {
        $(impl $trait for Pattern {
            type Output = Pattern;
            fn $method(self, other: Pattern) -> Pattern {
                Pattern::op($mnemonic, [self, other])
            }
        })*
    };
}

operators! { Add add "add", Sub sub "sub", Mul mul "mul", Div div "div" }

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.op {
            None => f.write_str(self.name.unwrap_or("_")),
            Some((mnemonic, operands)) => {
                let operands: Vec<String> = operands.iter().map(ToString::to_string).collect();
                write!(f, "{mnemonic}({})", operands.join(", "))
            }
        }
    }
}

/// A place where a pattern fits.
#[derive(Debug)]
pub struct Match<'a> {
    graph: &'a Graph,
    captures: Vec<(&'static str, Value)>,
}

impl Match<'_> {
    /// The value captured under a name.
    ///
    /// # Panics
    /// If the pattern has no such name: a defect of the rule.
    pub fn value(&self, name: &str) -> Value {
        match self.captures.iter().find(|(n, _)| *n == name) {
            Some((_, value)) => *value,
            None => panic!("the pattern captures no `{name}`"),
        }
    }

    /// The node that defines a captured value, if one does.
    pub fn node(&self, name: &str) -> Option<&NodeData> {
        self.graph.producer(self.value(name)).map(|(_, data)| data)
    }

    /// The graph before the rewrite.
    pub fn graph(&self) -> &Graph {
        self.graph
    }
}

/// Why a rule does not apply where its pattern fits. `code` is from the rule's closed set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined {
    /// Stable code.
    pub code: &'static str,
    /// For people.
    pub reason: String,
}

impl Declined {
    /// A reason under a code.
    pub fn new(code: &'static str, reason: impl Into<String>) -> Declined {
        Declined { code, reason: reason.into() }
    }
}

/// The graph under construction, as a rule sees it.
#[derive(Debug)]
pub struct Patch<'a> {
    builder: &'a GraphBuilder,
    map: &'a ValueMap,
    uses: &'a [u32],
}

impl Patch<'_> {
    /// The new graph's tensor of a value of the old one.
    pub fn tensor(&self, value: Value) -> Tensor {
        self.builder.tensor(self.map.get(value))
    }

    /// Where nodes are added.
    pub fn builder(&self) -> &GraphBuilder {
        self.builder
    }

    /// How often the old graph uses a value.
    pub fn uses(&self, value: Value) -> u32 {
        self.uses[value.index()]
    }
}

/// One rule.
pub trait Rewrite {
    /// Its name in remarks.
    fn name(&self) -> &'static str;

    /// Where it looks.
    fn pattern(&self) -> Pattern;

    /// What replaces the matched value.
    ///
    /// # Errors
    /// Why it does not apply here; the graph must be as it was then.
    fn apply(&self, found: &Match<'_>, patch: &Patch<'_>) -> Result<Tensor, Declined>;
}

/// A pass made of rules.
pub struct Rules {
    name: &'static str,
    rules: Vec<Box<dyn Rewrite>>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rules({}: {} rules)", self.name, self.rules.len())
    }
}

impl Rules {
    /// A pass of one rule, under the rule's name.
    pub fn one(rule: impl Rewrite + 'static) -> Rules {
        Rules { name: rule.name(), rules: vec![Box::new(rule)] }
    }

    /// A pass of several rules.
    pub fn new(name: &'static str, rules: Vec<Box<dyn Rewrite>>) -> Rules {
        Rules { name, rules }
    }

    fn round(&self, graph: &Graph, remarks: &mut Remarks) -> Result<Option<Graph>, Vec<Diagnostic>> {
        let builder = GraphBuilder::over(graph.successor());
        let mut map = ValueMap::params(graph);
        let uses = graph.use_counts();
        let patterns: Vec<Pattern> = self.rules.iter().map(|rule| rule.pattern()).collect();
        let mut changed = false;
        for (_, data) in graph.nodes() {
            let replaced = self.rules.iter().zip(&patterns).find_map(|(rule, pattern)| {
                let found = pattern.matches(graph, data.results[0])?;
                let derived = Some(Name::from(rule.name()));
                let values = builder.with_graph(Graph::value_count);
                builder.set_provenance(Some(Provenance { source: data.provenance.source.clone(), derived }));
                let outcome = rule.apply(&found, &Patch { builder: &builder, map: &map, uses: &uses });
                builder.set_provenance(None);
                let (code, message) = match &outcome {
                    Ok(tensor) => {
                        // What takes a value's place takes its name.
                        if tensor.value().index() >= values {
                            builder.rename(tensor, graph.value_name(data.results[0]));
                        }
                        ("applied", format!("replaced {pattern}"))
                    }
                    Err(declined) => (declined.code, declined.reason.clone()),
                };
                let value = graph.value_name(data.results[0]).clone();
                remarks.push(Remark { pass: rule.name(), graph: graph.name().into(), value, code, message });
                outcome.ok()
            });
            match replaced {
                Some(tensor) => {
                    map.set(data.results[0], tensor.value());
                    changed = true;
                    remarks.rewrote(1);
                }
                None => {
                    builder.with_graph_mut(|g| g.push_copy(graph, data, &mut map));
                }
            }
        }
        if !changed {
            return Ok(None);
        }
        builder.with_graph_mut(|g| g.finish_copy(graph, &map));
        let next = builder.finish()?;
        Ok(Some(crate::pass::eliminate_dead::eliminate(&next).unwrap_or(next)))
    }
}

impl Pass for Rules {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        let mut changed = Changed::No;
        for graph in module.graphs.values_mut() {
            for _ in 0..MOST_ROUNDS {
                let Some(next) = self.round(graph, remarks)? else { break };
                *graph = next;
                changed = Changed::Yes;
            }
        }
        Ok(changed)
    }
}
