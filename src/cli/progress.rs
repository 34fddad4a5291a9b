//! Progress bars, convergence histories and Ctrl-C for iterative methods.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use wellposed::observe::{Observer, Step};

use super::console;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C asks the running method to stop and keep its estimate; pressed again, it ends the program.
pub fn catch_interrupts() {
    let caught = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        console::say("\nStopping after this step; press Ctrl-C again to quit at once.");
    });
    // Without a handler Ctrl-C ends the program as usual, which is no reason not to work.
    let _ = caught;
}

/// Whether Ctrl-C was pressed.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Shows the steps of a method on stderr where that is a terminal, and keeps its convergence curve.
pub struct Progress {
    bar: ProgressBar,
    /// Name of what the method watches.
    pub measure: String,
    /// Its value after each step.
    pub history: Vec<f64>,
}

impl Progress {
    /// A bar that says what is done.
    pub fn new(what: &str) -> Self {
        // Hidden where stderr is not a terminal.
        let bar = ProgressBar::new(0).with_prefix(what.to_string());
        let template = "{prefix}  {wide_bar}  {pos}/{len}  {per_sec}  {eta} left  {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, measure: String::new(), history: Vec::new() }
    }

    /// Says that something else is done now.
    pub fn rename(&self, what: String) {
        self.bar.set_prefix(what);
    }

    /// Shows a step of other work; false where Ctrl-C was pressed.
    pub fn tick(&self, step: usize, total: usize, message: &str) -> bool {
        self.bar.set_length(total as u64);
        self.bar.set_position(step as u64);
        self.bar.set_message(message.to_string());
        !interrupted()
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Progress {
    fn observe(&mut self, step: &Step<'_>) -> ControlFlow<()> {
        let (name, value) = step.measure;
        self.bar.set_length(step.total as u64);
        self.bar.set_position(step.iteration as u64);
        self.bar.set_message(format!("{name} {value:.3e}"));
        self.measure = name.into();
        self.history.push(value);
        if interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
