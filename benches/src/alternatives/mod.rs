//! Alternatives that compute the same as the library.

pub mod chain;
pub mod concatenated;
