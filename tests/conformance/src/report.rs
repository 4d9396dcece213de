//! The results of a run as text: a table, JSON, and a Markdown report for each adapter.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::compare::Distribution;
use crate::device::Identity;

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Passed,
    /// The device cannot run it, for the reason that the library gives.
    Unsupported,
    /// It failed on this device as `known.rs` says.
    Known,
    Failed,
}

/// A trial's record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub device: String,
    pub case: String,
    pub kernel: String,
    pub seed: Option<String>,
    pub status: Status,
    pub message: Option<String>,
    /// Distribution of error / bound, if numbers were compared.
    pub distribution: Option<Distribution>,
    pub milliseconds: f64,
}

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub identities: Vec<Identity>,
    pub records: Vec<Record>,
    pub seconds: f64,
}

/// Counts and extremes over several records.
#[derive(Default)]
struct Summary {
    cases: usize,
    passed: usize,
    unsupported: usize,
    known: usize,
    failed: usize,
    elements: usize,
    worst: f64,
    worst_at: String,
    medians: Vec<f64>,
    seconds: f64,
}

impl Summary {
    fn of<'a>(records: impl Iterator<Item = &'a Record>) -> Self {
        let mut summary = Self::default();
        for record in records {
            summary.cases += 1;
            match record.status {
                Status::Passed => summary.passed += 1,
                Status::Unsupported => summary.unsupported += 1,
                Status::Known => summary.known += 1,
                Status::Failed => summary.failed += 1,
            }
            summary.seconds += record.milliseconds / 1e3;
            if let Some(distribution) = &record.distribution {
                summary.elements += distribution.elements;
                summary.medians.push(distribution.median);
                if distribution.worst > summary.worst {
                    summary.worst = distribution.worst;
                    summary.worst_at = format!("{} at {}", record.case, distribution.worst_at);
                }
            }
        }
        summary.medians.sort_by(f64::total_cmp);
        summary
    }

    fn row(&self, name: &str) -> Vec<String> {
        let median = self.medians.get(self.medians.len() / 2);
        vec![
            name.to_owned(),
            self.cases.to_string(),
            self.passed.to_string(),
            self.unsupported.to_string(),
            self.known.to_string(),
            self.failed.to_string(),
            self.elements.to_string(),
            median.map_or("-".to_owned(), |median| format!("{median:.1e}")),
            if median.is_some() { format!("{:.3}", self.worst) } else { "-".to_owned() },
            format!("{:.1} s", self.seconds),
        ]
    }
}

const HEADINGS: [&str; 10] =
    ["", "cases", "passed", "unsupported", "known", "failed", "elements", "median", "worst", "time"];

/// A Markdown table that also reads well as text.
fn table(rows: &[Vec<String>]) -> String {
    let headings = HEADINGS.map(str::to_owned).to_vec();
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| rows.iter().chain([&headings]).map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!(" {cell:<width$} ") } else { format!(" {cell:>width$} ") }
        });
        format!("|{}|\n", cells.collect::<Vec<_>>().join("|"))
    };
    let rule: Vec<String> = widths
        .iter()
        .enumerate()
        .map(
            |(column, &width)| {
                if column == 0 { "-".repeat(width + 2) } else { format!("{}:", "-".repeat(width + 1)) }
            },
        )
        .collect();
    let mut text = line(&headings);
    let _ = writeln!(text, "|{}|", rule.join("|"));
    text.extend(rows.iter().map(|row| line(row)));
    text
}

impl Report {
    /// The names of the adapters.
    #[must_use]
    pub fn adapters(&self) -> Vec<String> {
        let mut adapters: Vec<String> =
            self.identities.iter().map(|identity| identity.adapter.clone()).collect();
        adapters.dedup();
        adapters
    }

    fn records_of<'a>(&'a self, identity: &Identity) -> impl Iterator<Item = &'a Record> {
        let label = identity.label();
        self.records.iter().filter(move |record| record.device == label)
    }

    /// What belongs to one adapter.
    #[must_use]
    pub fn of(&self, adapter: &str) -> Self {
        let identities: Vec<Identity> =
            self.identities.iter().filter(|i| i.adapter == adapter).cloned().collect();
        let records = identities.iter().flat_map(|identity| self.records_of(identity)).cloned().collect();
        Self { identities, records, seconds: self.seconds }
    }

    /// Everything, for programs.
    ///
    /// # Errors
    /// None that is known.
    pub fn json(&self) -> Result<String, String> {
        serde_json::to_string_pretty(self).map_err(|error| error.to_string())
    }

    /// A report to paste into a bug report.
    #[must_use]
    pub fn markdown(&self, adapter: &str) -> String {
        let identities: Vec<&Identity> = self.identities.iter().filter(|i| i.adapter == adapter).collect();
        let Some(first) = identities.first() else { return String::new() };
        let mut text = format!("# hydralora conformance: {adapter}\n\n");
        let _ = writeln!(text, "- hydralora {}, wgpu 30", env!("CARGO_PKG_VERSION"));
        if let Some(implementation) = &first.implementation {
            let _ = writeln!(text, "- implementation: {implementation}");
        }
        let _ = writeln!(text, "- kind: {}; driver: {}", first.kind, first.driver);
        let _ = writeln!(text, "- features: {}", first.features);
        for identity in &identities {
            let limits = identity.limits.iter().map(|(name, limit)| format!("{name} {limit}"));
            let _ = writeln!(text, "- {}: {}", identity.limits_of, limits.collect::<Vec<_>>().join(", "));
        }
        text.push_str("\nmedian and worst are ratios error / bound; more than 1 is a failure.\n\n");

        let devices = identities.iter().map(|i| Summary::of(self.records_of(i)).row(i.limits_of));
        text.push_str(&table(&devices.collect::<Vec<_>>()));
        let records: Vec<&Record> =
            identities.iter().flat_map(|identity| self.records_of(identity)).collect();
        let mut kernels: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
        for record in &records {
            kernels.entry(&record.kernel).or_default().push(record);
        }
        let kernels =
            kernels.into_iter().map(|(kernel, records)| Summary::of(records.into_iter()).row(kernel));
        let _ = writeln!(text, "\n{}", table(&kernels.collect::<Vec<_>>()));
        let total = Summary::of(records.iter().copied());
        if !total.worst_at.is_empty() {
            let _ = writeln!(text, "worst: {:.3} in {}", total.worst, total.worst_at);
        }

        let mut reasons: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for record in records.iter().filter(|r| matches!(r.status, Status::Unsupported | Status::Known)) {
            reasons
                .entry(reason(record.message.as_deref().unwrap_or_default()))
                .or_default()
                .push(&record.case);
        }
        if !reasons.is_empty() {
            text.push_str("\n## Unsupported and known failures\n\n");
            for (reason, cases) in reasons {
                let _ = writeln!(text, "- {} cases, such as {}: {reason}", cases.len(), cases[0]);
            }
        }
        let failures: Vec<&&Record> = records.iter().filter(|r| r.status == Status::Failed).collect();
        if !failures.is_empty() {
            text.push_str("\n## Failures\n\n");
            for record in failures {
                let message = record.message.as_deref().unwrap_or_default().replace('\n', "\n  ");
                let _ = writeln!(text, "- `[{}] {}`: {message}", record.device, record.case);
                if let Some(seed) = &record.seed {
                    let _ = writeln!(text, "  (`--replay {seed}`)");
                }
            }
        }
        text
    }
}

/// A refusal's message without its numbers, so that many cases share it.
fn reason(message: &str) -> String {
    let mut reason = String::new();
    for character in message.chars() {
        match character {
            '0'..='9' if reason.ends_with('#') => {}
            '0'..='9' => reason.push('#'),
            other => reason.push(other),
        }
    }
    reason
}
