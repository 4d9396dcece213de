//! Devices whose driver can be told to fail: Vulkan functions are replaced, and the replacements call the
//! driver's own.
//!
//! A healthy driver never loses a device, and lacks memory only after all of it has been used up.

use hydralora::device::Gpu;
use hydralora::wgpu;

use crate::device::Failure;

/// The behaviour of the driver of this thread's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// It works as usual.
    Healthy,
    /// It reports that the device is lost.
    Lost,
    /// It reports that there is no memory for another buffer.
    OutOfMemory,
}

/// Checks that devices on this adapter can be made to fail. The error says why they cannot.
fn check(adapter: &wgpu::Adapter) -> Result<(), Failure> {
    if adapter.get_info().backend == wgpu::Backend::Vulkan && cfg!(not(target_vendor = "apple")) {
        return Ok(());
    }
    Err(Failure::Unsupported("only Vulkan's functions can be replaced".to_owned()))
}

#[cfg(target_vendor = "apple")]
pub use unsupported::{breakable_gpu, set_driver};

#[cfg(not(target_vendor = "apple"))]
pub use vulkan::{breakable_gpu, set_driver};

#[cfg(target_vendor = "apple")]
mod unsupported {
    use super::{Driver, Failure, Gpu, check, wgpu};

    pub fn set_driver(_: Driver) {}

    pub fn breakable_gpu(adapter: &wgpu::Adapter) -> Result<Gpu, Failure> {
        Err(check(adapter).expect_err("no functions are replaced here"))
    }
}

#[cfg(not(target_vendor = "apple"))]
mod vulkan {
    use std::cell::Cell;
    use std::ffi::{CStr, c_void};

    use ash::vk;
    use hydralora::wgpu::hal::api::Vulkan;

    use super::{Driver, Failure, Gpu, check, wgpu};

    thread_local! {
        static DRIVER: Cell<Driver> = const { Cell::new(Driver::Healthy) };
    }

    /// Sets the driver's behaviour from now on, for the devices that this thread uses.
    pub fn set_driver(driver: Driver) {
        DRIVER.set(driver);
    }

    /// A replacement that fails when it is told to, and otherwise calls the function that it replaces.
    macro_rules! replacement {
        ($name:ident: $function:ty, ($($argument:ident: $kind:ty),*), $($when:ident => $result:ident),*) => {
            mod $name {
                use super::{Cell, DRIVER, Driver, vk};

                thread_local! {
                    static REPLACED: Cell<Option<$function>> = const { Cell::new(None) };
                }

                unsafe extern "system" fn replacement($($argument: $kind),*) -> vk::Result {
                    match DRIVER.get() {
                        $(Driver::$when => vk::Result::$result,)*
                        // SAFETY: these are the arguments of the function that this one replaces.
                        _ => unsafe { REPLACED.get().expect("it is loaded first")($($argument),*) },
                    }
                }

                /// Makes the replacement of `function`.
                ///
                /// # Safety
                /// `function` must be of this type.
                pub unsafe fn replace(function: *const std::ffi::c_void) -> *const std::ffi::c_void {
                    // SAFETY: the caller vouches for the type; Vulkan's loader gives pointers to functions.
                    REPLACED.set(Some(unsafe {
                        std::mem::transmute::<*const std::ffi::c_void, $function>(function)
                    }));
                    replacement as *const std::ffi::c_void
                }
            }
        };
    }

    replacement!(
        queue_submit: vk::PFN_vkQueueSubmit,
        (queue: vk::Queue, count: u32, infos: *const vk::SubmitInfo<'_>, fence: vk::Fence),
        Lost => ERROR_DEVICE_LOST
    );
    replacement!(
        wait_semaphores: vk::PFN_vkWaitSemaphores,
        (device: vk::Device, info: *const vk::SemaphoreWaitInfo<'_>, timeout: u64),
        Lost => ERROR_DEVICE_LOST
    );
    replacement!(
        semaphore_value: vk::PFN_vkGetSemaphoreCounterValue,
        (device: vk::Device, semaphore: vk::Semaphore, value: *mut u64),
        Lost => ERROR_DEVICE_LOST
    );
    replacement!(
        create_buffer: vk::PFN_vkCreateBuffer,
        (
            device: vk::Device,
            info: *const vk::BufferCreateInfo<'_>,
            allocator: *const vk::AllocationCallbacks<'_>,
            buffer: *mut vk::Buffer
        ),
        OutOfMemory => ERROR_OUT_OF_DEVICE_MEMORY
    );

    /// A device whose driver behaves as [`set_driver`] says, and is healthy at first.
    pub fn breakable_gpu(adapter: &wgpu::Adapter) -> Result<Gpu, Failure> {
        check(adapter)?;
        set_driver(Driver::Healthy);
        let features = adapter.features() & (wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SUBGROUP);
        let descriptor = wgpu::DeviceDescriptor {
            required_features: features,
            required_limits: adapter.limits(),
            ..Default::default()
        };
        // SAFETY: the device is created as wgpu creates its own, with the extensions and features that wgpu
        // names, and wgpu takes ownership of it. It is used with the driver's own functions, or with
        // replacements of the same type that fail in ways Vulkan allows.
        let created = unsafe {
            let hal = adapter.as_hal::<Vulkan>().expect("the backend is Vulkan");
            let instance = hal.shared_instance().raw_instance();
            let extensions = hal.required_device_extensions(features);
            let names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
            let mut enabled = hal.physical_device_features(&extensions, features);
            let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
            let info =
                vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&names);
            let raw = instance
                .create_device(hal.raw_physical_device(), &enabled.add_to_device_create(info), None)
                .map_err(|error| Failure::Failed(error.to_string()))?
                .handle();
            let load = |name: &CStr| -> *const c_void {
                let Some(function) = instance.get_device_proc_addr(raw, name.as_ptr()) else {
                    return std::ptr::null();
                };
                let function = function as *const c_void;
                match name.to_bytes() {
                    b"vkQueueSubmit" => queue_submit::replace(function),
                    b"vkWaitSemaphores" => wait_semaphores::replace(function),
                    b"vkGetSemaphoreCounterValue" => semaphore_value::replace(function),
                    b"vkCreateBuffer" => create_buffer::replace(function),
                    _ => function,
                }
            };
            let open = hal.device_from_raw(
                ash::Device::load_with(load, raw),
                None,
                &extensions,
                features,
                &descriptor.required_limits,
                &descriptor.memory_hints,
                0,
                0,
            );
            let open = open.map_err(|error| Failure::Failed(error.to_string()))?;
            adapter.create_device_from_hal(open, &descriptor)
        };
        let (device, queue) = created.map_err(|error| Failure::Failed(error.to_string()))?;
        Ok(Gpu { device, queue })
    }
}
