//! From the command line to a module: reading, expanding, binding and verifying, for every subcommand alike.

use std::io::Read;
use std::path::{Path, PathBuf};

use kiln::{CompileError, Options, Program};
use kiln_ir::diagnostic::render_all;
use kiln_ir::text::ast::{self, ExprKind, ItemKind};
use kiln_ir::text::evaluate::nothing;
use kiln_ir::text::suggest::nearest;
use kiln_ir::text::{decode, parse_source, tensor_type};
use kiln_ir::verify::{Bound, verify};
use kiln_ir::{Bindings, Diagnostic, Dim, Module, Name, Severity, TensorType, script};

use super::failure::{Failure, is_defect};
use super::output::counted;

/// A script that has been read; nothing of it is known to be valid.
#[derive(Debug)]
pub(crate) struct Script {
    /// As given: what diagnostics call it.
    pub(crate) file: Name,
    text: String,
}

impl Script {
    /// Reads a file, or stdin for `-`.
    pub(crate) fn open(model: &str) -> Result<Script, Failure> {
        if model.ends_with(".onnx") {
            return Err(Failure::Input(format!("{model}: ONNX models cannot be read yet; give a .kiln script")));
        }
        let mut bytes = Vec::new();
        let read = match model {
            "-" => std::io::stdin().read_to_end(&mut bytes),
            path => std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
        };
        let file = if model == "-" { "<stdin>" } else { model };
        read.map_err(|error| Failure::Input(format!("cannot read {file}: {error}")))?;
        match decode(file, &bytes) {
            Ok(text) => Ok(Script { file: file.into(), text: text.to_owned() }),
            Err(found) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                Err(Script { file: file.into(), text }.failure(&found))
            }
        }
    }

    /// The text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// A path of the script: relative to it, or to the current directory for stdin.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        match Path::new(&*self.file).parent() {
            Some(directory) => directory.join(path),
            None => PathBuf::from(path),
        }
    }

    /// The script's name without directory and ending, for files named after it.
    pub(crate) fn stem(&self) -> String {
        match Path::new(&*self.file).file_stem() {
            Some(stem) if &*self.file != "<stdin>" => stem.to_string_lossy().into_owned(),
            _ => "model".to_owned(),
        }
    }

    /// Diagnostics with their source lines.
    pub(crate) fn render(&self, found: &[Diagnostic]) -> String {
        render_all(found, &|file| (*file == *self.file).then(|| self.text.clone()))
    }

    /// A failure that shows all diagnostics and counts them.
    pub(crate) fn failure(&self, found: &[Diagnostic]) -> Failure {
        let errors = found.iter().filter(|d| d.severity == Severity::Error).count();
        Failure::Program(format!("{}\n{} in {}\n", self.render(found), counted(errors, "error"), self.file))
    }

    /// What the script says about its inputs before it is expanded.
    pub(crate) fn outline(&self) -> Result<Outline, Failure> {
        let source = parse_source(self.file.clone(), &self.text).map_err(|found| self.failure(&found))?;
        Outline::new(&source).map_err(|found| self.failure(&found))
    }

    /// The module with `bindings` in place of dimension names, and everything that is wrong with it.
    pub(crate) fn expand(&self, bindings: &Bindings, bound: Bound) -> Result<Module, Vec<Diagnostic>> {
        let module = script::load(&self.file, &self.text, bindings)?;
        let found = verify(&module, bound);
        match found.iter().any(|d| d.severity == Severity::Error) {
            true => Err(found),
            false => Ok(module),
        }
    }

    /// The module with every name bound.
    pub(crate) fn module(&self, bindings: &Bindings) -> Result<Module, Failure> {
        self.expand(bindings, Bound::Yes).map_err(|found| self.failure(&found))
    }

    /// Compiles; the program's faults are shown in its source.
    pub(crate) fn compile(&self, module: &Module, options: &Options) -> Result<Program, Failure> {
        kiln::compile(module, options).map_err(|error| self.compile_failure(error))
    }

    /// The failure of a compilation.
    pub(crate) fn compile_failure(&self, error: CompileError) -> Failure {
        let defect = is_defect(&error);
        match error {
            CompileError::Program(found) if defect => Failure::Defect(format!("\n{}", self.render(&found))),
            CompileError::Program(found) => self.failure(&found),
            CompileError::Pipeline(message) => Failure::Usage(message),
            CompileError::Defect(message) => Failure::Defect(message),
        }
    }
}

/// A number of bytes: `67108864`, `64MiB`, `64MB`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    let bytes = digits.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|&bytes| bytes > 0).ok_or_else(|| "a number of bytes such as `67108864`, `64MiB` or `64MB`".to_owned())
}

/// What is known of a script from its syntax alone, so that names can be bound before it is expanded.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    /// Inputs of the model, or of all graphs.
    pub(crate) inputs: Vec<(Name, TensorType)>,
    /// Graph of each input; `None` for those of a model, which are those of all its graphs.
    graphs: Vec<Option<Name>>,
    /// Names of dimensions, sorted.
    pub(crate) names: Vec<Name>,
    /// The recipe's batch.
    pub(crate) batch: Option<usize>,
}

impl Outline {
    fn new(source: &ast::Source) -> Result<Outline, Vec<Diagnostic>> {
        let mut outline = Outline::default();
        let mut faults = Vec::new();
        let mut types = Vec::new();
        for item in &source.items {
            match &item.kind {
                ItemKind::Graph(graph) | ItemKind::Model(graph) => {
                    let owner = matches!(item.kind, ItemKind::Graph(_)).then(|| graph.name.name.clone());
                    for param in &graph.params {
                        match tensor_type(&param.ty, &nothing, &source.file) {
                            Ok(ty) => {
                                outline.inputs.push((param.name.name.clone(), ty));
                                outline.graphs.push(owner.clone());
                            }
                            Err(found) => faults.extend(found),
                        }
                    }
                }
                ItemKind::State(state) => types.extend(tensor_type(&state.ty, &nothing, &source.file)),
                ItemKind::Train(record) => {
                    if let Some(ExprKind::Int(batch)) = record.get("batch").map(|field| &field.value.kind) {
                        outline.batch = usize::try_from(*batch).ok();
                    }
                }
                ItemKind::Block(_) | ItemKind::Weights(_) => {}
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        types.extend(outline.inputs.iter().map(|(_, ty)| ty.clone()));
        outline.names = types.iter().flat_map(|ty| ty.shape.dims()).flat_map(Dim::names).collect();
        outline.names.sort();
        outline.names.dedup();
        Ok(outline)
    }

    /// Forgets the inputs of all graphs but one, by the rule of [`super::machine::choose_graph`].
    pub(crate) fn focus(&mut self, wanted: Option<&str>) {
        let has = |graph: &&str| self.graphs.iter().flatten().any(|other| **other == **graph);
        let wanted = wanted.map(|name| name.strip_prefix('@').unwrap_or(name));
        let Some(chosen) = wanted.or(["predict", "eval"].into_iter().find(has)).map(Name::from) else { return };
        let owned = std::mem::take(&mut self.inputs).into_iter().zip(std::mem::take(&mut self.graphs));
        let kept = owned.filter(|(_, graph)| graph.as_ref().is_none_or(|graph| *graph == chosen));
        (self.inputs, self.graphs) = kept.unzip();
    }

    /// Refuses to bind what the script does not have.
    pub(crate) fn check(&self, bindings: &Bindings) -> Result<(), Failure> {
        let unknown = bindings.keys().find(|name| !self.names.contains(name));
        let Some(unknown) = unknown else { return Ok(()) };
        let there = match self.names.as_slice() {
            [] => "every extent is a number".to_owned(),
            names => format!("there are: {}", names.join(", ")),
        };
        let near = nearest(unknown, self.names.iter().map(|name| &**name));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        Err(Failure::Usage(format!("--bind {unknown}: the script has no dimension of that name, {there}{near}")))
    }

    /// Names that stand for the batch: `batch`, and the first extent of an input.
    pub(crate) fn batch_names(&self) -> Vec<Name> {
        let first = self.inputs.iter().filter_map(|(_, ty)| ty.shape.dims().first().and_then(sole_name));
        let named = self.names.iter().filter(|name| &***name == "batch").cloned();
        let mut names: Vec<Name> = first.chain(named).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Every name bound: as given, those of the batch as in the recipe, anything else to 1 with a note.
    pub(crate) fn complete(&self, given: &Bindings) -> Result<Bindings, Failure> {
        self.check(given)?;
        let mut bindings = given.clone();
        let mut invented = Vec::new();
        let batch_names = self.batch_names();
        for name in self.names.iter().filter(|name| !given.contains_key(*name)) {
            let extent = self.batch.filter(|_| batch_names.contains(name));
            if extent.is_none() {
                invented.push(format!("{name} = 1"));
            }
            bindings.insert(name.clone(), extent.unwrap_or(1));
        }
        if !invented.is_empty() {
            eprintln!("note: bound {}; give other values with --bind", invented.join(", "));
        }
        Ok(bindings)
    }
}

/// The name that a dimension is, if it is one and not calculated.
pub(crate) fn sole_name(dim: &Dim) -> Option<Name> {
    match dim.names().as_slice() {
        [name] if dim.to_string() == **name => Some(name.clone()),
        _ => None,
    }
}

/// Parses `name=N` of `--bind`.
pub(crate) fn parse_binding(text: &str) -> Result<(Name, usize), String> {
    let (name, value) = text.split_once('=').ok_or("write name=N, such as batch=8")?;
    let value = value.trim().parse().map_err(|_| format!("`{value}` is not a size"))?;
    match name.trim() {
        "" => Err("write name=N, such as batch=8".to_owned()),
        name => Ok((name.into(), value)),
    }
}

/// The bindings of repeated `--bind`; the last of a name wins.
pub(crate) fn bindings(given: &[(Name, usize)]) -> Bindings {
    given.iter().cloned().collect()
}
