//! The last run of a program: what only it uses gives its memory back on the way.

use std::collections::{HashMap, HashSet};

use kiln_ir::Name;

use super::{ProgramId, Session};
use crate::error::RunError;
use crate::executable::{Executable, Slot};
use crate::tensor::Tensor;

impl Session {
    /// [`Session::run`] for a program that is not needed again, such as `@prepare`: it is unloaded, whatever the result.
    /// A state that no other loaded program uses is gone after the last launch that uses it. So while weights become
    /// folded weights, and these become panels, the session holds each about once.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_last(&mut self, id: ProgramId, inputs: &[&Tensor], outputs: &mut [Tensor]) -> Result<(), RunError> {
        self.prepare(id, inputs, outputs)?;
        let executable = self.executable(id)?.clone();
        let unneeded = self.unneeded_after(id, &executable);
        let done = (0..executable.launches.len()).try_for_each(|launch| {
            self.launch(id, launch)?;
            unneeded.get(&launch).into_iter().flatten().try_for_each(|state| Ok(self.states.free(state)?))
        });
        self.states.forget(&unneeded.into_values().flatten().collect());
        if let Some(program) = self.programs.get_mut(id.0) {
            *program = None;
        }
        done
    }

    /// For each launch, the states that neither a later one nor another program uses.
    fn unneeded_after<'a>(&self, id: ProgramId, executable: &'a Executable) -> HashMap<usize, Vec<&'a Name>> {
        let others = self.programs.iter().enumerate().filter(|(number, _)| *number != id.0);
        let others = others.filter_map(|(_, program)| program.as_ref());
        let needed: HashSet<&Name> =
            others.flat_map(|other| &other.executable.states).map(|state| &state.name).collect();
        let mut last = HashMap::new();
        for (number, launch) in executable.launches.iter().enumerate() {
            for slot in &launch.slots {
                if let Slot::State(state) = slot {
                    last.insert(*state, number);
                }
            }
        }
        let mut unneeded: HashMap<usize, Vec<&Name>> = HashMap::new();
        for (state, launch) in last {
            let name = executable.states.get(state).map(|state| &state.name);
            if let Some(name) = name.filter(|name| !needed.contains(name)) {
                unneeded.entry(launch).or_default().push(name);
            }
        }
        unneeded
    }
}
