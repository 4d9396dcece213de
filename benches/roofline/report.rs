//! What was measured, as data, as tables and for the plot.

use std::fmt::Write as _;

use hydralora::Work;
use hydralora::calibration::Calibration;
use serde::{Deserialize, Serialize};

use crate::limits::Limits;

#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Name, kind, backend and driver.
    pub device: String,
    pub date: String,
    /// What the times are.
    pub clock: String,
    pub limits: Limits,
    /// What the library measured, on GPUs.
    pub calibration: Option<Calibration>,
    pub kernels: Vec<KernelRow>,
    pub contests: Vec<ContestRow>,
    pub tunings: Vec<TuningRow>,
    pub safety: Vec<SafetyRow>,
    #[serde(default)]
    pub options: Vec<OptionRow>,
    pub step: Option<StepRow>,
    /// Shapes that could not be measured, and why.
    pub refused: Vec<String>,
}

/// One kernel at one shape.
#[derive(Debug, Serialize, Deserialize)]
pub struct KernelRow {
    pub shape: String,
    pub element: String,
    pub kernel: String,
    pub seconds: f64,
    pub bytes: u64,
    pub flops: u64,
    /// Bytes that all sets of inputs and outputs have together.
    pub working_set: u64,
    /// Seconds of a copy of the same size, for few tokens.
    pub copied: Option<f64>,
    /// Seconds that the planner predicts.
    pub predicted: Option<f64>,
}

/// Bytes that the caches of today's largest GPUs hold.
const LARGEST_CACHE: u64 = 256 << 20;

/// A task at one shape: the library beside its alternatives, medians of runs in turn.
#[derive(Debug, Serialize, Deserialize)]
pub struct ContestRow {
    pub shape: String,
    pub task: String,
    pub entrants: Vec<EntrantRow>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct EntrantRow {
    pub name: String,
    pub dispatches: usize,
    pub seconds: f64,
    /// Its time over the library's, the median of the pairs.
    pub ratio: f64,
}

/// The predicted plan beside the best that tuning found.
#[derive(Debug, Serialize, Deserialize)]
pub struct TuningRow {
    pub shape: String,
    pub operation: String,
    pub predicted: f64,
    pub best: f64,
    pub choice: String,
}

/// A kernel without one of wgpu's checks beside the same kernel with it.
#[derive(Debug, Serialize, Deserialize)]
pub struct SafetyRow {
    pub shape: String,
    pub kernel: String,
    pub check: String,
    /// Time with the check over time without, the median of the pairs.
    pub ratio: f64,
}

/// An option of a layer beside the plain layer: times over those of the plain one, the medians of the pairs.
#[derive(Debug, Serialize, Deserialize)]
pub struct OptionRow {
    pub shape: String,
    pub option: String,
    pub forward: f64,
    pub backward_input: f64,
    pub backward_params: f64,
    /// All three.
    pub step: f64,
    /// The same, with the frozen layer's two products on either side.
    pub whole: f64,
}

/// The host's cost of a whole model's training step.
#[derive(Debug, Serialize, Deserialize)]
pub struct StepRow {
    pub adapters: usize,
    pub dispatches: usize,
    pub record: f64,
    pub finish: f64,
}

impl KernelRow {
    pub fn work(&self) -> Work {
        Work { bytes: self.bytes, flops: self.flops }
    }
}

impl Report {
    /// Everything as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("strings take everything");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let Limits { bandwidth, arithmetic } = self.limits;
        writeln!(text, "{}, {}, {}.", self.device, self.date, self.clock)?;
        writeln!(
            text,
            "\nMeasured limits: copy {:.1} GB/s (read + written), multiply-add {:.0} GFLOP/s.",
            bandwidth / 1e9,
            arithmetic / 1e9
        )?;
        if let Some(Calibration { numbers, seconds, bandwidths, .. }) = &self.calibration {
            writeln!(
                text,
                "\nCalibrated in {:.1} ms of the device's time as: `{numbers:?}`. GB/s that 1, 2, 4, .. workgroups of 64 \
                 threads read from memory: {}.",
                1e3 * seconds,
                bandwidths.map(|bandwidth| format!("{:.0}", bandwidth / 1e9)).join(", ")
            )?;
        }
        self.write_kernels(text)?;
        if !self.contests.is_empty() {
            self.write_contests(text)?;
        }
        if !self.tunings.is_empty() {
            self.write_tunings(text)?;
        }
        if !self.safety.is_empty() {
            writeln!(text, "\n**What checks cost.** Time with the check over time without.\n")?;
            writeln!(text, "| shape | kernel | check | ratio |\n|---|---|---|---:|")?;
            for SafetyRow { shape, kernel, check, ratio } in &self.safety {
                writeln!(text, "| {shape} | {kernel} | {check} | {ratio:.3} |")?;
            }
        }
        if !self.options.is_empty() {
            writeln!(text, "\n**What options cost.** Time over that of the plain layer, f32, adding.\n")?;
            writeln!(
                text,
                "| shape | option | forward | backward_input | backward_params | step | step with the frozen layer |"
            )?;
            writeln!(text, "|---|---|---:|---:|---:|---:|---:|")?;
            for row in &self.options {
                let OptionRow { shape, option, forward, backward_input, backward_params, step, whole } = row;
                write!(
                    text,
                    "| {shape} | {option} | {forward:.3} | {backward_input:.3} | {backward_params:.3} "
                )?;
                writeln!(text, "| {step:.3} | {whole:.3} |")?;
            }
        }
        if let Some(StepRow { adapters, dispatches, record, finish }) = self.step {
            writeln!(
                text,
                "\n**A training step of {adapters} adapters** (LLaMA-2-7B), {dispatches} dispatches in one \
                 encoder: the host records for {:.2} ms and finishes for {:.2} ms.",
                1e3 * record,
                1e3 * finish
            )?;
        }
        if !self.refused.is_empty() {
            writeln!(text, "\nNot measured:\n")?;
            for refused in &self.refused {
                writeln!(text, "- {refused}")?;
            }
        }
        Ok(())
    }

    fn write_kernels(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\n**Kernels.** The limit is whichever of the two above the kernel needs longer for. For up to 16 tokens, \
             \"of a copy\" is the time of a dispatch that copies as many bytes, over the kernel's. Where GB/s has a star, \
             all sets of inputs and outputs together would fit the largest caches of today ({} MiB), and some bytes \
             may have come from one. \"Predicted\" is what the planner expected.\n",
            LARGEST_CACHE >> 20
        )?;
        writeln!(
            text,
            "| shape | element | kernel | ms | GB/s | GFLOP/s | limit | of limit | of a copy | predicted ms |"
        )?;
        writeln!(text, "|---|---|---|---:|---:|---:|---|---:|---:|---:|")?;
        for row in &self.kernels {
            let KernelRow { shape, element, kernel, seconds, bytes, flops, .. } = row;
            writeln!(
                text,
                "| {shape} | {element} | {kernel} | {:.3} | {:.1}{} | {:.1} | {} | {:.0} % | {} | {} |",
                1e3 * seconds,
                *bytes as f64 / seconds / 1e9,
                if row.working_set < LARGEST_CACHE { "*" } else { "" },
                *flops as f64 / seconds / 1e9,
                if self.limits.memory_bound(&row.work()) { "memory" } else { "arithmetic" },
                100.0 * self.limits.least_seconds(&row.work()) / seconds,
                row.copied.map(|copied| format!("{:.0} %", 100.0 * copied / seconds)).unwrap_or_default(),
                row.predicted.map(|predicted| format!("{:.3}", 1e3 * predicted)).unwrap_or_default(),
            )?;
        }
        Ok(())
    }

    fn write_contests(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\n**Alternatives**, f32, run in turn with the library; a ratio is theirs over the library's time.\n"
        )?;
        writeln!(text, "| shape | task | hydralora ms | chain | concatenated | dispatches |")?;
        writeln!(text, "|---|---|---:|---:|---:|---:|")?;
        for ContestRow { shape, task, entrants } in &self.contests {
            let [ours, chain, concatenated] = &entrants[..] else { continue };
            writeln!(
                text,
                "| {shape} | {task} | {:.3} | {:.2} | {:.2} | {} / {} / {} |",
                1e3 * ours.seconds,
                chain.ratio,
                concatenated.ratio,
                ours.dispatches,
                chain.dispatches,
                concatenated.dispatches
            )?;
        }
        Ok(())
    }

    fn write_tunings(&self, text: &mut String) -> std::fmt::Result {
        let ratios = self.tunings.iter().map(|row| (row.predicted / row.best).max(1.0));
        let mean = (ratios.clone().map(f64::ln).sum::<f64>() / self.tunings.len() as f64).exp();
        writeln!(
            text,
            "\n**Prediction and tuning.** The planner's own choice takes {mean:.2} times the time of the best \
             that tuning found (geometric mean; at most {:.2}).\n",
            ratios.fold(1.0, f64::max)
        )?;
        writeln!(
            text,
            "| shape | operation | predicted ms | best ms | best choice |\n|---|---|---:|---:|---|"
        )?;
        for TuningRow { shape, operation, predicted, best, choice } in &self.tunings {
            let (predicted, best) = (1e3 * predicted, 1e3 * best);
            writeln!(text, "| {shape} | {operation} | {predicted:.3} | {best:.3} | {choice} |")?;
        }
        Ok(())
    }
}
