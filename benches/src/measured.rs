//! The results of the benchmarks `scale` and `cores`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Appends a result, as a line of JSON, to the file that the environment variable `variable` names.
/// Does nothing if it is not set.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn append_result(variable: &str, result: &impl Serialize) -> io::Result<()> {
    let Some(path) = std::env::var_os(variable) else { return Ok(()) };
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{}", serde_json::to_string(result)?)
}

/// The measurements of one fold in its own process. Times are in seconds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The shape of the input and the languages of the guests, such as `files, wasm`.
    pub name: String,
    /// The size of the input: files, levels or nodes, depending on the shape.
    pub size: usize,
    /// The number of runs of the cold fold.
    pub frames: u64,
    /// The time of the fold with an empty memo. A median where it was measured several times.
    pub cold_seconds: f64,
    /// The time of the same fold from the memo. A median.
    pub warm_seconds: f64,
    /// The time of the fold after one file was changed. A median. `None` where it was not measured.
    pub changed_seconds: Option<f64>,
    /// The time of the same work as a recursive function on all cores, without frames. For jobs
    /// with their own containers, the time of the engine's calls alone. 0 where it was not
    /// measured.
    pub floor_seconds: f64,
    /// The time to only count the files, without storing anything. 0 where it was not measured.
    pub counting_seconds: f64,
    /// Resident memory of the process before the fold, the input included.
    pub before_bytes: u64,
    /// Peak resident memory during the fold.
    pub peak_bytes: u64,
    /// Resident memory after the fold, with the memo and all results.
    pub after_bytes: u64,
}

impl Measured {
    /// The head of the Markdown table that [`Measured::row`] returns a row of.
    pub const HEAD: &str = "\
        | fold of | size | frames | cold | per frame | warm | one file changed | floor | ratio \
        | only counting | memory before | at most | after |\n\
        |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

    /// Returns the time of the cold fold divided by the floor's; `None` where there is no floor.
    pub fn ratio(&self) -> Option<f64> {
        (self.floor_seconds > 0.0).then(|| self.cold_seconds / self.floor_seconds)
    }

    /// Returns a row of the Markdown table with the head [`Measured::HEAD`].
    pub fn row(&self) -> String {
        let time = |seconds: f64| match seconds {
            0.0 => "–".to_owned(),
            seconds => format!("{:.3?}", Duration::from_secs_f64(seconds)),
        };
        let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.name,
            self.size,
            self.frames,
            time(self.cold_seconds),
            time(self.cold_seconds / self.frames.max(1) as f64),
            time(self.warm_seconds),
            self.changed_seconds.map_or_else(|| "–".to_owned(), time),
            time(self.floor_seconds),
            self.ratio().map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
            time(self.counting_seconds),
            mib(self.before_bytes),
            mib(self.peak_bytes),
            mib(self.after_bytes),
        )
    }
}

/// What a second core is worth to one kind of work. Times are medians in nanoseconds, for one frame
/// or one hit of all that are done at the same time.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cores {
    /// What was done, such as `wasm, one root`.
    pub name: String,
    /// The time on one thread.
    pub one_ns: f64,
    /// The time on two threads.
    pub two_ns: f64,
    /// The median of the ratios of the two, measured one after the other.
    pub gain: f64,
    /// The time that a cache line took from one core to the other meanwhile.
    pub hop_ns: f64,
}

impl Cores {
    /// The head of the Markdown table that [`Cores::row`] returns a row of.
    pub const HEAD: &str = "\
        | work | one core | two cores | gain | a cache line takes |\n|---|--:|--:|--:|--:|";

    /// Returns a row of the Markdown table with the head [`Cores::HEAD`].
    pub fn row(&self) -> String {
        let time = |ns: f64| format!("{:.3?}", Duration::from_secs_f64(ns / 1e9));
        let Self { name, one_ns, two_ns, gain, hop_ns } = self;
        let (one, two, hop) = (time(*one_ns), time(*two_ns), time(*hop_ns));
        format!("| {name} | {one} | {two} | {gain:.2} | {hop} |")
    }
}

/// What a user of the command waits for, beside the same without Manifold. Times are medians in seconds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Waited {
    /// What was done.
    pub name: String,
    /// How long it takes.
    pub seconds: f64,
    /// What was done beside it.
    pub beside: String,
    /// How long that takes.
    pub beside_seconds: f64,
    /// What else was measured.
    pub note: String,
}

impl Waited {
    /// The head of the Markdown table that [`Waited::row`] returns a row of.
    pub const HEAD: &str = "| what | Manifold | beside it | ratio | |\n|---|--:|---|--:|---|";

    /// Returns a row of the Markdown table with the head [`Waited::HEAD`].
    pub fn row(&self) -> String {
        let time = |seconds: f64| format!("{:.3?}", Duration::from_secs_f64(seconds));
        let Self { name, seconds, beside, beside_seconds, note } = self;
        let ratio = seconds / beside_seconds;
        format!(
            "| {name} | {} | {beside}: {} | {ratio:.2} | {note} |",
            time(*seconds),
            time(*beside_seconds)
        )
    }
}
