//! What can go wrong when a program is loaded or run.

use std::fmt;

use kiln_ir::{DType, Name, TensorType};

use crate::arena::OutOfMemory;
use crate::pool::WorkerPanicked;

/// A program cannot be loaded into a session, or a state cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The session has no state of that name.
    #[error("@{program} reads the state @{state}, which the session does not have; initialise or load states first")]
    MissingState {
        /// The program.
        program: Name,
        /// The state.
        state: Name,
    },
    /// The session's state is of another type.
    #[error("the state @{state} is {found} in this session, but {wanted} is needed; use weights of the same model")]
    StateType {
        /// The state.
        state: Name,
        /// Its type in the session.
        found: Box<TensorType>,
        /// The type asked for.
        wanted: Box<TensorType>,
    },
    /// The session has no such state.
    #[error("there is no state @{state}")]
    UnknownState {
        /// The name that was looked up.
        state: Name,
    },
    /// The executable contradicts itself.
    #[error("@{program}, kernel {kernel}: {what}; this is a defect in Kiln")]
    Malformed {
        /// The program.
        program: Name,
        /// The kernel.
        kernel: String,
        /// What is wrong.
        what: String,
    },
    /// No memory.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// A run failed. States may have been updated in part; inputs are untouched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// No program has this id. The caller's fault.
    #[error("the session has loaded {programs} programs, and there is no number {id}, or it had its last run")]
    UnknownProgram {
        /// The id.
        id: usize,
        /// Number of loaded programs.
        programs: usize,
    },
    /// Too few or too many tensors. The caller's fault.
    #[error("@{program} takes {expected} {direction}, {given} were given")]
    Count {
        /// The program.
        program: Name,
        /// Inputs or outputs.
        direction: Direction,
        /// As the program has them.
        expected: usize,
        /// As given.
        given: usize,
    },
    /// A tensor of another type. The caller's fault.
    #[error("@{program}: %{name} is declared {expected}, but the tensor given is {given}; reshape or convert it")]
    Type {
        /// The program.
        program: Name,
        /// The input or output.
        name: Name,
        /// As declared.
        expected: Box<TensorType>,
        /// As given.
        given: Box<TensorType>,
    },
    /// An input value at or above its declared bound.
    #[error("@{program}: %{name} is declared below {limit}, but element {position} is {value}; correct the data")]
    OutOfRange {
        /// The program.
        program: Name,
        /// The input.
        name: Name,
        /// Linear position of the first such element.
        position: usize,
        /// Its value.
        value: i64,
        /// Values must lie in `0..limit`.
        limit: u64,
    },
    /// A kernel met a value that its op does not allow, such as an index out of range.
    #[error("{fault}")]
    Kernel {
        /// What it reported.
        fault: Box<KernelFault>,
    },
    /// A worker panicked.
    #[error(transparent)]
    Panicked(#[from] WorkerPanicked),
    /// No memory for the results.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// Which side of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Tensors given.
    Inputs,
    /// Tensors filled.
    Outputs,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Inputs => "inputs",
            Direction::Outputs => "outputs",
        })
    }
}

/// A check inside a kernel that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFault {
    /// The program.
    pub program: Name,
    /// The kernel.
    pub kernel: String,
    /// Mnemonic of the op.
    pub op: String,
    /// Script line of the op.
    pub source: Option<String>,
    /// What was checked.
    pub what: String,
    /// Linear position of the value.
    pub position: u64,
    /// The value.
    pub value: i64,
    /// Valid values are `0..limit`.
    pub limit: u64,
}

impl fmt::Display for KernelFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KernelFault { program, op, what, position, value, limit, .. } = self;
        if let Some(source) = &self.source {
            write!(f, "{source}: ")?;
        }
        write!(f, "{op} in @{program}: {what} is {value} at position {position}, but must lie in 0..{limit}; ")?;
        f.write_str("correct the data, or declare the input `below` that bound to have it checked at load")
    }
}

/// Whether integers of this type can be checked against a bound.
pub(crate) fn boundable(dtype: DType) -> bool {
    dtype.is_integer()
}
