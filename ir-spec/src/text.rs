//! The text of a program, in two forms under one grammar.

pub mod ast;
