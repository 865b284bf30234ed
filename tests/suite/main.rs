//! The suite: one binary, one module per concern.

mod equivalence;
