//! Executable examples of the spec.

use crate::graph::Graph;
use crate::module::Module;
use crate::reference::{Array, Evaluator, Outcome};
use crate::scalar::Number;
use crate::spec::{FAMILIES, Family};
use crate::text;
use crate::types::TensorType;

/// An op at work, with literal numbers.
#[derive(Clone, Debug)]
pub struct Example {
    /// The op, and the name of the graph.
    pub mnemonic: &'static str,
    /// File name.
    pub file: &'static str,
    /// Comments and graph as the file has them.
    pub text: &'static str,
    /// Numbers per input, in row-major order.
    pub inputs: Vec<(&'static str, Vec<Number>)>,
    /// Numbers per state.
    pub states: Vec<(&'static str, Vec<Number>)>,
    /// Numbers per returned value.
    pub expected: Vec<(&'static str, Vec<Number>)>,
    /// Names of the passes to run first.
    pub passes: Vec<&'static str>,
    /// Largest `|y - expected| / (1 + |expected|)` for floats; integers are exact.
    pub tolerance: f64,
    /// The whole file.
    source: &'static str,
}

/// Every example, in the order of SPEC.md.
pub fn examples() -> Vec<Example> {
    FAMILIES.iter().flat_map(in_family).collect()
}

/// The examples of one file: paragraphs with a graph.
pub(super) fn in_family(family: &'static Family) -> Vec<Example> {
    family.examples.split("\n\n").filter_map(|paragraph| Example::read(family, paragraph)).collect()
}

impl Example {
    fn read(family: &'static Family, paragraph: &'static str) -> Option<Example> {
        let header = paragraph.lines().find_map(|line| line.strip_prefix("graph @"))?;
        let mut example = Example {
            mnemonic: header.split_once('(')?.0,
            file: family.file,
            text: paragraph.trim(),
            inputs: Vec::new(),
            states: Vec::new(),
            expected: Vec::new(),
            passes: Vec::new(),
            tolerance: 1e-6,
            source: family.examples,
        };
        paragraph.lines().filter_map(|line| line.strip_prefix("# ")).for_each(|line| example.comment(line));
        Some(example)
    }

    /// Lines of another form are prose.
    fn comment(&mut self, line: &'static str) {
        if let Some(passes) = line.strip_prefix("passes ") {
            self.passes = passes.split(',').map(str::trim).collect();
        } else if let Some(Ok(tolerance)) = line.strip_prefix("tolerance ").map(str::parse) {
            self.tolerance = tolerance;
        } else if let Some(entry) = line.strip_prefix("input %").and_then(numbers) {
            self.inputs.push(entry);
        } else if let Some(entry) = line.strip_prefix("state @").and_then(numbers) {
            self.states.push(entry);
        } else if let Some(entry) = line.strip_prefix("expect %").and_then(numbers) {
            self.expected.push(entry);
        }
    }

    /// The module of the example's file; the example is its graph [`Example::mnemonic`].
    ///
    /// # Errors
    /// The findings of the parser as text.
    pub fn module(&self) -> Result<Module, String> {
        text::parse_module(self.file, self.source)
            .map_err(|found| crate::diagnostic::render_all(&found, &|_| Some(self.source.to_owned())))
    }

    /// Evaluates the graph in `module`, which passes may have changed, and compares the returned values in order, at the
    /// program's own precision and in binary64.
    ///
    /// # Errors
    /// The first difference, or why there is no value.
    pub fn compare(&self, module: &Module) -> Result<(), String> {
        let graph = module.graph(self.mnemonic).ok_or("the graph is gone")?;
        for evaluator in [Evaluator::native(), Evaluator::wide()] {
            let outcome = self.evaluate(&evaluator, graph, module)?;
            self.compare_outcome(&outcome)?;
        }
        Ok(())
    }

    fn evaluate(&self, evaluator: &Evaluator, graph: &Graph, module: &Module) -> Result<Outcome, String> {
        let inputs: Result<Vec<Array>, String> = graph
            .params()
            .iter()
            .map(|param| array(&self.inputs, graph.value_name(param.value), graph.ty(param.value)))
            .collect();
        let state = |name: &str| array(&self.states, name, &module.states.get(name)?.ty).ok();
        evaluator.evaluate(graph, &inputs?, &state).map_err(|error| error.to_string())
    }

    fn compare_outcome(&self, outcome: &Outcome) -> Result<(), String> {
        if self.expected.len() != outcome.returns.len() {
            return Err(format!("{} values return, {} are expected", outcome.returns.len(), self.expected.len()));
        }
        for (array, (name, expected)) in outcome.returns.iter().zip(&self.expected) {
            if expected.len() != array.ty.elements() {
                return Err(format!("%{name} has {} elements, {} are expected", array.ty.elements(), expected.len()));
            }
            for (position, &wanted) in expected.iter().enumerate() {
                let found = array.at(position).unwrap_or(Number::Float(f64::NAN));
                if !self.agree(found, wanted, array.ty.dtype.is_float()) {
                    let (found, wanted) = (found.to_f64(), wanted.to_f64());
                    return Err(format!("%{name}[{position}] is {found:?}, expected {wanted:?}"));
                }
            }
        }
        Ok(())
    }

    fn agree(&self, found: Number, wanted: Number, float: bool) -> bool {
        if !float {
            return found.to_i64() == wanted.to_i64();
        }
        let (found, wanted) = (found.to_f64(), wanted.to_f64());
        found == wanted
            || (found.is_nan() && wanted.is_nan())
            || (found - wanted).abs() <= self.tolerance * (1.0 + wanted.abs())
    }
}

fn array(given: &[(&str, Vec<Number>)], name: &str, ty: &TensorType) -> Result<Array, String> {
    let (_, numbers) = given.iter().find(|(n, _)| *n == name).ok_or(format!("no numbers for `{name}`"))?;
    if numbers.len() != ty.elements() {
        return Err(format!("`{name}` is {ty}, {} numbers are given", numbers.len()));
    }
    Array::from_numbers(ty.clone(), |position| numbers.get(position).copied()).ok_or(format!("`{name}` lacks numbers"))
}

/// `name = [1.0, 2.0]` or `name = 3`.
fn numbers(entry: &'static str) -> Option<(&'static str, Vec<Number>)> {
    let (name, list) = entry.split_once(" = ")?;
    let items = list.trim().trim_start_matches('[').trim_end_matches(']').split(',').map(str::trim);
    let numbers = items.filter(|item| !item.is_empty()).map(number).collect::<Option<_>>()?;
    Some((name, numbers))
}

fn number(text: &str) -> Option<Number> {
    match text {
        "true" => Some(Number::Int(1)),
        "false" => Some(Number::Int(0)),
        _ => text.parse().map(Number::Int).or_else(|_| text.parse().map(Number::Float)).ok(),
    }
}
