//! Buffers of a training: the tensors of a batch and of the results, one set per batch size.

use std::collections::BTreeMap;

use kiln_ir::{Name, TensorType};
use smallvec::SmallVec;

use super::error::TrainError;
use super::options::TrainPrograms;
use crate::data::Dataset;
use crate::session::{ProgramId, Session};
use crate::tensor::Tensor;

/// Runs programs on batches.
pub(crate) struct Feed {
    by_batch: BTreeMap<usize, Buffers>,
    prepare: Option<ProgramId>,
}

struct Buffers {
    /// One per distinct input of the programs.
    batch: Vec<(Name, Tensor)>,
    steps: Vec<Runner>,
    eval: Option<Runner>,
}

struct Runner {
    id: ProgramId,
    /// Name of the program.
    program: Name,
    /// Indices into the batch, in the order of the program's inputs.
    inputs: Vec<usize>,
    outputs: Vec<Tensor>,
    names: Vec<Name>,
}

/// Which programs to run on a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Step,
    Eval,
}

impl Feed {
    pub(crate) fn new(session: &Session, programs: &TrainPrograms) -> Result<Feed, TrainError> {
        let mut by_batch = BTreeMap::new();
        for (&size, programs) in &programs.by_batch {
            let mut batch = Vec::new();
            let steps = programs.steps.iter().map(|&id| Runner::new(session, id, size, &mut batch));
            let mut steps: Vec<Runner> = steps.collect::<Result<_, _>>()?;
            tell_apart(&mut steps);
            let eval = programs.eval.map(|id| Runner::new(session, id, size, &mut batch)).transpose()?;
            by_batch.insert(size, Buffers { batch, steps, eval });
        }
        Ok(Feed { by_batch, prepare: programs.prepare })
    }

    /// What runs before an evaluation.
    pub(crate) fn prepare(&self) -> Option<ProgramId> {
        self.prepare
    }

    /// Names of the results, in the order of [`Feed::run`]'s values.
    pub(crate) fn names(&self, kind: Kind) -> Vec<Name> {
        self.runners(kind).iter().flat_map(|runner| runner.names.iter().cloned()).collect()
    }

    /// Where losses stand among the values of [`Kind::Step`]: those of these names, or the first result of each program.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] if no program returns one of the names.
    pub(crate) fn losses(&self, names: &[Name]) -> Result<Vec<usize>, TrainError> {
        if names.is_empty() {
            let starts = self.runners(Kind::Step).iter().scan(0, |end, runner| {
                *end += runner.names.len();
                Some(*end - runner.names.len())
            });
            return Ok(starts.collect());
        }
        let all = self.names(Kind::Step);
        let place = |name: &Name| all.iter().position(|other| other == name);
        let missing = |name: &Name| TrainError::Recipe {
            key: "losses",
            value: name.to_string(),
            wanted: "a list of names of results",
        };
        names.iter().map(|name| place(name).ok_or_else(|| missing(name))).collect()
    }

    fn runners(&self, kind: Kind) -> &[Runner] {
        let runners = self.by_batch.values().map(|buffers| buffers.runners(kind)).find(|runners| !runners.is_empty());
        runners.unwrap_or_default()
    }

    /// Runs the programs of a kind on the examples `indices`, and stores their results in `values`.
    pub(crate) fn run(
        &mut self,
        session: &mut Session,
        data: &Dataset,
        kind: Kind,
        indices: &[usize],
        values: &mut Vec<f64>,
    ) -> Result<(), TrainError> {
        let size = indices.len();
        let missing = || {
            let kind = if kind == Kind::Step { "step" } else { "eval" };
            TrainError::MissingProgram { kind, size }
        };
        let buffers = self.by_batch.get_mut(&size).ok_or_else(missing)?;
        for (input, tensor) in &mut buffers.batch {
            data.fill(input, indices, tensor)?;
        }
        let Buffers { batch, steps, eval } = buffers;
        let runners = match kind {
            Kind::Step => &mut steps[..],
            Kind::Eval => eval.as_mut_slice(),
        };
        if runners.is_empty() {
            return Err(missing());
        }
        values.clear();
        for runner in runners {
            // On the stack: a step allocates nothing.
            let inputs: SmallVec<[&Tensor; 8]> = runner.inputs.iter().filter_map(|&i| Some(&batch.get(i)?.1)).collect();
            session.run(runner.id, &inputs, &mut runner.outputs)?;
            values.extend(runner.outputs.iter().map(|output| output.get(0).unwrap_or(f64::NAN)));
        }
        Ok(())
    }
}

impl Buffers {
    fn runners(&self, kind: Kind) -> &[Runner] {
        match kind {
            Kind::Step => &self.steps,
            Kind::Eval => self.eval.as_slice(),
        }
    }
}

impl Runner {
    /// Prepares a program, adding tensors to `batch` for inputs that it has not yet.
    fn new(
        session: &Session,
        id: ProgramId,
        size: usize,
        batch: &mut Vec<(Name, Tensor)>,
    ) -> Result<Runner, TrainError> {
        let executable = session.executable(id)?;
        let signature = |value: &Name, ty: &TensorType, wanted: String| TrainError::Signature {
            program: executable.name.clone(),
            value: value.clone(),
            ty: ty.to_string(),
            wanted,
        };
        let mut inputs = Vec::new();
        for input in &executable.inputs {
            if input.ty.extents().first() != Some(&size) {
                return Err(signature(&input.name, &input.ty, format!("the batch has {size} examples")));
            }
            let known = batch.iter().position(|(name, tensor)| *name == input.name && *tensor.ty() == input.ty);
            inputs.push(known.unwrap_or(batch.len()));
            if known.is_none() {
                batch.push((input.name.clone(), Tensor::zeros(input.ty.clone()).map_err(crate::RunError::from)?));
            }
        }
        let mut names = Vec::new();
        for output in &executable.outputs {
            if output.ty.elements() != 1 {
                let wanted = "loss and metrics are scalars, means over the batch".into();
                return Err(signature(&output.name, &output.ty, wanted));
            }
            names.push(output.name.clone());
        }
        Ok(Runner { id, program: executable.name.clone(), inputs, outputs: session.outputs(id)?, names })
    }
}

/// Results of several programs under one name are called after their programs too.
fn tell_apart(runners: &mut [Runner]) {
    let all: Vec<Name> = runners.iter().flat_map(|runner| runner.names.iter().cloned()).collect();
    for runner in runners {
        for name in &mut runner.names {
            if all.iter().filter(|other| *other == name).count() > 1 {
                *name = format!("{}.{name}", runner.program).into();
            }
        }
    }
}
