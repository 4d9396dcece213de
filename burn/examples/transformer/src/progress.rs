//! How far training is: burn's dashboard in a terminal with the feature `tui`, and lines elsewhere. burn's renderer without
//! a dashboard shows no losses.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::MetricDefinition;
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining,
};

/// Whether burn shows its dashboard.
pub fn has_dashboard() -> bool {
    cfg!(feature = "tui") && std::io::stdout().is_terminal()
}

/// Shows ten lines of a training.
pub struct Lines {
    label: String,
    begin: Instant,
    /// The mean of the last losses, in bits a byte.
    bits: Option<f64>,
    items: usize,
    shown: usize,
    trains: bool,
}

impl Lines {
    pub fn new() -> Self {
        let begin = Instant::now();
        Self { label: String::new(), begin, bits: None, items: 0, shown: 0, trains: false }
    }
}

impl MetricsRendererTraining for Lines {
    fn update_train(&mut self, state: MetricState) {
        if let MetricState::Numeric(_, Some(nats)) = state {
            let bits = nats.current() / std::f64::consts::LN_2;
            self.bits = Some(self.bits.map_or(bits, |mean| 0.95 * mean + 0.05 * bits));
        }
    }

    fn update_valid(&mut self, _state: MetricState) {}
}

impl TrainingProgressLogger for Lines {
    fn start(&mut self, _epochs: usize, _first: usize, _items: Option<usize>, label: Option<&str>) {
        label.unwrap_or_default().clone_into(&mut self.label);
    }

    fn update_epoch(&mut self, _epoch: usize) {}

    fn start_split(&mut self, split: &str, items: usize) {
        (self.trains, self.items, self.shown) = (split == "train", items, 0);
    }

    fn update_split(&mut self, processed: usize) {
        let tenth = 10 * processed / self.items.max(1);
        if let Some(bits) = self.bits
            && self.trains
            && tenth > self.shown
        {
            self.shown = tenth;
            let Self { label, items, .. } = self;
            let seconds = self.begin.elapsed().as_secs_f64();
            eprintln!("{label:11} {processed:>5}/{items} sequences  {bits:.3} bits a byte  {seconds:.0} s");
        }
    }

    fn end_split(&mut self) {}

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for Lines {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl EvaluationProgressLogger for Lines {
    fn start_global_progress(&mut self, _tests: usize) {}

    fn start_test(&mut self, _name: &str, _items: usize) {}

    fn update_test_progress(&mut self, _processed: usize) {}

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRenderer for Lines {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, _definition: MetricDefinition) {}
}

/// When each step's loss was known, whatever shows it.
#[derive(Clone, Default)]
pub struct Clock {
    steps: Arc<Mutex<Vec<Instant>>>,
    trains: bool,
}

impl Clock {
    /// Mean milliseconds of a step, without the first quarter: there burn compiles and chooses kernels.
    pub fn ms_per_step(&self) -> f64 {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        match &steps[steps.len() / 4..] {
            [first, .., last] if first != last => {
                let counted = steps.len() - steps.len() / 4 - 1;
                1e3 * last.duration_since(*first).as_secs_f64() / counted as f64
            }
            _ => f64::NAN,
        }
    }
}

impl TrainingProgressLogger for Clock {
    fn start(&mut self, _epochs: usize, _first: usize, _items: Option<usize>, _label: Option<&str>) {}

    fn update_epoch(&mut self, _epoch: usize) {}

    fn start_split(&mut self, split: &str, _items: usize) {
        self.trains = split == "train";
    }

    fn update_split(&mut self, _processed: usize) {
        if self.trains {
            self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        }
    }

    fn end_split(&mut self) {}

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {}
}
