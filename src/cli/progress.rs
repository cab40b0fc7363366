//! Progress on a terminal; nothing in a pipe.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::Output;
use crate::report::Monitor;

/// Shows each step as a line that is redrawn.
pub struct Progress {
    bar: Option<Mutex<ProgressBar>>,
    verbose: bool,
}

impl Progress {
    pub fn new(output: Output) -> Self {
        let shown = !output.quiet && std::io::stderr().is_terminal();
        Self {
            bar: shown.then(|| Mutex::new(ProgressBar::hidden())),
            verbose: output.verbose,
        }
    }

    fn with_bar(&self, act: impl FnOnce(&mut ProgressBar)) {
        if let Some(bar) = &self.bar {
            act(&mut bar.lock().expect("no thread panics with it"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.with_bar(|bar| bar.finish_and_clear());
    }
}

impl Monitor for Progress {
    fn step(&self, what: &'static str, total: Option<u64>) {
        let template = match total {
            Some(_) => "{msg}: {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            None => "{msg}: {bytes}, {bytes_per_sec}, {elapsed}",
        };
        let style = ProgressStyle::with_template(template).expect("the template is a constant");
        self.with_bar(|bar| {
            bar.finish_and_clear();
            *bar = total
                .map_or_else(ProgressBar::new_spinner, ProgressBar::new)
                .with_style(style)
                .with_message(what);
            bar.enable_steady_tick(Duration::from_millis(200));
        });
    }

    fn advance(&self, bytes: u64) {
        self.with_bar(|bar| bar.inc(bytes));
    }

    fn detail(&self, text: &str) {
        if self.verbose {
            match &self.bar {
                Some(bar) => bar.lock().expect("no thread panics with it").println(text),
                None => Output::detail(text),
            }
        }
    }
}
