//! The progress of a run: a bar in a terminal, otherwise a line now and then.

use std::cell::Cell;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

/// Steps between lines if there is no terminal.
const LINE_EVERY: u32 = 50;

pub struct Progress {
    name: String,
    steps: u32,
    tokens: u32,
    started: Instant,
    bar: ProgressBar,
    next_line: Cell<u32>,
}

impl Progress {
    /// `tokens` is the number of tokens of one step.
    pub fn new(name: &str, steps: u32, tokens: u32) -> Self {
        let bar = ProgressBar::new(u64::from(steps));
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:20} {pos}/{len}  {wide_msg}") {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.set_prefix(name.to_owned());
        let started = Instant::now();
        Self { name: name.to_owned(), steps, tokens, started, bar, next_line: Cell::new(LINE_EVERY) }
    }

    /// Shows the state after `step` steps, with the recent loss in bits per byte.
    pub fn show(&self, step: u32, loss: f64) {
        let done = f64::from(step) * f64::from(self.tokens);
        let rate = done / self.started.elapsed().as_secs_f64();
        let message = format!("loss {loss:.3}, {rate:.0} tokens/s");
        if !self.bar.is_hidden() {
            self.bar.set_position(u64::from(step));
            self.bar.set_message(message);
        } else if step >= self.next_line.get() || step == self.steps {
            eprintln!("{} {step:>4}/{}  {message}", self.name, self.steps);
            self.next_line.set(step + LINE_EVERY);
        }
    }

    /// Leaves the bar on the screen.
    pub fn finish(&self) {
        self.bar.abandon();
    }
}
