//! The machine room of Kiln: it only computes.

pub mod arena;
pub mod data;
pub mod error;
pub mod executable;
pub mod init;
pub mod kernels;
mod launch;
pub mod philox;
pub mod pool;
pub mod profile;
pub mod session;
pub mod states;
pub mod tensor;

pub use error::{LoadError, RunError};
pub use executable::{Binding, Code, Executable, KernelFn, Launch, Site, Slot, Status};
pub use pool::Pool;
pub use profile::Profile;
pub use session::{ProgramId, Session};
pub use states::StateStore;
pub use tensor::{Element, Tensor, TensorError};
