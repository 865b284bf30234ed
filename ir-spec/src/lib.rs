//! The language of Kiln: what a program is and what it means.

#![forbid(unsafe_code)]

pub mod attribute;
mod bind;
pub mod body;
pub mod builder;
pub mod diagnostic;
pub mod graph;
pub mod layer;
pub mod model;
pub mod module;
pub mod op;
pub mod reference;
pub mod scalar;
pub mod script;
pub mod spec;
pub mod text;
pub mod types;
pub mod verify;

pub use diagnostic::{Diagnostic, Severity};
pub use graph::{Graph, Location, Node, Provenance, Value};
pub use module::{Initializer, Module, Recipe, Role, State};
pub use op::{Elementwise, Op};
pub use types::{Bindings, DType, Dim, DimError, Extents, Layout, Name, Shape, TensorType};
