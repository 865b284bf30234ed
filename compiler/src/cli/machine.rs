//! A session with everything in place: states, weights, prepared states, programs.

use std::path::{Path, PathBuf};
use std::time::Instant;

use indexmap::IndexMap;
use kiln::Program;
use kiln::pass::hoist::PREPARE;
use kiln_ir::module::Role;
use kiln_ir::{Initializer, Module, Name};
use kiln_rt::data::npy::read_npy;
use kiln_rt::session::ProgramId;
use kiln_rt::{Session, Tensor, Weights};

use super::failure::Failure;

/// Threads to run on: as asked, else every core.
pub(crate) fn threads(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

/// Parses a number of threads.
pub(crate) fn parse_threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=1024) => Ok(threads),
        _ => Err("a number from 1 to 1024".to_owned()),
    }
}

/// A session that is ready to run programs.
pub(crate) struct Machine {
    pub(crate) session: Session,
    pub(crate) programs: IndexMap<Name, ProgramId>,
    /// Milliseconds for initial values, weights and `@prepare`.
    pub(crate) prepare_ms: f64,
}

impl Machine {
    /// Gives the states of `program` their values ([`initialize`]), loads all graphs and runs `@prepare`. States that
    /// only `@prepare` uses are gone then. A note says which weights were not used.
    pub(crate) fn new(
        program: &Program,
        seed: Option<u64>,
        weights: Option<&Path>,
        threads: usize,
    ) -> Result<Machine, Failure> {
        let (machine, unused) = Machine::quiet(program, seed, weights, threads)?;
        note_unused(weights, &unused);
        Ok(machine)
    }

    /// As [`Machine::new`], for the same weights again: names of those that were not used are returned.
    pub(crate) fn quiet(
        program: &Program,
        seed: Option<u64>,
        weights: Option<&Path>,
        threads: usize,
    ) -> Result<(Machine, Vec<String>), Failure> {
        let mut session = new_session(threads)?;
        let start = Instant::now();
        let unused = fill_states(&mut session, &program.module, seed, weights)?;
        let mut prepare_ms = milliseconds(start);
        let mut programs = IndexMap::new();
        for (name, compiled) in &program.graphs {
            programs.insert(name.clone(), session.load(compiled.executable.clone())?);
        }
        if let Some(id) = programs.shift_remove(PREPARE) {
            let start = Instant::now();
            let mut outputs = session.outputs(id)?;
            session.run_last(id, &[], &mut outputs)?;
            prepare_ms += milliseconds(start);
        }
        Ok((Machine { session, programs, prepare_ms }, unused))
    }

    /// The program of a graph.
    pub(crate) fn program(&self, graph: &str) -> Result<ProgramId, Failure> {
        let missing = || Failure::Defect(format!("@{graph} was not compiled"));
        self.programs.get(graph).copied().ok_or_else(missing)
    }
}

/// A session.
pub(crate) fn new_session(threads: usize) -> Result<Session, Failure> {
    Session::new(threads).map_err(|error| Failure::Input(format!("cannot start {threads} threads: {error}")))
}

/// Gives the states of a module what a file of weights has for them, else their initial values from `seed`, or 0. A seed
/// also says where random draws begin, whatever the file has for that. A note says which weights were not used.
pub(crate) fn initialize(
    session: &mut Session,
    module: &Module,
    seed: Option<u64>,
    weights: Option<&Path>,
) -> Result<(), Failure> {
    let unused = fill_states(session, module, seed, weights)?;
    note_unused(weights, &unused);
    Ok(())
}

/// The same without a word: returns the names of weights that were not used.
fn fill_states(
    session: &mut Session,
    module: &Module,
    seed: Option<u64>,
    weights: Option<&Path>,
) -> Result<Vec<String>, Failure> {
    let initial = seed.unwrap_or(0);
    let Some(path) = weights else {
        session.initialize(module, initial)?;
        return Ok(Vec::new());
    };
    let mut fitted = Weights::open(path)?.fit(module)?;
    if seed.is_some() {
        let draws = |name: &Name| module.states.get(name).is_some_and(|state| state.init == Initializer::Seed);
        fitted.states.retain(|name, _| !draws(name));
    }
    session.initialize_with(module, initial, fitted.states)?;
    Ok(fitted.unused)
}

fn note_unused(weights: Option<&Path>, unused: &[String]) {
    if let Some(path) = weights.filter(|_| !unused.is_empty()) {
        eprintln!("note: {}: not used by this model: {}", path.display(), unused.join(", "));
    }
}

/// Milliseconds since `start`.
pub(crate) fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Names of the states that have to be learned.
pub(crate) fn learned(module: &Module) -> Vec<&Name> {
    let learned = module.states.iter().filter(|(_, state)| matches!(state.role, Role::Param | Role::Statistic));
    learned.map(|(name, _)| name).collect()
}

/// `name=path` of `--input` and `--output`; without a name, the only one is meant.
#[derive(Clone, Debug)]
pub(crate) struct NamedPath {
    pub(crate) name: Option<Name>,
    pub(crate) path: PathBuf,
}

/// Parses `name=path`.
pub(crate) fn parse_named_path(text: &str) -> Result<NamedPath, String> {
    let (name, path) = match text.split_once('=') {
        Some((name, path)) => (Some(name.trim_start_matches('%').into()), path),
        None => (None, text),
    };
    match path {
        "" => Err("write name=file.npy".to_owned()),
        path => Ok(NamedPath { name, path: path.into() }),
    }
}

/// Resolves names: each must be one of `known`, and none may be given twice.
pub(crate) fn by_name<'a>(
    given: &'a [NamedPath],
    known: &[Name],
    what: &str,
) -> Result<IndexMap<Name, &'a Path>, Failure> {
    let mut paths = IndexMap::new();
    let listed = known.iter().map(|name| format!("%{name}")).collect::<Vec<_>>().join(", ");
    for NamedPath { name, path } in given {
        let name = match (name, known) {
            (Some(name), _) => name,
            (None, [only]) => only,
            (None, _) => {
                let path = path.display();
                return Err(Failure::Usage(format!("--{what} {path}: say which of {listed} it is: name={path}")));
            }
        };
        if !known.contains(name) {
            let there = if known.is_empty() { "there are none" } else { &*format!("there are: {listed}") };
            return Err(Failure::Usage(format!("--{what} {name}: the graph has no {what} %{name}, {there}")));
        }
        if paths.insert(name.clone(), path.as_path()).is_some() {
            return Err(Failure::Usage(format!("--{what} {name} is given twice")));
        }
    }
    Ok(paths)
}

/// Reads the inputs that were given.
pub(crate) fn read_inputs(given: &[NamedPath], known: &[Name]) -> Result<IndexMap<Name, Tensor>, Failure> {
    by_name(given, known, "input")?.into_iter().map(|(name, path)| Ok((name, read_npy(path)?))).collect()
}

/// The graph that a command is about: the one named, else `@predict`, else `@eval`, else the only one.
pub(crate) fn choose_graph(module: &Module, wanted: Option<&str>) -> Result<Name, Failure> {
    let names: Vec<&Name> = module.graphs.keys().collect();
    let listed = names.iter().map(|name| format!("@{name}")).collect::<Vec<_>>().join(", ");
    if let Some(wanted) = wanted {
        let wanted = wanted.strip_prefix('@').unwrap_or(wanted);
        let found = names.iter().find(|name| ****name == *wanted).copied().cloned();
        return found.ok_or_else(|| Failure::Usage(format!("there is no graph `@{wanted}`; there are: {listed}")));
    }
    let usual = ["predict", "eval"].iter().find_map(|usual| names.iter().find(|name| ****name == **usual));
    match (usual, names.as_slice()) {
        (Some(&name), _) | (None, &[name]) => Ok(name.clone()),
        (None, []) => Err(Failure::Input("the script has no graph".to_owned())),
        (None, _) => Err(Failure::Usage(format!("say which graph: --graph with one of {listed}"))),
    }
}
