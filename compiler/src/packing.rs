//! Operands that do not change between runs are packed once.
//!
//! A micro-kernel reads its operands as panels. In inference the weights are states that nothing updates, so `@prepare`
//! writes their panels into derived states, `packed.<graph>.<first kernel>.<state>`, after it has computed all others, and the
//! kernels read these. Packing is a launch like any other: it is shared among the threads and appears in profiles.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kiln_ir::Module;
use kiln_ir::graph::{Graph, Value};
use kiln_ir::module::{Initializer, Role, State};
use kiln_ir::types::{DType, Name, TensorType};

use crate::loops::nest::LoopNest;
use crate::lower::{self, Lowered, Pack};
use crate::pass::hoist::PREPARE;
use crate::schedule::{Origin, Schedule};

/// What names of packed states begin with.
pub const PACKED: &str = "packed.";

/// Which states the runs of a program leave alone, once `@prepare` has run.
#[derive(Debug, Default)]
pub struct Lasting {
    states: HashSet<Name>,
    graphs: HashSet<String>,
}

impl Lasting {
    /// Nothing lasts.
    pub fn nothing() -> Lasting {
        Lasting::default()
    }

    /// The states that no graph but `@prepare` updates, for the graphs that update none.
    pub fn of(module: &Module) -> Lasting {
        let others = || module.graphs.iter().filter(|(name, _)| ***name != *PREPARE);
        let updated: HashSet<&Name> = others().flat_map(|(_, g)| g.updates().iter().map(|u| &u.state)).collect();
        Lasting {
            states: module.states.keys().filter(|name| !updated.contains(name)).cloned().collect(),
            graphs: others().filter(|(_, g)| g.updates().is_empty()).map(|(name, _)| name.to_string()).collect(),
        }
    }

    /// Whether `value` of a graph is such a state.
    pub fn holds(&self, graph: &Graph, schedule: &Schedule, value: Value) -> bool {
        self.graphs.contains(graph.name())
            && matches!(&schedule.origins[value.index()], Origin::State(name) if self.states.contains(name))
    }
}

/// An operand that `@prepare` packs.
#[derive(Clone, Debug)]
pub struct PackedState {
    /// The state that holds the panels.
    pub name: Name,
    /// The state that is packed.
    pub from: Name,
    /// How.
    pub pack: Pack,
    /// The packing as loops.
    pub nest: LoopNest,
}

impl PackedState {
    /// Type of the panels.
    pub fn ty(&self) -> TensorType {
        TensorType::new(DType::U8, [self.pack.plan.packed_bytes(self.pack.side)])
    }

    /// The state as a module declares it.
    pub fn state(&self) -> State {
        State { ty: self.ty(), role: Role::Derived, init: Initializer::Constant(0.0), source: None }
    }
}

/// The packed operands of one graph, by kernel, in the order of [`Lowered::packs`]. Kernels of one plan read the same panels,
/// which the steps of a recurrent network then find in the caches.
pub fn packed_states(graph: &Graph, schedule: &Schedule, lowered: &[Lowered]) -> Vec<Vec<PackedState>> {
    let mut made: HashMap<_, PackedState> = HashMap::new();
    let mut of = |(step, lowered): (usize, &Lowered)| {
        let packed = |(number, pack): (usize, &Pack)| {
            let operand = schedule.kernels[step].operands[pack.operand];
            let Origin::State(from) = &schedule.origins[operand.index()] else { return None };
            let packed = made.entry((from.clone(), Arc::as_ptr(&pack.plan), pack.side.code())).or_insert_with(|| {
                let number = if number == 0 { String::new() } else { format!(".{number}") };
                let name = format!("{PACKED}{}.{}.{from}{number}", graph.name(), lowered.name);
                let nest = lower::pack(&format!("pack.{from}"), pack, graph.ty(operand));
                PackedState { name: name.into(), from: from.clone(), pack: pack.clone(), nest }
            });
            Some(packed.clone())
        };
        lowered.packs.iter().enumerate().filter_map(packed).collect()
    };
    lowered.iter().enumerate().map(&mut of).collect()
}

/// Those that `@prepare` packs, each once.
pub fn distinct<'a>(packed: impl Iterator<Item = &'a PackedState>) -> Vec<PackedState> {
    let mut seen = HashSet::new();
    packed.filter(|packed| seen.insert(&packed.name)).cloned().collect()
}
