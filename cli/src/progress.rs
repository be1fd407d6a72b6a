//! A progress bar, where there is a terminal to see it.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use manifold_dispatcher::Dispatcher;

/// How often the bar is drawn.
const INTERVAL: Duration = Duration::from_millis(80);

/// A bar that follows the frames of `dispatcher` until it is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    task: tokio::task::JoinHandle<()>,
}

impl Progress {
    /// Shows how many of `expected` frames are done. Draws nothing unless standard error is a terminal.
    pub(crate) fn frames(dispatcher: &Dispatcher, expected: u64) -> Self {
        let bar = ProgressBar::new(expected);
        if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos}/{len} frames  {per_sec}  {elapsed}") {
            bar.set_style(style);
        }
        let (following, dispatcher) = (bar.clone(), dispatcher.clone());
        let before = dispatcher.stats();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            loop {
                ticks.tick().await;
                let done = dispatcher.stats() - before;
                following.set_length(expected.max(done.runs));
                following.set_position(done.runs);
            }
        });
        Self { bar, task }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

/// A spinner for work of unknown length. Draws nothing unless standard error is a terminal.
pub(crate) fn spinner(what: &'static str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(INTERVAL);
    spinner
}
