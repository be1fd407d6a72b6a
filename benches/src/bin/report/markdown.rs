//! The report as Markdown.

use std::fmt::Write;
use std::time::Duration;

use manifold_benches::Measured;

use crate::measured::{Group, Line, Role};

pub(crate) fn report(machine: &[(&str, String)], groups: &[Group], scales: &[Measured]) -> String {
    let mut text = String::from("# What Manifold costs\n\n");
    for (name, value) in machine {
        let _ = writeln!(text, "- {name}: {value}");
    }
    text += "\nMedians, with the middle half of the samples in brackets. Ratios are Manifold's time over the other's: below 1, \
             Manifold is faster.\n\n";
    text += &table(groups);
    if !scales.is_empty() {
        text += "\n# From small to large\n\nEach in a process of its own, cold once; warm is the median of 101, a changed file of 21. The floor does the same work as a recursive function on all \
                 cores; that of containers is the engine's calls for as many jobs, four at a time, and the two are medians of three by turns where \
                 the fold itself is in wasm; counting is what is left when nothing is kept.\n\n";
        text += &scale_table(scales);
    }
    text
}

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

fn beside(ours: &Line, others: &[&Line]) -> (String, String) {
    let join =
        |words: Vec<String>| if words.is_empty() { "–".to_owned() } else { words.join("<br>") };
    (
        join(others.iter().map(|line| format!("{}: {}", line.name, with_spread(line))).collect()),
        join(others.iter().map(|line| ratio(ours.median / line.median)).collect()),
    )
}

pub(crate) fn ratio(ratio: f64) -> String {
    if ratio < 0.095 { format!("{ratio:.3}") } else { format!("{ratio:.2}") }
}

fn with_spread(line: &Line) -> String {
    format!("{} ({} to {})", time(line.median), time(line.spread.0), time(line.spread.1))
}

/// Nanoseconds, with three digits that count.
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

pub(crate) fn seconds(seconds: f64) -> String {
    if seconds == 0.0 {
        "–".to_owned()
    } else {
        time(Duration::from_secs_f64(seconds).as_nanos() as f64)
    }
}

pub(crate) fn scale_table(scales: &[Measured]) -> String {
    let rows = scales.iter().map(Measured::row);
    std::iter::once(Measured::HEAD.to_owned()).chain(rows).map(|line| line + "\n").collect()
}
