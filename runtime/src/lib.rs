//! The machine room of Kiln: it only computes.

pub mod arena;
pub mod data;
pub mod executable;
pub mod kernels;
pub mod pool;
pub mod tensor;

pub use executable::{Binding, Code, Executable, KernelFn, Launch, Site, Slot, Status};
pub use pool::Pool;
pub use tensor::{Element, Tensor, TensorError};
