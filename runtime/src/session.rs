//! A session: programs, their states, one arena and the workers.
#![allow(unsafe_code, reason = "runs compiled code over tables it has checked")]

use std::sync::Arc;
use std::time::Instant;

use indexmap::IndexMap;
use kiln_ir::{Module, Name};

use crate::arena::{Arena, OutOfMemory};
use crate::error::{Direction, KernelFault, LoadError, RunError, boundable};
use crate::executable::{Binding, Executable, Status};
use crate::init;
use crate::launch::{Faults, Memory, Tables};
use crate::pool::{Pool, WorkerPanicked};
use crate::profile::{LaunchTimes, Profile};
use crate::states::StateStore;
use crate::tensor::Tensor;
use forking::Forking;

mod forking;
mod last_run;

/// Distance of the workers' status words: each in its own pair of cache lines.
const STATUS_STRIDE: usize = 128;

/// A loaded program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProgramId(usize);

/// Runs programs over shared states. Everything is allocated when a program is loaded, nothing during a run.
pub struct Session {
    pool: Pool,
    states: StateStore,
    /// `None` where a program has been unloaded.
    programs: Vec<Option<Program>>,
    arena: Arena,
    scratch: Vec<Arena>,
    statuses: Arena,
    faults: Faults,
}

struct Program {
    // Declared first, so that tables go before what they point to.
    tables: Tables,
    constants: Arena,
    executable: Arc<Executable>,
    forking: Forking,
}

impl Session {
    /// A session with a fixed number of worker threads, the calling thread included; 0 counts as 1.
    ///
    /// # Errors
    /// The system's, if a thread cannot be started.
    pub fn new(threads: usize) -> std::io::Result<Session> {
        let pool = Pool::new(threads)?;
        let memory = |bytes| Arena::new(bytes).map_err(std::io::Error::other);
        Ok(Session {
            states: StateStore::default(),
            programs: Vec::new(),
            arena: memory(0)?,
            scratch: (0..pool.threads()).map(|_| memory(0)).collect::<Result<_, _>>()?,
            statuses: memory(pool.threads() * STATUS_STRIDE)?,
            faults: Faults::default(),
            pool,
        })
    }

    /// Gives every state of the module its initial value. States that the session already has are set anew.
    ///
    /// # Errors
    /// [`LoadError::StateType`] if the session has a state of that name and another type; [`LoadError::OutOfMemory`].
    /// No state has changed then.
    pub fn initialize(&mut self, module: &Module, seed: u64) -> Result<(), LoadError> {
        self.initialize_with(module, seed, IndexMap::new())
    }

    /// [`Session::initialize`], but states in `given` get these tensors, which are not copied if the states are new.
    ///
    /// # Errors
    /// As [`Session::initialize`]; [`LoadError::StateType`] also if a tensor is of another type than the module's state,
    /// [`LoadError::UnknownState`] if the module has none of that name.
    pub fn initialize_with(
        &mut self,
        module: &Module,
        seed: u64,
        mut given: IndexMap<Name, Tensor>,
    ) -> Result<(), LoadError> {
        let mut values = Vec::with_capacity(module.states.len());
        for (name, state) in &module.states {
            let tensor = match given.swap_remove(name) {
                Some(tensor) => tensor,
                None => init::initial(name, state, seed)?,
            };
            if *tensor.ty() != state.ty {
                return Err(LoadError::StateType {
                    state: name.clone(),
                    found: Box::new(tensor.ty().clone()),
                    wanted: Box::new(state.ty.clone()),
                });
            }
            values.push((name.clone(), tensor));
        }
        if let Some((state, _)) = given.pop() {
            return Err(LoadError::UnknownState { state });
        }
        self.states.put(values)
    }

    /// Adds a state, or sets the one of that name.
    ///
    /// # Errors
    /// [`LoadError::StateType`] if a state of that name has another type.
    pub fn put_state(&mut self, name: impl Into<Name>, tensor: Tensor) -> Result<(), LoadError> {
        self.states.put([(name.into(), tensor)])
    }

    /// Adds states, and sets those that are there.
    ///
    /// # Errors
    /// [`LoadError::StateType`] if a state of that name has another type; no state has changed then.
    pub fn put_states(&mut self, tensors: IndexMap<Name, Tensor>) -> Result<(), LoadError> {
        self.states.put(tensors)
    }

    /// Copies a tensor into a state.
    ///
    /// # Errors
    /// [`LoadError::UnknownState`], [`LoadError::StateType`].
    pub fn set_state(&mut self, name: &str, tensor: &Tensor) -> Result<(), LoadError> {
        self.states.set(name, tensor)
    }

    /// The states.
    pub fn states(&self) -> &StateStore {
        &self.states
    }

    /// Number of workers, the caller included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Tiles that each worker has run; 0 is the caller.
    pub fn tiles_run(&self) -> Vec<u64> {
        self.pool.tiles_run()
    }

    /// Size of the arena in bytes: that of the largest program.
    pub fn arena_bytes(&self) -> usize {
        self.arena.len()
    }

    /// Makes a program runnable. The arena, shared by all programs, grows to the largest.
    ///
    /// # Errors
    /// [`LoadError::MissingState`] or [`LoadError::StateType`] if the session's states are not those of the program;
    /// the session is then as before.
    pub fn load(&mut self, executable: Arc<Executable>) -> Result<ProgramId, LoadError> {
        for state in &executable.states {
            if self.states.get(&state.name).is_none() {
                let (program, state) = (executable.name.clone(), state.name.clone());
                return Err(LoadError::MissingState { program, state });
            }
            self.states.typed(&state.name, &state.ty)?;
        }
        self.grow(&executable)?;
        let mut constants = Arena::new(executable.constants.len())?;
        constants.as_mut_slice().copy_from_slice(&executable.constants);
        let forking = Forking::new(&executable.launches, self.threads());
        let mut program = Program { tables: Tables::default(), constants, executable, forking };
        program.tables = self.tables(&mut program.constants, &program.executable)?;
        self.programs.push(Some(program));
        Ok(ProgramId(self.programs.len() - 1))
    }

    /// Makes arena and scratch large enough, and renews the tables that point into them.
    fn grow(&mut self, executable: &Executable) -> Result<(), LoadError> {
        let mut moved = false;
        if executable.arena_bytes > self.arena.len() {
            self.arena = Arena::new(executable.arena_bytes)?;
            moved = true;
        }
        for scratch in &mut self.scratch {
            if executable.scratch_bytes() > scratch.len() {
                *scratch = Arena::new(executable.scratch_bytes())?;
                moved = true;
            }
        }
        if moved {
            let mut programs = std::mem::take(&mut self.programs);
            let renewed = programs.iter_mut().flatten().try_for_each(|program| {
                program.tables = self.tables(&mut program.constants, &program.executable)?;
                Ok(())
            });
            self.programs = programs;
            return renewed;
        }
        Ok(())
    }

    fn tables(&mut self, constants: &mut Arena, executable: &Executable) -> Result<Tables, LoadError> {
        let states = &mut self.states;
        let states: Vec<*mut u8> = executable
            .states
            .iter()
            .map(|state| states.typed(&state.name, &state.ty).map(Tensor::as_mut_ptr))
            .collect::<Result<_, _>>()?;
        let statuses = self.statuses.as_mut_ptr();
        let workers: Vec<(*mut u8, *mut u8)> = self
            .scratch
            .iter_mut()
            .enumerate()
            .map(|(worker, scratch)| (scratch.as_mut_ptr(), statuses.wrapping_add(worker * STATUS_STRIDE)))
            .collect();
        let memory = Memory {
            arena: self.arena.as_mut_ptr(),
            constants: constants.as_mut_ptr(),
            states: &states,
            workers: &workers,
        };
        Tables::build(executable, &memory)
    }

    /// The compiled program behind an id.
    ///
    /// # Errors
    /// [`RunError::UnknownProgram`].
    pub fn executable(&self, id: ProgramId) -> Result<&Arc<Executable>, RunError> {
        let unknown = RunError::UnknownProgram { id: id.0, programs: self.programs.len() };
        self.programs.get(id.0).and_then(Option::as_ref).map(|program| &program.executable).ok_or(unknown)
    }

    /// Tensors for a program's results, to be given to [`Session::run`] again and again.
    ///
    /// # Errors
    /// [`RunError::UnknownProgram`], [`RunError::OutOfMemory`].
    pub fn outputs(&self, id: ProgramId) -> Result<Vec<Tensor>, RunError> {
        let executable = self.executable(id)?;
        let zeros = |binding: &Binding| Tensor::zeros(binding.ty.clone());
        Ok(executable.outputs.iter().map(zeros).collect::<Result<_, OutOfMemory>>()?)
    }

    /// Runs a program: reads `inputs`, fills `outputs`, updates its states. Allocates nothing.
    ///
    /// # Errors
    /// [`RunError`]: tensors of another type, values out of their declared range, or what a kernel reports.
    pub fn run(&mut self, id: ProgramId, inputs: &[&Tensor], outputs: &mut [Tensor]) -> Result<(), RunError> {
        self.prepare(id, inputs, outputs)?;
        self.launches(id, None)
    }

    /// Runs a program `iterations` times and times each launch. States are updated as often.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn profile(
        &mut self,
        id: ProgramId,
        inputs: &[&Tensor],
        outputs: &mut [Tensor],
        iterations: usize,
    ) -> Result<Profile, RunError> {
        let executable = self.executable(id)?.clone();
        let mut times: Vec<LaunchTimes> = executable.launches.iter().map(LaunchTimes::new).collect();
        let mut totals = Vec::with_capacity(iterations);
        for _ in 0..iterations {
            let start = Instant::now();
            self.prepare(id, inputs, outputs)?;
            self.launches(id, Some(&mut times))?;
            totals.push(start.elapsed());
        }
        Ok(Profile::new(times, totals))
    }

    /// Checks the tensors against the signature and enters their addresses.
    fn prepare(&mut self, id: ProgramId, inputs: &[&Tensor], outputs: &mut [Tensor]) -> Result<(), RunError> {
        let program = self.program(id)?;
        let executable = &*program.executable;
        check_count(executable, Direction::Inputs, executable.inputs.len(), inputs.len())?;
        check_count(executable, Direction::Outputs, executable.outputs.len(), outputs.len())?;
        for (binding, tensor) in executable.inputs.iter().zip(inputs) {
            check_type(executable, binding, tensor)?;
            check_range(executable, binding, tensor)?;
        }
        for (binding, tensor) in executable.outputs.iter().zip(outputs.iter()) {
            check_type(executable, binding, tensor)?;
        }
        program.tables.patch(inputs, outputs);
        Ok(())
    }

    /// Runs the launches of a prepared program, and enters the time of each.
    fn launches(&mut self, id: ProgramId, mut times: Option<&mut [LaunchTimes]>) -> Result<(), RunError> {
        let program = self.program(id)?;
        let launches = program.executable.launches.len();
        let learns = program.forking.times_launches();
        let start = Instant::now();
        for launch in 0..launches {
            let clock = (learns || times.is_some()).then(Instant::now);
            self.launch(id, launch)?;
            let Some(time) = clock.map(|start| start.elapsed()) else { continue };
            if let Some(times) = times.as_mut().and_then(|times| times.get_mut(launch)) {
                times.push(time);
            }
            self.program(id)?.forking.launch_took(launch, time);
        }
        self.program(id)?.forking.run_took(start.elapsed());
        Ok(())
    }

    fn program(&mut self, id: ProgramId) -> Result<&mut Program, RunError> {
        let unknown = RunError::UnknownProgram { id: id.0, programs: self.programs.len() };
        self.programs.get_mut(id.0).and_then(Option::as_mut).ok_or(unknown)
    }

    /// Runs one launch of a prepared program.
    fn launch(&mut self, id: ProgramId, index: usize) -> Result<(), RunError> {
        let unknown = RunError::UnknownProgram { id: id.0, programs: self.programs.len() };
        let program = self.programs.get(id.0).and_then(Option::as_ref).ok_or(unknown)?;
        let Some(launch) = program.executable.launches.get(index) else { return Ok(()) };
        let entry = program.executable.code.entry(launch.entry);
        let task = |worker: usize, begin: u64, end: u64| {
            // SAFETY: `prepare` patched the tables with tensors of the declared types that the caller of `run` still
            // borrows; arena, constants, scratch and states live in this session and tables are renewed when they
            // move; the pool never runs one worker or one tile twice at a time.
            unsafe { program.tables.call((worker, index), entry, (begin, end), &self.faults) }
        };
        let done: Result<(), WorkerPanicked> = match program.forking.forks(index) {
            true => self.pool.run(launch.tiles, &task),
            false => self.pool.run_here(launch.tiles, &task),
        };
        done?;
        match self.faults.take() {
            None => Ok(()),
            Some(status) => Err(self.fault(id, index, status)),
        }
    }

    /// Explains a status word.
    fn fault(&self, id: ProgramId, index: usize, status: Status) -> RunError {
        let executable = match self.executable(id) {
            Ok(executable) => executable,
            Err(error) => return error,
        };
        let launch = executable.launches.get(index);
        let site = launch.and_then(|launch| launch.site(status.code));
        let fault = KernelFault {
            program: executable.name.clone(),
            kernel: launch.map(|launch| launch.name.clone()).unwrap_or_default(),
            op: site.map_or_else(|| format!("an op with the unknown code {}", status.code), |site| site.op.clone()),
            source: site.map_or_else(|| launch.and_then(|launch| launch.source.clone()), |site| site.source.clone()),
            what: site.map_or_else(|| "a checked value".to_owned(), |site| site.what.clone()),
            position: status.position,
            value: status.value as i64,
            limit: site.map_or(0, |site| site.limit),
        };
        RunError::Kernel { fault: Box::new(fault) }
    }
}

fn check_count(program: &Executable, direction: Direction, expected: usize, given: usize) -> Result<(), RunError> {
    match expected == given {
        true => Ok(()),
        false => Err(RunError::Count { program: program.name.clone(), direction, expected, given }),
    }
}

fn check_type(program: &Executable, binding: &Binding, tensor: &Tensor) -> Result<(), RunError> {
    if *tensor.ty() == binding.ty {
        return Ok(());
    }
    Err(RunError::Type {
        program: program.name.clone(),
        name: binding.name.clone(),
        expected: Box::new(binding.ty.clone()),
        given: Box::new(tensor.ty().clone()),
    })
}

fn check_range(program: &Executable, binding: &Binding, tensor: &Tensor) -> Result<(), RunError> {
    let Some(limit) = binding.below.filter(|_| boundable(tensor.dtype())) else { return Ok(()) };
    match crate::data::range::first_outside(tensor, limit) {
        None => Ok(()),
        Some((position, value)) => Err(RunError::OutOfRange {
            program: program.name.clone(),
            name: binding.name.clone(),
            position,
            value,
            limit,
        }),
    }
}

#[cfg(test)]
pub(crate) mod tests;
