//! The output of commands on standard output: tables, JSON and objects.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use manifold_dispatcher::{Dispatcher, Stats};
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{Error, Object, ObjectKind, ObjectRef, Tree};
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::cache::CacheReport;
use crate::error::CliError;
use crate::fold::{DirectoryReport, Explanation};
use crate::outcome::{self, Value};
use crate::shown::{quoted, shown, shown_in_line, shown_json};

/// The size in bytes up to which a blob is shown as text, if it is UTF-8.
const SHORT_TEXT_BYTES: u64 = 4096;
/// The number of lines of an outcome that are shown below a table.
const SHOWN_LINES: usize = 40;

#[derive(Serialize)]
pub(crate) struct OutcomeReport {
    kind: &'static str,
    hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The values of a tree or a table, by name.
    #[serde(skip_serializing_if = "Map::is_empty")]
    values: Map<String, Json>,
}

impl OutcomeReport {
    pub(crate) fn new(dispatcher: &Dispatcher, outcome: ObjectRef) -> Result<Self, CliError> {
        let text = match outcome.kind {
            ObjectKind::Tree => None,
            ObjectKind::Blob if dispatcher.blob_size(outcome.id)? > SHORT_TEXT_BYTES => None,
            ObjectKind::Blob => {
                let content = dispatcher.read(outcome.id)?.content;
                content.to_str().ok().map(str::to_owned)
            }
        };
        let (kind, hash) = (outcome.kind.as_str(), outcome.id.to_string());
        Ok(Self { kind, hash, text, values: Map::new() })
    }

    /// Like [`OutcomeReport::new`], with the values of the outcome, which only JSON shows.
    pub(crate) fn with_values(
        dispatcher: &Dispatcher,
        outcome: ObjectRef,
    ) -> Result<Self, CliError> {
        let mut report = Self::new(dispatcher, outcome)?;
        if let Value::Several(values) = outcome::value(dispatcher, outcome)? {
            report.values = outcome::json(&values);
        }
        Ok(report)
    }
}

#[derive(Serialize)]
pub(crate) struct Repeat {
    pub(crate) seconds: f64,
    pub(crate) runs: u64,
    pub(crate) hits: u64,
}

impl Repeat {
    pub(crate) fn new(time: Duration, stats: Stats) -> Self {
        Self { seconds: time.as_secs_f64(), runs: stats.runs, hits: stats.hits }
    }
}

#[derive(Serialize)]
pub(crate) struct FoldReport {
    pub(crate) guest: &'static str,
    pub(crate) request: String,
    pub(crate) result: OutcomeReport,
    pub(crate) nodes: u64,
    /// How long hashing the directory, or resolving the revision, took.
    pub(crate) scan_seconds: f64,
    /// How long compiling the guests took after that. 0 for a hit, which needs no guests.
    pub(crate) compile_seconds: f64,
    pub(crate) repeats: Vec<Repeat>,
    /// The results of the directories below, if the user wants them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tree: Vec<DirectoryReport>,
    /// Why frames ran, if the user wants to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) explanation: Option<Explanation>,
    /// What was exchanged with a shared cache, in the first report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache: Option<CacheReport>,
}

/// Formats the reports as one table, with the request and the result of each, `lines`, the results of
/// directories and the explanations below it.
pub(crate) fn fold_table(reports: &[FoldReport], lines: &str) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "guest",
        "fold",
        "result",
        "nodes",
        "frames run",
        "memo hits",
        "scan",
        "compile",
        "time",
        "frames/s",
    ]);
    let mut ids = String::new();
    // Scanning and compiling are done once, so that the sum of all times is what the user waited.
    let once = |seconds: f64, is_done: bool| {
        if is_done && seconds > 0.0 { time(seconds) } else { "–".to_owned() }
    };
    let mut is_first_row = true;
    for report in reports {
        for (repeat, number) in report.repeats.iter().zip(1..) {
            let rate = if repeat.runs == 0 {
                "–".to_owned()
            } else {
                format!("{:.0}", repeat.runs as f64 / repeat.seconds)
            };
            table.add_row([
                report.guest.to_owned(),
                number.to_string(),
                report.result.brief(),
                report.nodes.to_string(),
                repeat.runs.to_string(),
                repeat.hits.to_string(),
                once(report.scan_seconds, is_first_row),
                once(report.compile_seconds, number == 1),
                time(repeat.seconds),
                rate,
            ]);
            is_first_row = false;
        }
        let of = if reports.len() > 1 { format!("  ({})", report.guest) } else { String::new() };
        ids += &format!(
            "request {}{of}\nresult  {} {}{of}\n",
            report.request, report.result.kind, report.result.hash
        );
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    // Guests that agree have the same results.
    let tree: String =
        reports.first().iter().flat_map(|report| &report.tree).map(DirectoryReport::line).collect();
    let explanations = reports.iter().filter_map(|report| report.explanation.as_ref());
    let explanations: String =
        explanations.map(|explanation| format!("\n{}\n", explanation.text())).collect();
    let tree = if tree.is_empty() { tree } else { format!("\n{tree}") };
    format!("{table}\n{ids}{lines}{tree}{explanations}")
}

/// Formats one report as its own JSON object, and several as one object with a list.
pub(crate) fn fold_json(reports: &[FoldReport]) -> Result<String, CliError> {
    #[derive(Serialize)]
    struct Several<'a> {
        guests: &'a [FoldReport],
        agree: bool,
    }
    match reports {
        [report] => json(report),
        guests => json(&Several { guests, agree: check_agreement(guests).is_ok() }),
    }
}

/// Errors unless all results are the same object.
pub(crate) fn check_agreement(reports: &[FoldReport]) -> Result<(), CliError> {
    if reports.windows(2).all(|pair| pair[0].result.hash == pair[1].result.hash) {
        return Ok(());
    }
    let outcomes =
        reports.iter().map(|report| format!("{} returned {}", report.guest, report.result.hash));
    Err(CliError::Disagreement { outcomes: outcomes.collect() })
}

impl OutcomeReport {
    /// Formats the outcome for a cell of the table: its text if that is short, else its kind and
    /// id.
    pub(crate) fn brief(&self) -> String {
        match &self.text {
            Some(text) if is_brief(text) => shown_in_line(text.trim_end()),
            _ => format!("{} {}", self.kind, &self.hash[..12]),
        }
    }

    /// Formats the lines of `outcome`, which this reports, after an empty line. Long outcomes are cut,
    /// and one with a brief form has none.
    pub(crate) fn lines(
        &self,
        dispatcher: &Dispatcher,
        outcome: ObjectRef,
    ) -> Result<String, CliError> {
        if self.text.as_deref().is_some_and(is_brief) {
            return Ok(String::new());
        }
        let mut lines = Vec::new();
        let flow = outcome::lines(dispatcher, outcome, &mut |line| {
            if lines.len() == SHOWN_LINES {
                return ControlFlow::Break(());
            }
            lines.push(line.to_owned());
            ControlFlow::Continue(())
        })?;
        if lines.is_empty() {
            return Ok(String::new());
        }
        let rest = match flow {
            ControlFlow::Continue(()) => String::new(),
            ControlFlow::Break(()) => {
                format!("…\nmanifold cat --lines {} prints all of it\n", self.hash)
            }
        };
        Ok(format!("\n{}\n{rest}", lines.join("\n")))
    }
}

/// Returns whether a text fits into a cell of a table.
fn is_brief(text: &str) -> bool {
    text.lines().count() == 1 && text.len() <= 40
}

/// Formats a time in seconds with a suitable unit.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.1} µs", s * 1e6),
    }
}

#[derive(Serialize)]
pub(crate) struct RunReport {
    pub(crate) request: String,
    pub(crate) result: OutcomeReport,
    /// What was exchanged with a shared cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache: Option<CacheReport>,
}

impl RunReport {
    /// Formats the outcome in one line, followed by its text if that is short.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{} {}\n", self.result.kind, self.result.hash);
        if let Some(content) = &self.result.text {
            text.push_str(&shown(content));
            if !content.ends_with('\n') {
                text.push('\n');
            }
        }
        text
    }
}

/// Formats a report as one line of JSON.
pub(crate) fn json(report: &impl Serialize) -> Result<String, CliError> {
    let text = serde_json::to_string(report).map_err(|error| CliError::Output(error.into()))?;
    Ok(shown_json(&text) + "\n")
}

/// Prints an object: a blob's bytes, or a tree as `git ls-tree` prints it.
pub(crate) fn object(object: &Object) -> Result<(), CliError> {
    if object.kind == ObjectKind::Blob {
        return print(&object.content);
    }
    let tree = Tree::decode_as_git_reads(&object.content)
        .map_err(|problem| Error::bad_tree(object.id(), problem))?;
    let mut lines = Vec::new();
    for entry in tree.entries() {
        lines.extend_from_slice(
            format!("{:0>6} {} {}\t", entry.mode, entry.mode.kind_str(), entry.id).as_bytes(),
        );
        lines.extend_from_slice(&quoted(&entry.name));
        lines.push(b'\n');
    }
    print(&lines)
}

/// Writes to standard output. A reader that closed the pipe is not an error.
pub(crate) fn print(text: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Output(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(guest: &'static str, hash: &str) -> FoldReport {
        let result =
            OutcomeReport { kind: "blob", hash: hash.to_owned(), text: None, values: Map::new() };
        FoldReport {
            guest,
            request: String::new(),
            result,
            nodes: 1,
            scan_seconds: 0.0,
            compile_seconds: 0.0,
            repeats: Vec::new(),
            tree: Vec::new(),
            explanation: None,
            cache: None,
        }
    }

    #[test]
    fn different_results_are_an_error_that_names_each() {
        assert!(check_agreement(&[report("wasm", "a")]).is_ok());
        assert!(check_agreement(&[report("wasm", "a"), report("ts", "a")]).is_ok());
        let error = check_agreement(&[report("wasm", "a"), report("ts", "b")])
            .map_err(|error| error.to_string());
        assert_eq!(error, Err("the guests disagree: wasm returned a, ts returned b".to_owned()));
    }
}
