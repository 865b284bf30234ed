//! The machine room of Kiln: it only computes.
//!
//! A [`Session`] owns states, an arena and worker threads, and runs [`Executable`]s over them; it allocates when a
//! program is loaded and never during a run. [`train::fit()`] is the fit loop on top, [`data`] feeds it, [`weights`]
//! and [`train::checkpoint`] read and write what it learns. The compiler is not known here.
//!
//! ```
//! use std::sync::Arc;
//! use kiln_ir::{DType, TensorType};
//! use kiln_rt::{Binding, Code, Executable, KernelFn, Launch, Session, Slot, Tensor};
//!
//! /// `y = 2 x`, one element per tile, in the place of compiled code.
//! unsafe extern "C" fn double(table: *const *mut u8, begin: u64, end: u64) {
//!     for i in begin as usize..end as usize {
//!         // SAFETY: slots 2 and 3 are the launch's, and hold as many floats as it has tiles.
//!         unsafe { *(*table.add(3)).cast::<f32>().add(i) = 2.0 * *(*table.add(2)).cast::<f32>().add(i) };
//!     }
//! }
//!
//! struct Double;
//! impl Code for Double {
//!     fn entry(&self, _: usize) -> KernelFn { double }
//!     fn bytes(&self) -> usize { 0 }
//! }
//!
//! let vector = TensorType::new(DType::F32, [3]);
//! let launch = Launch {
//!     name: "double".into(), entry: 0, slots: vec![Slot::Input(0), Slot::Output(0)], tiles: 3,
//!     forks: None, scratch_bytes: 0, flops: 3, bytes: 24, source: None, sites: vec![],
//! };
//! let program = Executable {
//!     name: "predict".into(), inputs: vec![Binding::new("x", vector.clone())],
//!     outputs: vec![Binding::new("y", vector)], states: vec![], launches: vec![launch], constants: vec![],
//!     arena_bytes: 0, code: Arc::new(Double), keep: vec![], fingerprint: 0,
//! };
//! let mut session = Session::new(2)?;
//! let id = session.load(Arc::new(program))?;
//! let mut outputs = session.outputs(id)?;
//! session.run(id, &[&Tensor::from_vec([3], vec![1.0_f32, 2.0, 3.0])?], &mut outputs)?;
//! assert_eq!(outputs[0].as_slice::<f32>()?, [2.0, 4.0, 6.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants: a run allocates nothing; no result depends on the number of threads or on who runs which tile; a file
//! that is written is either the old or the new one; nothing that is read can make it panic.

pub mod arena;
pub mod atomic_file;
pub mod cache;
pub mod data;
pub mod error;
pub mod executable;
pub mod init;
pub mod kernels;
mod launch;
pub mod machine;
pub mod philox;
pub mod pool;
pub mod profile;
pub mod session;
pub mod states;
pub mod tensor;
pub mod train;
pub mod weights;

pub use error::{LoadError, RunError};
pub use executable::{Binding, Code, Executable, KernelFn, Launch, Site, Slot, Status};
pub use pool::Pool;
pub use profile::Profile;
pub use session::{ProgramId, Session};
pub use states::StateStore;
pub use tensor::{Element, Tensor, TensorError};
pub use weights::Weights;
