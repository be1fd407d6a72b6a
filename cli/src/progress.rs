//! Progress bars on standard error. They draw nothing unless standard error is a terminal.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use manifold_dispatcher::{Progress as Step, ScanProgress};
use manifold_runtime_docker::ImportProgress;

/// The time between two draws.
const INTERVAL: Duration = Duration::from_millis(80);

/// Returns whether lines can be drawn again: standard error is a terminal, and neither `CI` nor
/// `NO_COLOR` is set.
pub(crate) fn can_draw() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !is_set("CI") && !is_set("NO_COLOR")
}

/// Creates a bar of this length. It is hidden if lines cannot be drawn again.
fn bar(length: Option<u64>) -> ProgressBar {
    let target =
        if can_draw() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    ProgressBar::with_draw_target(length, target)
}

/// A bar that counts commits, with an estimate of the rest.
pub(crate) fn commits(total: u64) -> ProgressBar {
    let bar = bar(Some(total));
    if let Ok(style) =
        ProgressStyle::with_template("{bar:32} {pos}/{len} commits  {per_sec}  {eta} left")
    {
        bar.set_style(style);
    }
    bar
}

/// A bar for work in several steps, each with a count of its own.
pub(crate) struct Steps {
    bar: ProgressBar,
    drawn: Option<Instant>,
}

impl Steps {
    pub(crate) fn new() -> Self {
        let bar = bar(Some(0));
        if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        Self { bar, drawn: None }
    }

    pub(crate) fn show(&mut self, progress: Step) {
        if self.drawn.is_some_and(|drawn| drawn.elapsed() < INTERVAL) {
            return;
        }
        self.drawn = Some(Instant::now());
        self.bar.set_message(progress.what);
        self.bar.set_length(progress.total);
        self.bar.set_position(progress.done);
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A bar that shows how far an import is.
pub(crate) struct Importing(ProgressBar);

impl Importing {
    pub(crate) fn new() -> Self {
        let bar = bar(Some(0));
        if let Ok(style) = ProgressStyle::with_template(
            "{bar:24} {msg} layers  {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
        ) {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub(crate) fn show(&self, progress: ImportProgress) {
        self.0.set_message(format!("{}/{}", progress.layers, progress.all_layers));
        self.0.set_length(progress.all_bytes);
        self.0.set_position(progress.bytes);
    }
}

impl Drop for Importing {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A bar that shows how many files and bytes are hashed, how fast, and how long the rest takes. A
/// spinner until the first file is hashed.
pub(crate) struct Hashing(ProgressBar);

impl Hashing {
    pub(crate) fn new() -> Self {
        let bar = bar(None).with_style(ProgressStyle::default_spinner());
        bar.set_message("reading directories");
        bar.enable_steady_tick(INTERVAL);
        Self(bar)
    }

    /// Returns a function that shows the progress of a scan.
    pub(crate) fn listener(&self) -> impl Fn(ScanProgress) + Send + Sync + 'static {
        let bar = self.0.clone();
        let style = ProgressStyle::with_template(
            "hashing {bar:24} {msg} files  {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
        );
        let style = style.ok();
        let is_styled = OnceLock::new();
        move |progress| {
            is_styled.get_or_init(|| style.clone().map(|style| bar.set_style(style)));
            bar.set_message(format!("{}/{}", progress.hashed_files, progress.files));
            bar.set_length(progress.bytes);
            bar.set_position(progress.hashed_bytes);
        }
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
