//! Mesa's Vulkan driver for AMD GPUs as a compiler. It opens a GPU that is not there when
//! `RADV_FORCE_FAMILY` names one; nothing can run on it, but pipelines compile as for the real one.

#![allow(unsafe_code, reason = "Vulkan's own interface, which no safe crate has for pipeline statistics")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;

use ash::{Device, Entry, ext, khr, vk};

use super::Statistics;

/// A device that only compiles; meant for a process that does nothing else.
pub(super) struct Compiler {
    /// The GPU's and the driver's name.
    pub name: String,
    statistics: khr::pipeline_executable_properties::Device,
    device: Device,
}

impl Compiler {
    /// Opens the GPU that the environment names.
    pub(super) fn open() -> Result<Self, String> {
        // SAFETY: libvulkan is a library that is meant to be loaded.
        let entry = unsafe { Entry::load() }.map_err(|error| format!("the Vulkan loader: {error}"))?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_2);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: `info` is complete.
        let instance = unsafe { entry.create_instance(&info, None) }.map_err(failed("vkCreateInstance"))?;
        // SAFETY: the instance lives.
        let gpus =
            unsafe { instance.enumerate_physical_devices() }.map_err(failed("vkEnumeratePhysicalDevices"))?;
        let &[gpu] = &gpus[..] else {
            return Err(format!("the driver has {} GPUs, not the one it was told to have", gpus.len()));
        };
        // SAFETY: `gpu` belongs to the instance.
        let properties = unsafe { instance.get_physical_device_properties(gpu) };
        let name = text(&properties.device_name);

        // wgpu leaves out-of-bounds accesses of buffers to the driver where it has robustness2, and the
        // code for them is part of what is measured.
        let core = vk::PhysicalDeviceFeatures::default().robust_buffer_access(true);
        let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default().robust_buffer_access2(true);
        let mut statistics = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
            .pipeline_executable_info(true);
        let extensions =
            [khr::pipeline_executable_properties::NAME, ext::robustness2::NAME].map(CStr::as_ptr);
        let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
        let info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&extensions)
            .enabled_features(&core)
            .push_next(&mut robustness)
            .push_next(&mut statistics);
        // SAFETY: `info` is complete, and what it points at outlives the call.
        let device = unsafe { instance.create_device(gpu, &info, None) }.map_err(failed("vkCreateDevice"))?;
        let statistics = khr::pipeline_executable_properties::Device::new(&instance, &device);
        // Only pipelines are destroyed, which hold long texts: the process ends with its last shader. The loader stays.
        std::mem::forget(entry);
        Ok(Self { name, statistics, device })
    }

    /// Compiles the entry point `main` of a compute shader; returns its assembly too.
    pub(super) fn compile(&self, words: &[u32]) -> Result<(Statistics, String), String> {
        let mut sets = Vec::new();
        for bindings in bindings(words) {
            let layout = |(binding, kind)| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(binding)
                    .descriptor_type(kind)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            };
            let bindings: Vec<_> = bindings.into_iter().map(layout).collect();
            let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            // SAFETY, here and below: every `info` is complete, and its handles are of this device and live.
            let set = unsafe { self.device.create_descriptor_set_layout(&info, None) }
                .map_err(failed("vkCreateDescriptorSetLayout"))?;
            sets.push(set);
        }
        let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
        // SAFETY: as above.
        let layout = unsafe { self.device.create_pipeline_layout(&info, None) }
            .map_err(failed("vkCreatePipelineLayout"))?;
        let info = vk::ShaderModuleCreateInfo::default().code(words);
        // SAFETY: as above, and naga validated the code.
        let module = unsafe { self.device.create_shader_module(&info, None) }
            .map_err(failed("vkCreateShaderModule"))?;
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main");
        let info = vk::ComputePipelineCreateInfo::default()
            .flags(
                vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                    | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR,
            )
            .stage(stage)
            .layout(layout);
        // SAFETY: as above.
        let pipelines =
            unsafe { self.device.create_compute_pipelines(vk::PipelineCache::null(), &[info], None) }
                .map_err(|(_, error)| failed("vkCreateComputePipelines")(error))?;
        let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipelines[0]);
        // SAFETY: as above; the pipeline keeps its statistics, and a compute pipeline is one executable.
        let statistics = unsafe { self.statistics.get_pipeline_executable_statistics(&info) }
            .map_err(failed("vkGetPipelineExecutableStatisticsKHR"))?;
        let statistics = statistics.iter().filter_map(|one| Some((text(&one.name), number(one)?))).collect();
        let assembly = self.assembly(&info)?;
        // SAFETY: nothing uses it any more.
        unsafe { self.device.destroy_pipeline(pipelines[0], None) };
        Ok((statistics, assembly))
    }

    fn assembly(&self, info: &vk::PipelineExecutableInfoKHR<'_>) -> Result<String, String> {
        const CALL: &str = "vkGetPipelineExecutableInternalRepresentationsKHR";
        // SAFETY: `info` is complete, and its pipeline lives.
        let mut texts = unsafe { self.statistics.get_pipeline_executable_internal_representations(info) }
            .map_err(failed(CALL))?;
        // The driver has said how long each text is. Asked again, it writes them.
        let mut buffers: Vec<Vec<u8>> = texts.iter().map(|text| vec![0; text.data_size]).collect();
        for (text, buffer) in texts.iter_mut().zip(&mut buffers) {
            text.p_data = buffer.as_mut_ptr().cast();
        }
        let mut count = texts.len() as u32;
        let function = self.statistics.fp().get_pipeline_executable_internal_representations_khr;
        // SAFETY: there are `count` texts, each with a buffer as long as the driver wants it.
        unsafe { function(self.device.handle(), info, &raw mut count, texts.as_mut_ptr()) }
            .result()
            .map_err(failed(CALL))?;
        let named =
            texts.iter().zip(&buffers).find(|(representation, _)| text(&representation.name) == "Assembly");
        let (_, buffer) = named.ok_or("the driver gives no assembly")?;
        Ok(String::from_utf8_lossy(buffer).into_owned())
    }
}

/// The bindings of each descriptor set and what kind of buffer each is: tensors with the uniform that is fixed,
/// and the uniform that varies.
fn bindings(words: &[u32]) -> [BTreeSet<(u32, vk::DescriptorType)>; 2] {
    const HEADER: usize = 5;
    const OP_VARIABLE: u32 = 59;
    const OP_DECORATE: u32 = 71;
    const BINDING: u32 = 33;
    const DESCRIPTOR_SET: u32 = 34;
    const UNIFORM: u32 = 2;
    const STORAGE_BUFFER: u32 = 12;

    let (mut binding_of, mut set_of) = (BTreeMap::new(), BTreeMap::new());
    let mut bindings: [BTreeSet<_>; 2] = Default::default();
    let mut rest = words.get(HEADER..).unwrap_or_default();
    // The high half of an instruction's first word is its length, the low half what it is. Decorations
    // come before variables.
    while let [first, ..] = rest
        && let Some((instruction, next)) = rest.split_at_checked((first >> 16).max(1) as usize)
    {
        match *instruction {
            [_, target, BINDING, binding] if first & 0xffff == OP_DECORATE => {
                binding_of.insert(target, binding);
            }
            [_, target, DESCRIPTOR_SET, set] if first & 0xffff == OP_DECORATE => {
                set_of.insert(target, set);
            }
            [_, _, variable, class, ..] if first & 0xffff == OP_VARIABLE => {
                let kind = match class {
                    UNIFORM => Some(vk::DescriptorType::UNIFORM_BUFFER),
                    STORAGE_BUFFER => Some(vk::DescriptorType::STORAGE_BUFFER),
                    _ => None,
                };
                let set = set_of.get(&variable).and_then(|&set| bindings.get_mut(set as usize));
                if let Some(set) = set {
                    set.extend(binding_of.get(&variable).copied().zip(kind));
                }
            }
            _ => {}
        }
        rest = next;
    }
    bindings
}

fn number(statistic: &vk::PipelineExecutableStatisticKHR<'_>) -> Option<u64> {
    if statistic.format == vk::PipelineExecutableStatisticFormatKHR::UINT64 {
        // SAFETY: the format says which field of the union was written.
        Some(unsafe { statistic.value.u64 })
    } else {
        None
    }
}

fn text(characters: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = characters.iter().map(|&character| character as u8).collect();
    CStr::from_bytes_until_nul(&bytes).unwrap_or_default().to_string_lossy().into_owned()
}

fn failed(call: &'static str) -> impl Fn(vk::Result) -> String {
    move |error| format!("{call}: {error}")
}
