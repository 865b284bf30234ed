//! Module: states, graphs and the recipe. The printed text is the whole of it.

use std::collections::HashSet;

use indexmap::IndexMap;

use crate::attribute::AttrValue;
use crate::graph::{Graph, Location};
use crate::types::{Name, TensorType};

/// A program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Module {
    /// Named tensors that outlive a run, in order of declaration.
    pub states: IndexMap<Name, State>,
    /// Functions, in order of declaration.
    pub graphs: IndexMap<Name, Graph>,
    /// How to train, if the program says so.
    pub recipe: Option<Recipe>,
}

/// A named tensor that the session owns.
#[derive(Clone, Debug)]
pub struct State {
    /// Its type; stored row-major.
    pub ty: TensorType,
    /// What it is for.
    pub role: Role,
    /// How it starts.
    pub init: Initializer,
    /// Where it is declared.
    pub source: Option<Location>,
}

/// Equality of programs: where a state is declared is not part of it.
impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        (&self.ty, self.role, &self.init) == (&other.ty, other.role, &other.init)
    }
}

/// What a state is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Learned.
    Param,
    /// Kept by the optimizer for a parameter.
    Moment,
    /// Running statistics of the data.
    Statistic,
    /// Counts steps or draws.
    Counter,
    /// Computed from other states by `@prepare`; not part of a checkpoint.
    Derived,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 5] = [Role::Param, Role::Moment, Role::Statistic, Role::Counter, Role::Derived];

    /// Text name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Param => "param",
            Role::Moment => "moment",
            Role::Statistic => "statistic",
            Role::Counter => "counter",
            Role::Derived => "derived",
        }
    }
}

/// How a state starts. Fans follow Keras and PyTorch: the last dimension of a matrix is the output, a filter is
/// `[O, C, kernel...]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Initializer {
    /// Every element.
    Constant(f64),
    /// Uniform in `[low, high)`.
    Uniform {
        /// Smallest.
        low: f64,
        /// Bound of the largest.
        high: f64,
    },
    /// Normal.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        deviation: f64,
    },
    /// Uniform within `sqrt(6 / (fan_in + fan_out))` (Glorot and Bengio, AISTATS 2010).
    Glorot,
    /// Normal with deviation `sqrt(2 / fan_in)` (He et al., ICCV 2015).
    He,
    /// Uniform within `sqrt(1 / fan_in)`, PyTorch's default for linear and convolution layers; the fan is given, so
    /// that a bias can have its weight's.
    FanIn(u64),
    /// The seed times 2^32: a counter of draws begins here, so that no two seeds below 2^31 share one.
    Seed,
}

/// How to train: data, batch, epochs, order of steps, metrics. Read by the runtime's fit loop.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recipe {
    /// Entries of `train { key = value, ... }` in order, as written; [`Recipe::get`] looks one up.
    pub entries: IndexMap<Name, AttrValue>,
}

impl Recipe {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&AttrValue> {
        self.entries.get(key)
    }
}

/// Stream of a random op or an initialiser: a hash of its name, so no two names share one (FNV-1a, 64 bit).
pub fn stream(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Module {
    /// A graph by name.
    pub fn graph(&self, name: &str) -> Option<&Graph> {
        self.graphs.get(name)
    }

    /// Leaves the graphs named, and the states that they use.
    pub fn keep_graphs(&mut self, names: &[Name]) {
        self.graphs.retain(|name, _| names.contains(name));
        let mut used: HashSet<Name> = HashSet::new();
        for graph in self.graphs.values() {
            used.extend(graph.values().filter_map(|value| graph.read_state_name(value).cloned()));
            used.extend(graph.updates().iter().map(|update| update.state.clone()));
        }
        self.states.retain(|state, _| used.contains(state));
    }

    /// Adds a graph under its own name.
    pub fn add_graph(&mut self, graph: Graph) {
        self.graphs.insert(graph.name().into(), graph);
    }
}
