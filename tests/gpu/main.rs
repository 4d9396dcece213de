//! The kernels on a real adapter. Without one these tests fail and say how to get one.

mod adamw;
mod errors;
mod goldens;
#[path = "../layer/mod.rs"]
mod layer;
mod linear;
mod properties;
mod shapes;
mod support;
