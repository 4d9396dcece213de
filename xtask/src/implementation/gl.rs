//! wgpu's GL backend on Mesa's software driver, without a display.

use super::{Implementation, debian, variable};

/// Keeps the dispatching libEGL from another vendor's driver.
const MESA: &str = "/usr/share/glvnd/egl_vendor.d/50_mesa.json";

pub(super) fn provide() -> Result<Implementation, String> {
    let version = debian::install(&["libegl-mesa0", "libegl1", "libgl1-mesa-dri"])?;
    Ok(Implementation {
        name: "gl".to_owned(),
        version,
        env: vec![
            variable("WGPU_BACKEND", "gl"),
            variable("EGL_PLATFORM", "surfaceless"),
            variable("__EGL_VENDOR_LIBRARY_FILENAMES", MESA),
            variable("LIBGL_ALWAYS_SOFTWARE", "true"),
            variable("GALLIUM_DRIVER", "llvmpipe"),
            variable("MESA_SHADER_CACHE_DISABLE", "true"),
        ],
    })
}
