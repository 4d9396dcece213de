//! The kernels on a real adapter. Without one these tests fail and say how to get one.

mod shapes;
mod support;
