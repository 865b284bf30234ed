//! Loop nests: what one kernel does, between the graph and machine code.
//!
//! [`nest`] is the language, [`mod@build`] makes nests from regions, [`print`](mod@print) its text, [`tile`] cuts parallel domains into tiles.

pub mod build;
pub mod nest;
pub mod print;
pub mod tile;
pub(crate) mod walk;
