//! Dawn, Chromium's WebGPU, as a device of the suite: the library's own shaders and plans, run by a
//! Node process (`dawn.mjs`) that is fed with requests and files of numbers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hydralora::shader::{BindingKind, Shader};
use hydralora::{DeviceProfile, wgpu};
use serde_json::{Value, json};

use crate::case::Planning;
use crate::device::{
    ADAPTER_LIMITS, Device, Failure, Identity, WgpuDevice, limits_that_count, planned_profile,
};
use crate::job::{Job, Memory};
use crate::op::NamedDispatch;

const SCRIPT: &str = include_str!("dawn.mjs");

/// A Node process with a Dawn device.
pub struct DawnDevice {
    identity: Identity,
    profile: DeviceProfile,
    /// Dawn's null backend compiles and runs nothing.
    runs: bool,
    folder: PathBuf,
    process: Mutex<Process>,
}

struct Process {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Dawn instead of wgpu's adapters, where `HYDRALORA_DAWN` names the folder with the npm package
/// `webgpu`.
pub fn from_env(implementation: Option<&str>) -> Result<Option<DawnDevice>, String> {
    if std::env::var_os("HYDRALORA_DAWN").is_none() {
        return Ok(None);
    }
    let folder = std::env::temp_dir().join(format!("hydralora-dawn-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let script = folder.join("dawn.mjs");
    std::fs::write(&script, SCRIPT).map_err(|error| format!("{}: {error}", script.display()))?;
    let mut child = Command::new("node")
        .arg(&script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("node could not be started: {error}"))?;
    let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("node has no pipes".to_owned());
    };
    let mut process = Process { child, requests, answers: BufReader::new(answers) };
    let hello = process.answer()?;
    if let Some(error) = hello["error"].as_str() {
        return Err(format!("Dawn gives no device: {error}"));
    }
    let text = |key: &str| hello[key].as_str().unwrap_or_default().to_owned();
    let limits = limits(&hello["limits"]);
    let identity = Identity {
        adapter: format!("Dawn/{}", text("name")),
        implementation: implementation.map(str::to_owned),
        driver: format!("npm webgpu {}, backend {}", text("version"), text("backend")),
        kind: "Dawn".to_owned(),
        limits_of: ADAPTER_LIMITS,
        features: hello["features"].to_string(),
        limits: limits_that_count(&limits),
    };
    let profile = DeviceProfile::new(limits, 8);
    let runs = text("backend") != "null";
    Ok(Some(DawnDevice { identity, profile, runs, folder, process: Mutex::new(process) }))
}

/// WebGPU's names for the limits that plans depend on.
fn limits(given: &Value) -> wgpu::Limits {
    let defaults = wgpu::Limits::default();
    let number = |name: &str, default: u64| given[name].as_f64().map_or(default, |number| number as u64);
    let small = |name: &str, default: u32| u32::try_from(number(name, default.into())).unwrap_or(u32::MAX);
    wgpu::Limits {
        max_storage_buffers_per_shader_stage: small(
            "maxStorageBuffersPerShaderStage",
            defaults.max_storage_buffers_per_shader_stage,
        ),
        max_storage_buffer_binding_size: number(
            "maxStorageBufferBindingSize",
            defaults.max_storage_buffer_binding_size,
        ),
        max_buffer_size: number("maxBufferSize", defaults.max_buffer_size),
        max_compute_workgroup_storage_size: small(
            "maxComputeWorkgroupStorageSize",
            defaults.max_compute_workgroup_storage_size,
        ),
        max_compute_invocations_per_workgroup: small(
            "maxComputeInvocationsPerWorkgroup",
            defaults.max_compute_invocations_per_workgroup,
        ),
        max_compute_workgroups_per_dimension: small(
            "maxComputeWorkgroupsPerDimension",
            defaults.max_compute_workgroups_per_dimension,
        ),
        ..defaults
    }
}

impl Process {
    fn ask(&mut self, request: &Value) -> Result<(), Failure> {
        let send = writeln!(self.requests, "{request}").and_then(|()| self.requests.flush());
        send.map_err(|error| Failure::Failed(format!("node does not listen: {error}")))?;
        let answer = self.answer()?;
        match answer["error"].as_str() {
            None => Ok(()),
            Some(error) => Err(Failure::Failed(format!("Dawn: {error}"))),
        }
    }

    fn answer(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|error| format!("node does not answer: {error}"))?;
        serde_json::from_str(&line).map_err(|error| format!("node answered {line:?}: {error}"))
    }
}

impl Drop for DawnDevice {
    fn drop(&mut self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = process.child.kill();
        let _ = process.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl DawnDevice {
    /// Writes the memory and the dispatches to files; the request that runs them.
    fn request(&self, dispatches: &[NamedDispatch], memory: &Memory, times: u32) -> Result<Value, String> {
        let save = |name: &str, bytes: &[u8]| {
            let file = self.folder.join(name);
            std::fs::write(&file, bytes).map_err(|error| format!("{}: {error}", file.display()))
        };
        let mut buffers = Vec::new();
        for (index, contents) in memory.buffers.iter().enumerate() {
            let file = format!("{index}.bin");
            save(&file, bytemuck::cast_slice(contents))?;
            buffers.push(json!({ "name": file, "file": file, "read": format!("{index}.out.bin") }));
        }
        let mut requests = Vec::new();
        for (index, NamedDispatch { plan, tensors }) in dispatches.iter().enumerate() {
            let source = plan.shader.source();
            let (wgsl, uniform) = (format!("{index}.wgsl"), format!("{index}.uniform.bin"));
            save(&wgsl, source.wgsl.as_bytes())?;
            let mut contents = plan.uniform.clone();
            contents.resize(contents.len().next_multiple_of(16), 0);
            save(&uniform, &contents)?;
            let writes = source.bindings[1..].iter().map(|b| b.kind == BindingKind::Write);
            let bindings = tensors.iter().zip(writes).map(|(name, write)| {
                let place = memory.place(name);
                let (offset, size) = place.bytes();
                json!({ "buffer": place.buffer, "offset": offset, "size": size, "write": write })
            });
            requests.push(json!({
                "label": source.label, "wgsl": wgsl, "uniform": uniform,
                "bindings": bindings.collect::<Vec<_>>(), "grid": plan.grid,
            }));
        }
        let all: Vec<Value> = (0..times).flat_map(|_| requests.iter().cloned()).collect();
        Ok(json!({ "run": { "directory": self.folder, "buffers": buffers, "dispatches": all } }))
    }
}

impl Device for DawnDevice {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn profile(&self) -> &DeviceProfile {
        &self.profile
    }

    fn run(
        &self,
        job: &Job,
        memory: &Memory,
        planning: Planning,
        times: u32,
    ) -> Result<Vec<Vec<u32>>, Failure> {
        let profile = planned_profile(&self.profile, planning, job);
        let mut memory = memory.clone();
        let given = memory.buffers.len();
        let mut dispatches = Vec::new();
        for (index, op) in job.ops.iter().enumerate() {
            let mut planned = op.plan(&profile)?;
            for (name, len) in planned.scratch {
                // Each operation has scratch memory of its own.
                let own = format!("{name} of operation {index}");
                memory.add_scratch(&own, len);
                let tensors = planned.dispatches.iter_mut().flat_map(|dispatch| &mut dispatch.tensors);
                tensors.filter(|tensor| *tensor == name).for_each(|tensor| tensor.clone_from(&own));
            }
            dispatches.extend(planned.dispatches);
        }
        // One run at a time: the files have fixed names.
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.ask(&self.request(&dispatches, &memory, times)?)?;
        let mut after = Vec::new();
        for index in 0..memory.buffers.len() {
            let file = self.folder.join(format!("{index}.out.bin"));
            let bytes = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            after.push(bytes.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect());
        }
        // The caller does not know of the scratch memory; its guard bands count all the same.
        memory.results(job, &after)?;
        after.truncate(given);
        Ok(after)
    }

    fn time(
        &self,
        job: &Job,
        memory: &Memory,
        planning: Planning,
        runs: u32,
    ) -> Result<Vec<Duration>, Failure> {
        let once = || {
            let begin = Instant::now();
            self.run(job, memory, planning, 1).map(|_| begin.elapsed())
        };
        once()?;
        (0..runs).map(|_| once()).collect()
    }

    fn runs(&self) -> bool {
        self.runs
    }

    fn compile(&self, shader: &Shader) -> Result<(), Failure> {
        let source = shader.source();
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let wgsl = self.folder.join("shader.wgsl");
        std::fs::write(&wgsl, &source.wgsl).map_err(|error| format!("{}: {error}", wgsl.display()))?;
        let kinds = source.bindings.iter().filter_map(|binding| match binding.kind {
            BindingKind::Uniform => None,
            BindingKind::Read => Some("read"),
            BindingKind::Write => Some("write"),
        });
        let bindings: Vec<_> = kinds.collect();
        process.ask(&json!({ "validate": { "label": source.label, "wgsl": wgsl, "bindings": bindings } }))
    }

    fn wgpu(&self) -> Option<&WgpuDevice> {
        None
    }
}
