//! The decisions of Kiln: passes, autodiff, memory plan, loops and code.

pub mod memory;
