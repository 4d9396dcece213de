//! What else computes the same.

pub mod chain;
pub mod concatenated;
