//! The machine room of Kiln: it only computes.

pub mod executable;

pub use executable::{Binding, Code, Executable, KernelFn, Launch, Site, Slot, Status};
