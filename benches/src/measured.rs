//! What a fold of some size came to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One fold, in a process of its own. Times are seconds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// What was folded, and by what.
    pub name: String,
    /// How large it was.
    pub size: usize,
    /// How many guests were run.
    pub frames: u64,
    /// With nothing remembered.
    pub cold_seconds: f64,
    /// Again: the median of some.
    pub warm_seconds: f64,
    /// After one file was changed.
    pub changed_seconds: Option<f64>,
    /// The same job as a recursive function on all cores, without frames; for jobs in containers of their own, the engine's calls
    /// alone. 0 where that was not measured.
    pub floor_seconds: f64,
    /// Only counting.
    pub counting_seconds: f64,
    /// Memory of the process with the input in it.
    pub before_bytes: u64,
    /// The most that it had during the fold.
    pub peak_bytes: u64,
    /// With the memo and all results in it.
    pub after_bytes: u64,
}

impl Measured {
    /// The head of the Markdown table that [`Measured::row`] is a row of.
    pub const HEAD: &str = "\
        | fold of | size | frames | cold | per frame | warm | one file changed | floor | ratio | only counting | memory before | at most | after |\n\
        |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

    /// How many times as long as the floor the fold took; `None` where there is no floor.
    pub fn ratio(&self) -> Option<f64> {
        (self.floor_seconds > 0.0).then(|| self.cold_seconds / self.floor_seconds)
    }

    /// A row of a Markdown table, below [`Measured::HEAD`].
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
