//! Cases: small graphs in text form, with what to run them on.
//!
//! `tests/cases/*.kiln` are paragraphs of one graph each, named after the op they are about and what is special about
//! them: `@conv.groups`. Comments before a graph direct how it is run, with one value for each name:
//!
//! - `# input %x = special`: where numbers come from, see [`Draw`]; `signed` if nothing is said, or a list `[1, 2]`;
//! - `# state @s = positive`: likewise;
//! - `# tolerance 1e-4`: of the largest element, `1e-5` if nothing is said;
//! - `# error index`: running it fails, and the message contains this;
//! - `# no gradient: reason`: it is not differentiated, although its ops have gradients.

use std::path::{Path, PathBuf};

use kiln_ir::diagnostic::render_all;
use kiln_ir::op::elementwise::{self, Domain};
use kiln_ir::op::{Elementwise, Op};
use kiln_ir::reference::Array;
use kiln_ir::scalar::Number;
use kiln_ir::types::{DType, Name, TensorType};
use kiln_ir::{Graph, Module, text};

use crate::compare::Tolerance;
use crate::numbers::{self, Draw};

/// A graph and how to run it.
#[derive(Clone, Debug)]
pub struct Case {
    /// Name of the graph.
    pub name: Name,
    /// The graph and the states of its file.
    pub module: Module,
    /// How floats are compared.
    pub tolerance: Tolerance,
    /// What the message contains if it has to fail.
    pub error: Option<String>,
    /// Whether it may be differentiated.
    pub gradient: bool,
    draws: Vec<(String, Draw)>,
}

impl Case {
    /// The graph.
    ///
    /// # Panics
    /// Never: a case has one.
    pub fn graph(&self) -> &Graph {
        self.module.graph(&self.name).unwrap_or_else(|| panic!("@{} is gone", self.name))
    }

    /// Values of its parameters.
    pub fn inputs(&self, seed: u64) -> Vec<Array> {
        let graph = self.graph();
        let one = |param: &kiln_ir::graph::Param| {
            let name = graph.value_name(param.value);
            numbers::draw(graph.ty(param.value), &self.draw(&format!("%{name}")), param.below, name, seed)
        };
        graph.params().iter().map(one).collect()
    }

    /// Values of the states of its file.
    pub fn states(&self, seed: u64) -> Vec<(Name, Array)> {
        let one = |(name, state): (&Name, &kiln_ir::module::State)| {
            let array = numbers::draw(&state.ty, &self.draw(&format!("@{name}")), None, name, seed);
            (name.clone(), array)
        };
        self.module.states.iter().map(one).collect()
    }

    /// Whether an input holds NaN, infinities and numbers whose functions overflow.
    pub fn is_special(&self) -> bool {
        self.draws.iter().any(|(_, draw)| *draw == Draw::Special)
    }

    fn draw(&self, name: &str) -> Draw {
        self.draws.iter().find(|(n, _)| n == name).map_or(Draw::Signed, |(_, draw)| draw.clone())
    }
}

/// Every case: those of the files, then every elementwise op on every type it takes.
///
/// # Panics
/// If a file is no program or a directive is not understood.
pub fn all() -> Vec<Case> {
    let mut cases: Vec<Case> = files().iter().flat_map(|path| of_file(path)).collect();
    cases.extend(of_elementwise());
    cases
}

/// The files, sorted by name.
///
/// # Panics
/// If the folder cannot be read.
pub fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "kiln"));
    files.sort();
    files
}

/// The cases of one file.
///
/// # Panics
/// If it is no program or a directive is not understood.
pub fn of_file(path: &Path) -> Vec<Case> {
    let source = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let module = text::parse_module(file, &source)
        .unwrap_or_else(|found| panic!("{}", render_all(&found, &|_| Some(source.clone()))));
    source.split("\n\n").filter_map(|paragraph| of_paragraph(&module, paragraph)).collect()
}

fn of_paragraph(file: &Module, paragraph: &str) -> Option<Case> {
    let header = paragraph.lines().find_map(|line| line.strip_prefix("graph @"))?;
    let name = header.split_once('(')?.0;
    let mut module = file.clone();
    module.graphs.retain(|graph, _| **graph == *name);
    let tolerance = Tolerance::OfLargest(1e-5);
    let mut case = Case { name: name.into(), module, tolerance, error: None, gradient: true, draws: Vec::new() };
    for line in paragraph.lines().filter_map(|line| line.strip_prefix("# ")) {
        case.direct(line);
    }
    Some(case)
}

impl Case {
    /// Lines that begin otherwise are prose.
    fn direct(&mut self, line: &str) {
        let entry = |rest: &str, sigil: &str| {
            let (name, draw) = rest.split_once(" = ").unwrap_or_else(|| panic!("`{line}` has no `=`"));
            (format!("{sigil}{name}"), draw_of(draw))
        };
        if let Some(rest) = line.strip_prefix("input %") {
            self.draws.push(entry(rest, "%"));
        } else if let Some(rest) = line.strip_prefix("state @") {
            self.draws.push(entry(rest, "@"));
        } else if let Some(rest) = line.strip_prefix("tolerance ") {
            self.tolerance = Tolerance::OfLargest(rest.parse().unwrap_or_else(|_| panic!("`{line}` has no number")));
        } else if let Some(rest) = line.strip_prefix("error ") {
            self.error = Some(rest.to_owned());
        } else if line.starts_with("no gradient: ") {
            self.gradient = false;
        }
    }
}

fn draw_of(text: &str) -> Draw {
    let number = |item: &str| match item {
        "true" => Number::Int(1),
        "false" => Number::Int(0),
        _ => match item.parse() {
            Ok(int) => Number::Int(int),
            Err(_) => Number::Float(item.parse().unwrap_or_else(|_| panic!("`{item}` is no number"))),
        },
    };
    match text {
        "signed" => Draw::Signed,
        "positive" => Draw::Positive,
        "small" => Draw::Small,
        "special" => Draw::Special,
        _ => Draw::List(text.trim_matches(['[', ']']).split(',').map(|item| number(item.trim())).collect()),
    }
}

/// Types that code exists for.
const DTYPES: [DType; 10] = DType::ALL;
/// Shapes: a scalar, nothing, one element, rows that are no whole number of vectors.
const SHAPES: [&[usize]; 5] = [&[], &[0], &[1, 1], &[3, 37], &[64]];

/// One case per op, type and kind of numbers, with every shape in it.
pub fn of_elementwise() -> Vec<Case> {
    let mut cases = Vec::new();
    for (&op, row) in Elementwise::ALL.iter().zip(elementwise::TABLE) {
        for dtype in DTYPES.into_iter().filter(|&dtype| row.domain.accepts(dtype)) {
            for draw in [Draw::Signed, Draw::Special] {
                cases.push(elementwise_case(op, dtype, draw));
            }
        }
        if row.domain == Domain::Float {
            cases.push(elementwise_case(op, DType::F32, Draw::Positive));
        }
    }
    cases
}

fn elementwise_case(op: Elementwise, dtype: DType, draw: Draw) -> Case {
    let entry = op.entry();
    let kind = format!("{draw:?}").to_lowercase();
    let name = Name::from(format!("{}.{dtype}.{kind}", entry.mnemonic));
    let builder = kiln_ir::builder::GraphBuilder::new(&name);
    let mut draws = Vec::new();
    let mut results = Vec::new();
    for (number, shape) in SHAPES.into_iter().enumerate() {
        let operands: Vec<_> = entry
            .operands
            .iter()
            .enumerate()
            .map(|(place, operand)| {
                let condition = op == Elementwise::Select && place == 0;
                let ty = TensorType::new(if condition { DType::Bool } else { dtype }, shape);
                let name = format!("{operand}{number}");
                draws.push((format!("%{name}"), draw.clone()));
                builder.param(&name, ty, None)
            })
            .collect();
        results.push(builder.apply(Op::Elementwise(op), &operands.iter().collect::<Vec<_>>()));
    }
    builder.returns(&results.iter().collect::<Vec<_>>());
    let graph = builder.finish().unwrap_or_else(|found| panic!("{}", render_all(&found, &|_| None)));
    let mut module = Module::default();
    module.add_graph(graph);
    let tolerance = match dtype {
        // One unit in the last place, as a result near the middle of two numbers may go to either.
        DType::Bf16 => Tolerance::OfEach(2f64.powi(-7)),
        DType::F16 => Tolerance::OfEach(2f64.powi(-10)),
        // A few units in the last place of f32.
        _ => Tolerance::OfEach(2e-6),
    };
    // The domain of a logarithm has no negative numbers, and nothing is derived at infinity.
    let gradient =
        draw == Draw::Positive || draw == Draw::Signed && dtype == DType::F64 && op.row().domain == Domain::Numeric;
    Case { name, module, tolerance, error: None, gradient, draws }
}
