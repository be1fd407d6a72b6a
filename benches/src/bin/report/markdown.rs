//! The report as Markdown.

use std::fmt::Write;
use std::time::Duration;

use manifold_benches::{Cores, Measured, Waited};

use crate::measured::{Group, Line, Results, Role};

/// Returns the report.
pub(crate) fn report(results: &Results) -> String {
    let Results { machine, groups, waits, cores, scales } = results;
    let mut text = String::from("# Manifold: benchmark report\n\n");
    for (name, value) in machine {
        let _ = writeln!(text, "- {name}: {value}");
    }
    text += "\nMedians, with the middle half of the samples in parentheses. A ratio is Manifold's \
             time divided by the other's: below 1, Manifold is faster.\n\n";
    if !waits.is_empty() {
        let _ = write!(text, "# The command\n\n{WAITS}\n\n");
        text += &waits_table(waits);
        text += "\n# Operations\n\n";
    }
    text += &table(groups);
    if !cores.is_empty() {
        let _ = write!(text, "\n# A second core\n\n{CORES}\n\n");
        text += &cores_table(cores);
    }
    if !scales.is_empty() {
        text += "\n# From small to large\n\nEach fold runs in its own process. The cold fold is \
                 measured once, warm is the median of 101 folds, and a changed file the median of \
                 21. The floor does the same work as a recursive function on all cores. The floor \
                 of fresh and parked containers is the engine's calls for as many jobs, four at a \
                 time; where the fold itself is in wasm, the two are measured alternately, three \
                 times each, and both are medians. Only counting stores nothing.\n\n";
        text += &scale_table(scales);
    }
    text
}

/// What the table of [`waits_table`] shows.
pub(crate) const WAITS: &str = "\
    What users of the command wait for: whole processes, in wasm, with records of what ran unless there \
    is no store, and the page cache warm. What is beside each was measured by turns with it.";

/// Returns a table with a row for each thing that is waited for.
pub(crate) fn waits_table(waits: &[Waited]) -> String {
    let rows = waits.iter().map(|waited| waited.row() + "\n");
    [Waited::HEAD.to_owned() + "\n"].into_iter().chain(rows).collect()
}

/// What the table of [`cores_table`] shows.
pub(crate) const CORES: &str = "\
    The time of a frame or a hit on one thread, and on two that do twice as much or share the work. \
    The gain is the median of the ratios of both, measured one after the other. With two \
    dispatchers, nothing is shared: that is the bound. The last column is the time that a cache line \
    took from one core to the other meanwhile.";

/// Returns a table with a row for each kind of work.
pub(crate) fn cores_table(cores: &[Cores]) -> String {
    let rows = cores.iter().map(|cores| cores.row() + "\n");
    [Cores::HEAD.to_owned() + "\n"].into_iter().chain(rows).collect()
}

/// Returns a table with a row for each of Manifold's lines.
pub(crate) fn table(groups: &[Group]) -> String {
    let mut text = String::from(
        "| what | Manifold | floor | ratio | peers | ratio |\n|---|--:|---|--:|---|--:|\n",
    );
    for group in groups {
        let floors = group.of(Role::Floor).collect::<Vec<_>>();
        let peers = group.of(Role::Peer).collect::<Vec<_>>();
        for ours in group.of(Role::Ours) {
            let what = if ours.name.is_empty() {
                group.name.clone()
            } else {
                format!("{}: {}", group.name, ours.name)
            };
            let per =
                ours.elements.map(|count| format!("; {} each", time(ours.median / count as f64)));
            let (floor, floor_ratio) = beside(ours, &floors);
            let (peers, peer_ratio) = beside(ours, &peers);
            let _ = writeln!(
                text,
                "| {what} | {}{} | {floor} | {floor_ratio} | {peers} | {peer_ratio} |",
                with_spread(ours),
                per.unwrap_or_default()
            );
        }
    }
    text
}

/// Returns two cells: the lines `others`, and the ratios of `ours` to them.
fn beside(ours: &Line, others: &[&Line]) -> (String, String) {
    let join =
        |words: Vec<String>| if words.is_empty() { "–".to_owned() } else { words.join("<br>") };
    (
        join(others.iter().map(|line| format!("{}: {}", line.name, with_spread(line))).collect()),
        join(others.iter().map(|line| ratio(ours.median / line.median)).collect()),
    )
}

/// Formats a ratio with two decimals, or three if it is below 0.095.
pub(crate) fn ratio(ratio: f64) -> String {
    if ratio < 0.095 { format!("{ratio:.3}") } else { format!("{ratio:.2}") }
}

fn with_spread(line: &Line) -> String {
    format!("{} ({} to {})", time(line.median), time(line.spread.0), time(line.spread.1))
}

/// Formats a time in nanoseconds with three significant digits and a unit.
pub(crate) fn time(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        ..1e3 => (nanoseconds, "ns"),
        ..1e6 => (nanoseconds / 1e3, "µs"),
        ..1e9 => (nanoseconds / 1e6, "ms"),
        _ => (nanoseconds / 1e9, "s"),
    };
    match value {
        ..10.0 => format!("{value:.2} {unit}"),
        ..100.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

/// Formats a time in seconds like [`time`]; a dash if it is 0.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds == 0.0 {
        "–".to_owned()
    } else {
        time(Duration::from_secs_f64(seconds).as_nanos() as f64)
    }
}

/// Returns the table of the benchmark `scale`.
pub(crate) fn scale_table(scales: &[Measured]) -> String {
    let rows = scales.iter().map(Measured::row);
    std::iter::once(Measured::HEAD.to_owned()).chain(rows).map(|line| line + "\n").collect()
}
