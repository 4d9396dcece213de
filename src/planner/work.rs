//! The work of operations, and checks that they share.

use crate::element::Element;
use crate::error::{Error, Limit};
use crate::layer::{Config, Layout};
use crate::plan::{DeviceProfile, FEWER_TOKENS, MOST_BYTES};

/// vec4s in a row of `width` elements.
pub(super) fn vecs(width: u32) -> u32 {
    width.div_ceil(4)
}

/// Bytes of a matrix.
pub(super) fn matrix_bytes(element: Element, rows: u32, width: u32) -> u64 {
    element.bytes().saturating_mul(u64::from(rows)).saturating_mul(u64::from(width))
}

/// Floating-point operations of the products with the shrink and the expand block, without padding.
pub(super) fn product_flops(config: &Config, tokens: u32) -> u64 {
    let [d_in, d_out, rows] = [config.d_in, config.d_out, config.rank * config.experts].map(u64::from);
    let products = (d_in * u64::from(config.shrink_rows())).saturating_add(d_out * rows);
    (2 * u64::from(tokens)).saturating_mul(products)
}

/// Checks the configuration and the number of tokens, for all operations on the adapter.
pub(super) fn check_tokens(config: &Config, tokens: u32) -> Result<Layout, Error> {
    let layout = config.layout()?;
    check_matrix(tokens, config.d_in.max(config.d_out).max(config.state_len()))?;
    Ok(layout)
}

/// Refuses zero tokens, and a widest matrix with more elements than kernels can count.
pub(super) fn check_matrix(tokens: u32, widest: u32) -> Result<(), Error> {
    Error::check_dimension("tokens", tokens)?;
    Error::check_limit(
        format_args!("{tokens} tokens of {widest} elements"),
        Limit::Elements,
        u64::from(tokens) * u64::from(widest),
        MOST_BYTES / 2,
        if tokens > 1 { FEWER_TOKENS } else { "use a narrower layer" },
    )
}

/// The dispatches among which the device divides this many floating-point operations.
pub(super) fn dispatches(flops: u64, device: &DeviceProfile) -> u64 {
    flops.div_ceil(device.max_dispatch_flops.max(1)).max(1)
}
