//! Contracts of the operations that need their form at a named level of vector instructions.

mod levels;
mod nan;
