//! Executable memory for compiled kernels.
