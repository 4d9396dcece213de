//! Dawn, Chromium's WebGPU, as a device of the suite. A Node process (`dawn.mjs`) runs the library's own
//! shaders and plans. It receives requests, and reads and writes numbers in files.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hydralora::kernel::{BindingKind, Shader};
use hydralora::{DeviceProfile, wgpu};
use serde_json::{Value, json};

use super::adapters::{NativeDevice, planner};
use crate::case::Planning;
use crate::device::{ADAPTER_LIMITS, Device, Failure, Identity, Pending, WgpuDevice, limits_that_count};
use crate::job::{Job, Memory};
use crate::op::Planned;

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

/// Dawn instead of wgpu's adapters, if `HYDRALORA_DAWN` names the folder of the npm package `webgpu`.
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

/// The limits that plans depend on, from an object with WebGPU's names for them.
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
        send.map_err(|error| Failure::Failed(format!("node does not take requests: {error}")))?;
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
    /// Writes the memory to files, and returns the request that runs the recordings on it.
    fn request(&self, planned: &[Planned], memory: &Memory, times: u32) -> Result<Value, String> {
        let mut buffers = Vec::new();
        for (index, contents) in memory.buffers.iter().enumerate() {
            let file = self.folder.join(format!("{index}.bin"));
            std::fs::write(&file, bytemuck::cast_slice(contents))
                .map_err(|error| format!("{}: {error}", file.display()))?;
            buffers.push(json!({ "file": format!("{index}.bin"), "read": format!("{index}.out.bin") }));
        }
        let runs = planned.iter().map(|Planned { recording, names, tokens, varying }| {
            let tensors = recording.tensors.iter().zip(names).map(|(operand, name)| {
                let place = memory.place(name);
                let (offset, size) = place.bytes();
                (operand.name.to_owned(), json!({ "buffer": place.buffer, "offset": offset, "size": size }))
            });
            let tensors: serde_json::Map<String, Value> = tensors.collect();
            json!({ "recording": recording, "tensors": tensors, "tokens": tokens, "varying": varying })
        });
        let runs: Vec<Value> = runs.collect();
        Ok(json!({ "run": { "directory": self.folder, "buffers": buffers, "runs": runs, "times": times } }))
    }

    fn run_now(
        &self,
        job: &Job,
        memory: &Memory,
        planning: Planning,
        times: u32,
    ) -> Result<Vec<Vec<u32>>, Failure> {
        if memory.is_pooled() {
            return Err(Failure::Unsupported("only wgpu's devices run pooled cases".to_owned()));
        }
        let planner = planner(&self.profile, planning, job);
        let mut memory = memory.clone();
        let given = memory.buffers.len();
        let mut planned = Vec::new();
        for op in &job.ops {
            planned.extend(op.plan(&planner)?);
        }
        // The scratch memory, which the library would allocate on a device of wgpu's.
        let unknown = |name: &&String| job.tensors.iter().all(|tensor| tensor.name != **name);
        let mut scratch: Vec<(String, usize)> = Vec::new();
        for Planned { recording, names, .. } in &planned {
            for (operand, name) in recording.tensors.iter().zip(names).filter(|(_, name)| unknown(name)) {
                scratch.push((name.clone(), (operand.bytes() / 4) as usize));
            }
        }
        scratch.sort();
        scratch.dedup();
        for (name, len) in &scratch {
            memory.add_scratch(name, *len);
        }
        // One run at a time: the files have fixed names.
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.ask(&self.request(&planned, &memory, times)?)?;
        let mut after = Vec::new();
        for index in 0..memory.buffers.len() {
            let file = self.folder.join(format!("{index}.out.bin"));
            let bytes = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            after.push(bytes.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect());
        }
        // The caller does not know the scratch memory, so its guard bands are checked here.
        memory.results(job, &after)?;
        after.truncate(given);
        Ok(after)
    }
}

impl Device for DawnDevice {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn profile(&self) -> &DeviceProfile {
        &self.profile
    }

    fn run<'a>(
        &'a self,
        job: &'a Job,
        memory: &'a Memory,
        planning: Planning,
        times: u32,
    ) -> Pending<'a, Vec<Vec<u32>>> {
        Box::pin(async move { self.run_now(job, memory, planning, times) })
    }
}

impl NativeDevice for DawnDevice {
    fn time(
        &self,
        job: &Job,
        memory: &Memory,
        planning: Planning,
        runs: u32,
    ) -> Result<Vec<Duration>, Failure> {
        let once = || {
            let begin = Instant::now();
            self.run_now(job, memory, planning, 1).map(|_| begin.elapsed())
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
        let (label, varying) = (source.label, source.varying);
        process.ask(&json!({
            "validate": { "label": label, "wgsl": wgsl, "bindings": bindings, "varying": varying }
        }))
    }

    fn wgpu(&self) -> Option<&WgpuDevice> {
        None
    }
}
