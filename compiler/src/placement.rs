//! Where every value lies while a graph runs: in an input, an output, a state or the arena.
//!
//! Results are computed where they are wanted if nothing still needs what lies there; else they get a buffer in the
//! arena and, at the end, a copy. Parts of a join are computed inside its buffer, and views are some bytes of one. The
//! arena's buffers go to [`crate::memory`]; its checker replays the trace that is recorded here.
//!
//! States are what a run is given for good: they are overwritten where they lie. Inputs are not. `Session::run` borrows
//! them, and its callers use them again: a batch is filled into the same tensors every time. Taking them over would also
//! free nothing where it matters: in training the gradient of the first weights, near the end of a step, reads the input
//! once more; in inference the input is smaller than what the first layers make of it, which is where the peak is.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;
use kiln_ir::graph::{Graph, Value};
use kiln_ir::types::Name;

use crate::lower::{BufferUse, Lowered};
use crate::memory::check::Access;
use crate::memory::flow::{self, Flow};
use crate::memory::{ALIGNMENT, Buffer, Options, Plan, Problem};
use crate::schedule::{Join, Origin, Schedule};

/// Memory of one value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Home {
    /// Input of the program.
    Input(usize),
    /// Output of the program.
    Output(usize),
    /// State, by name.
    State(Name),
    /// Table of constants.
    Constant(Value),
    /// Buffer of the memory problem.
    Buffer(usize),
}

/// A copy at the end of the run.
#[derive(Clone, Debug)]
pub struct EndCopy {
    /// From.
    pub from: Home,
    /// To.
    pub to: Home,
    /// Value that is copied.
    pub value: Value,
}

/// Where everything lies.
#[derive(Debug)]
pub struct Placement {
    /// Home of every origin, by value index; views of all of it share their origin's.
    homes: HashMap<Origin, Home>,
    origins: Vec<Origin>,
    /// Homes of the views of some of their origin's bytes.
    views: HashMap<Value, Home>,
    /// Buffer of each kernel's workspace.
    pub workspaces: Vec<Option<usize>>,
    /// Copies after the last kernel.
    pub copies: Vec<EndCopy>,
    /// States in the order of the program's signature.
    pub states: Vec<Name>,
    /// The arena as a problem, with its plan.
    pub problem: Problem,
    /// Offsets.
    pub plan: Plan,
    /// What each launch reads and writes, for the checker.
    pub trace: Vec<Access>,
    /// Bytes that are live at once in every order of the kernels, for these choices of homes.
    pub any_order: u64,
}

impl Placement {
    /// Home of a value.
    pub fn home(&self, value: Value) -> &Home {
        self.views.get(&value).unwrap_or_else(|| &self.homes[&self.origins[value.index()]])
    }
}

/// Step at which old values of states are saved; end copies run in the step after it.
fn end_step(lowered: &[Lowered]) -> u32 {
    lowered.len() as u32
}

/// Chooses a home for every value. `any_order` is what [`crate::memory::order`] knows about all orders.
///
/// # Errors
/// What the checker or the problem's own rules find: a defect.
pub fn place(
    graph: &Graph,
    schedule: &Schedule,
    lowered: &[Lowered],
    any_order: u64,
    options: &Options,
) -> Result<Placement, String> {
    let mut cx = Placer::placed(graph, schedule, lowered);
    let end = end_step(lowered);
    for copy in &cx.copies {
        if let Home::Buffer(buffer) = copy.from {
            cx.buffers[buffer].upper = cx.buffers[buffer].upper.max(end + 2);
        }
    }
    let problem = Problem::new(cx.buffers).map_err(|faults| format!("{faults:?}"))?;
    let plan = crate::memory::plan(&problem, options);
    let faults = crate::memory::check::check(&problem, &plan.offsets, plan.peak, &cx.trace);
    if let Some(fault) = faults.first() {
        return Err(format!("the memory plan does not hold: {}", fault.message));
    }
    Ok(Placement {
        homes: cx.homes,
        origins: schedule.origins.clone(),
        views: cx.views,
        workspaces: cx.workspaces,
        copies: cx.saves.into_iter().chain(cx.copies).collect(),
        states: cx.states,
        problem,
        plan,
        trace: cx.trace,
        any_order,
    })
}

/// What the kernels need of the arena, whatever their order: homes are chosen as they are now.
pub fn flow(graph: &Graph, schedule: &Schedule, lowered: &[Lowered]) -> ArenaFlow {
    let cx = Placer::placed(graph, schedule, lowered);
    let reserved = |bytes: u64| bytes.next_multiple_of(ALIGNMENT);
    let mut kept = vec![false; cx.buffers.len()];
    for copy in &cx.copies {
        if let Home::Buffer(buffer) = copy.from {
            kept[buffer] = true;
        }
    }
    let kernels = (0..schedule.kernels.len()).map(|step| cx.kernel(step, reserved)).collect();
    let mut values = vec![None; cx.buffers.len()];
    for (origin, home) in &cx.homes {
        if let (Origin::Computed(value), Home::Buffer(buffer)) = (origin, home) {
            values[*buffer] = Some(*value);
        }
    }
    ArenaFlow {
        states: cx.states.clone(),
        flow: Flow { sizes: cx.buffers.iter().map(|buffer| reserved(buffer.size)).collect(), kept, kernels },
        values,
    }
}

/// The kernels of a schedule as numbers.
#[derive(Debug)]
pub struct ArenaFlow {
    /// The kernels, by their places in the schedule.
    pub flow: Flow,
    /// States by their numbers in the flow.
    pub states: Vec<Name>,
    /// The graph's value behind each value of the flow; none for scratch memory.
    pub values: Vec<Option<Value>>,
}

struct Placer<'a> {
    graph: &'a Graph,
    schedule: &'a Schedule,
    lowered: &'a [Lowered],
    homes: HashMap<Origin, Home>,
    views: HashMap<Value, Home>,
    /// Joins that have happened, by their places in the schedule.
    joined: HashSet<usize>,
    /// Step that computes an origin, and the last step that reads it.
    made: HashMap<Origin, u32>,
    read: HashMap<Origin, u32>,
    buffers: Vec<Buffer>,
    workspaces: Vec<Option<usize>>,
    saves: Vec<EndCopy>,
    copies: Vec<EndCopy>,
    states: Vec<Name>,
    trace: Vec<Access>,
}

impl<'a> Placer<'a> {
    fn new(graph: &'a Graph, schedule: &'a Schedule, lowered: &'a [Lowered]) -> Placer<'a> {
        let mut made = HashMap::new();
        let mut read: HashMap<Origin, u32> = HashMap::new();
        for (step, kernel) in schedule.kernels.iter().enumerate() {
            let step = step as u32;
            kernel.results.iter().for_each(|&v| {
                made.insert(Origin::Computed(v), step);
            });
            for operand in &kernel.operands {
                read.insert(schedule.origins[operand.index()].clone(), step);
            }
        }
        for join in &schedule.joins {
            // Nobody makes a join: it is there once its last part is.
            let last = join.parts.iter().filter_map(|&(part, _)| made.get(&Origin::Computed(part))).max();
            let last = last.copied().unwrap_or(0);
            made.insert(Origin::Computed(join.value), last);
            for &(part, _) in &join.parts {
                let until = read.entry(Origin::Computed(part)).or_insert(last);
                *until = last.max(*until);
            }
        }
        let mut states: IndexMap<Name, ()> = IndexMap::new();
        for origin in &schedule.origins {
            if let Origin::State(name) = origin {
                states.insert(name.clone(), ());
            }
        }
        graph.updates().iter().for_each(|u| {
            states.insert(u.state.clone(), ());
        });
        Placer {
            graph,
            schedule,
            lowered,
            homes: HashMap::new(),
            views: HashMap::new(),
            joined: HashSet::new(),
            made,
            read,
            buffers: Vec::new(),
            workspaces: Vec::new(),
            saves: Vec::new(),
            copies: Vec::new(),
            states: states.into_keys().collect(),
            trace: Vec::new(),
        }
    }

    /// With a home for every value.
    fn placed(graph: &'a Graph, schedule: &'a Schedule, lowered: &'a [Lowered]) -> Placer<'a> {
        let mut cx = Placer::new(graph, schedule, lowered);
        cx.fixed();
        cx.results();
        cx.updates();
        cx.arena();
        cx
    }

    /// A kernel as numbers: buffers, outputs and states.
    fn kernel(&self, step: usize, reserved: impl Fn(u64) -> u64) -> flow::Kernel {
        let scheduled = &self.schedule.kernels[step];
        let mut kernel =
            flow::Kernel { workspace: reserved(self.lowered[step].workspace_bytes as u64), ..flow::Kernel::default() };
        let state = |name: &Name| self.states.iter().position(|other| other == name);
        for &operand in &scheduled.operands {
            let origin = self.origin(operand);
            if let Some(join) = self.join_of(&origin) {
                let parts = join.parts.iter().filter_map(|&(part, _)| self.buffer(&Origin::Computed(part)));
                kernel.reads.extend(parts.filter(|part| !kernel.reads.contains(part)).collect::<Vec<_>>());
                continue;
            }
            match (&origin, self.homes.get(&origin)) {
                (Origin::State(name), _) => kernel.reads_states.extend(state(name)),
                (_, Some(Home::Buffer(buffer))) if !kernel.reads.contains(buffer) => kernel.reads.push(*buffer),
                (Origin::Computed(value), Some(Home::Output(_) | Home::State(_))) => {
                    kernel.outside.reads.push(value.index());
                }
                _ => {}
            }
        }
        for &result in &scheduled.results {
            match self.homes.get(&Origin::Computed(result)) {
                Some(Home::Buffer(buffer)) => kernel.writes.push(*buffer),
                Some(home) => {
                    kernel.outside.writes.push(result.index());
                    if let Home::State(name) = home {
                        kernel.writes_states.extend(state(name));
                    }
                }
                None => {}
            }
        }
        let apart = self.pairs(step as u32).filter(|(read, result)| !self.is_joined(read) && !self.is_joined(result));
        let pairs = apart.filter_map(|(read, result)| Some((self.buffer(&read)?, self.buffer(&result)?)));
        kernel.in_place = pairs.collect();
        kernel
    }

    /// The buffer in which an origin lies, if it does in one.
    fn buffer(&self, origin: &Origin) -> Option<usize> {
        match self.homes.get(origin) {
            Some(Home::Buffer(buffer)) => Some(*buffer),
            _ => None,
        }
    }

    fn join_of(&self, origin: &Origin) -> Option<&'a Join> {
        self.schedule.joins.iter().find(|join| *origin == Origin::Computed(join.value))
    }

    /// Whether an origin is a join or a part of one: neither may be overwritten by others, nor lie in others' place.
    fn is_joined(&self, origin: &Origin) -> bool {
        let is_part = |join: &Join| join.parts.iter().any(|&(part, _)| *origin == Origin::Computed(part));
        self.join_of(origin).is_some() || self.schedule.joins.iter().any(is_part)
    }

    fn origin(&self, value: Value) -> Origin {
        self.schedule.origins[value.index()].clone()
    }

    /// Inputs, states and constants lie where they lie.
    fn fixed(&mut self) {
        for origin in &self.schedule.origins {
            let home = match origin {
                Origin::Input(number) => Home::Input(*number),
                Origin::State(name) => Home::State(name.clone()),
                Origin::Constant(value) => Home::Constant(*value),
                Origin::Computed(_) => continue,
            };
            self.homes.insert(origin.clone(), home);
        }
    }

    /// A returned value is computed in its output, if it is computed and no other output has it.
    fn results(&mut self) {
        for (number, &value) in self.graph.returns().iter().enumerate() {
            let origin = self.origin(value);
            if let Entry::Vacant(free) = self.homes.entry(origin.clone()) {
                free.insert(Home::Output(number));
            } else {
                self.copy_later(origin, Home::Output(number), value);
            }
        }
    }

    /// An updated state is computed in place, if nothing reads the old value afterwards.
    fn updates(&mut self) {
        let copied_states: Vec<Name> = self
            .copies
            .iter()
            .filter_map(|c| match &c.from {
                Home::State(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        let moved: Vec<Name> = self
            .graph
            .updates()
            .iter()
            .filter_map(|u| match self.origin(u.value) {
                Origin::State(name) if name != u.state => Some(name),
                _ => None,
            })
            .collect();
        for update in self.graph.updates() {
            let origin = self.origin(update.value);
            let home = Home::State(update.state.clone());
            if self.homes.get(&origin) == Some(&home) {
                continue;
            }
            let needed_at_end = copied_states.contains(&update.state) || moved.contains(&update.state);
            let free = !self.homes.contains_key(&origin) && !needed_at_end;
            if free && self.may_overwrite(&origin, &update.state) {
                self.homes.insert(origin, home);
            } else {
                self.copy_later(origin, home, update.value);
            }
        }
    }

    /// Whether the kernel that makes `origin` may write over a state.
    fn may_overwrite(&self, origin: &Origin, state: &Name) -> bool {
        let Some(&step) = self.made.get(origin) else { return false };
        let old = Origin::State(state.clone());
        match self.read.get(&old) {
            None => true,
            Some(&last) if last < step => true,
            Some(&last) if last > step => false,
            Some(_) => self.pairs(step).any(|(operand, result)| operand == old && result == *origin),
        }
    }

    /// `(operand, result)` origins that a kernel may compute in place.
    fn pairs(&self, step: u32) -> impl Iterator<Item = (Origin, Origin)> + '_ {
        let kernel = &self.schedule.kernels[step as usize];
        let resolve = move |&(operand, result): &(usize, usize)| {
            let operand = kernel.operands.get(operand)?;
            // The operand must be one buffer of the kernel: two views of it would be read at other places.
            let origin = self.origin(*operand);
            let once = kernel.operands.iter().filter(|v| self.origin(**v) == origin).count() == 1;
            once.then(|| (origin, self.origin(kernel.results[result])))
        };
        self.lowered[step as usize].in_place.iter().filter_map(resolve)
    }

    /// A copy at the end. The old value of a state that another copy may write is saved before all copies.
    fn copy_later(&mut self, origin: Origin, to: Home, value: Value) {
        let from = match self.homes.get(&origin) {
            Some(home) => home.clone(),
            None => {
                let home = self.new_buffer(&origin);
                self.homes.insert(origin.clone(), home.clone());
                home
            }
        };
        let end = end_step(self.lowered);
        let updated = |name: &Name| self.graph.updates().iter().any(|update| update.state == *name);
        let overwritten = matches!(&origin, Origin::State(name) if updated(name));
        let from = match to {
            Home::State(_) if overwritten => {
                let bytes = self.graph.ty(value).bytes() as u64;
                let name = format!("{}.saved", self.graph.value_name(value));
                self.buffers.push(Buffer::new(name, bytes, end, end + 2));
                let saved = Home::Buffer(self.buffers.len() - 1);
                self.saves.push(EndCopy { from, to: saved.clone(), value });
                saved
            }
            _ => from,
        };
        self.copies.push(EndCopy { from, to, value });
        self.read.insert(origin, end);
    }

    fn new_buffer(&mut self, origin: &Origin) -> Home {
        let Origin::Computed(value) = origin else { return Home::Input(0) };
        let lower = self.made.get(origin).copied().unwrap_or(0);
        let upper = self.read.get(origin).copied().unwrap_or(lower).max(lower) + 1;
        let bytes = self.graph.ty(*value).bytes() as u64;
        self.buffers.push(Buffer::new(self.graph.value_name(*value).to_string(), bytes, lower, upper));
        Home::Buffer(self.buffers.len() - 1)
    }

    /// Everything else gets a buffer; a result may take over the buffer of an operand that dies with it.
    fn arena(&mut self) {
        for step in 0..self.schedule.kernels.len() {
            let step = step as u32;
            let kernel = &self.schedule.kernels[step as usize];
            let mut taken: Vec<Origin> = Vec::new();
            for &result in &kernel.results {
                let origin = Origin::Computed(result);
                if self.homes.contains_key(&origin) {
                    continue;
                }
                let home = self.new_buffer(&origin);
                self.put_into_join(&origin, &home);
                let candidate = self
                    .pairs(step)
                    .filter(|(operand, r)| *r == origin && !self.is_joined(operand) && !self.is_joined(r))
                    .map(|(operand, _)| operand)
                    .find(|operand| self.read.get(operand) == Some(&step) && !taken.contains(operand));
                if let (Some(operand), Home::Buffer(own)) = (candidate, &home)
                    && let Some(Home::Buffer(other)) = self.homes.get(&operand)
                    && self.buffers[*other].size == self.buffers[*own].size
                {
                    self.buffers[*own].alias_of = Some(*other);
                    taken.push(operand);
                }
                self.homes.insert(origin, home);
            }
            let lowered = &self.lowered[step as usize];
            let uses = lowered.launches.iter().flat_map(|(_, uses)| uses);
            let workspace = (lowered.workspace_bytes > 0
                && uses.into_iter().any(|u| matches!(u, BufferUse::Workspace(_))))
            .then(|| {
                let name = format!("{}.partials", lowered.name);
                self.buffers.push(Buffer::new(name, lowered.workspace_bytes as u64, step, step + 1));
                self.buffers.len() - 1
            });
            self.workspaces.push(workspace);
            self.record(step, workspace);
        }
        let end = end_step(self.lowered);
        for save in &self.saves {
            if let Home::Buffer(buffer) = save.to {
                self.trace.push(Access::write(end, buffer));
            }
        }
        for copy in &self.copies {
            if let Home::Buffer(buffer) = copy.from {
                self.trace.push(Access::read(end + 1, buffer));
            }
        }
    }

    /// The first part of a join brings a buffer for all of it.
    fn put_into_join(&mut self, origin: &Origin, home: &Home) {
        let schedule = self.schedule;
        let of = |join: &Join| join.parts.iter().find(|&&(part, _)| *origin == Origin::Computed(part)).map(|p| p.1);
        let found = schedule.joins.iter().find_map(|join| Some((join, of(join)?)));
        let (Some((join, at)), &Home::Buffer(own)) = (found, home) else { return };
        let whole = Origin::Computed(join.value);
        if !self.homes.contains_key(&whole) {
            let home = self.new_buffer(&whole);
            self.homes.insert(whole.clone(), home);
        }
        if let Some(whole) = self.buffer(&whole) {
            self.buffers[own].alias_of = Some(whole);
            self.buffers[own].alias_at = at as u64;
        }
    }

    /// The buffer in which a kernel finds an operand: of a view, one for these bytes.
    fn read_buffer(&mut self, operand: Value, step: u32) -> Option<usize> {
        let base = self.buffer(&self.origin(operand))?;
        let Some(&at) = self.schedule.views.get(&operand) else { return Some(base) };
        if let Some(Home::Buffer(view)) = self.views.get(&operand) {
            self.buffers[*view].upper = step + 1;
            return Some(*view);
        }
        let name = self.graph.value_name(operand).to_string();
        let view = Buffer::new(name, self.graph.ty(operand).bytes() as u64, step, step + 1);
        self.buffers.push(view.part_of(base, at as u64));
        self.views.insert(operand, Home::Buffer(self.buffers.len() - 1));
        Some(self.buffers.len() - 1)
    }

    fn record(&mut self, step: u32, workspace: Option<usize>) {
        let kernel = &self.schedule.kernels[step as usize];
        for &operand in &kernel.operands {
            let origin = self.origin(operand);
            let join = self.schedule.joins.iter().position(|join| origin == Origin::Computed(join.value));
            if let (Some(join), Some(buffer)) = (join, self.buffer(&origin))
                && self.joined.insert(join)
            {
                self.trace.push(Access::join(step, buffer));
            }
            if let Some(buffer) = self.read_buffer(operand, step) {
                self.trace.push(Access::read(step, buffer));
            }
        }
        for &result in &kernel.results {
            if let Some(Home::Buffer(buffer)) = self.homes.get(&self.origin(result)) {
                self.trace.push(Access::write(step, *buffer));
            }
        }
        if let Some(buffer) = workspace {
            self.trace.push(Access::write(step, buffer));
        }
    }
}
