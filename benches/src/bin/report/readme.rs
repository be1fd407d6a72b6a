//! The short form of the report, for the README.

use std::error::Error;
use std::fmt::Write;

use crate::markdown::{ratio, seconds, time};
use crate::measured::{Results, Role};

const BEGIN: &str = "<!-- benchmarks: begin -->\n";
const END: &str = "<!-- benchmarks: end -->";

/// The names of the groups that the short form contains.
const SHOWN: [&str; 10] = [
    "memo hit by request id",
    "build the request and hit",
    "durable hit, nothing in memory",
    "dispatch an empty native guest",
    "wasm frame, file-count of a file",
    "V8 frame, file-count of a file",
    "container job, file-count of a file",
    "fold of 160 nodes, cold, wasm over wasm",
    "fold of 160 nodes, cold, TypeScript over TypeScript",
    "fold of 160 nodes, warm, wasm over wasm",
];

/// Returns `readme` with the text between the lines [`BEGIN`] and [`END`] replaced by the short
/// form.
///
/// # Errors
/// Returns an error if `readme` does not contain the two lines.
pub(crate) fn with_short_form(readme: &str, results: &Results) -> Result<String, Box<dyn Error>> {
    let Results { machine, groups, waits, scales, .. } = results;
    let parts =
        readme.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        parts.ok_or_else(|| format!("the README does not contain {BEGIN:?} and {END:?}"))?;
    let value = |name: &str| {
        machine.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| value)
    };
    let mut text =
        format!("Medians of one run; {}; {}.\n\n", value("processor"), value("versions"));
    text += "| | Manifold | beside it |\n|---|--:|---|\n";
    for group in SHOWN.iter().filter_map(|name| groups.iter().find(|group| group.name == *name)) {
        for ours in group.of(Role::Ours) {
            let others = group.of(Role::Floor).chain(group.of(Role::Peer)).map(|line| {
                format!(
                    "{}: {} (ratio {})",
                    line.name,
                    time(line.median),
                    ratio(ours.median / line.median)
                )
            });
            let others = others.collect::<Vec<_>>().join("; ");
            let what = if ours.name.is_empty() {
                group.name.clone()
            } else {
                format!("{}: {}", group.name, ours.name)
            };
            let _ = writeln!(text, "| {what} | {} | {others} |", time(ours.median));
        }
    }
    let over_containers = [
        ("wasm over container, parked", "the engine's calls alone, four at a time"),
        ("wasm over container, recycled", "a recursive function on all cores"),
        ("container, recycled over container, recycled", "a recursive function on all cores"),
        ("wasm over Python, recycled", "starting the interpreter so often, on all cores"),
        ("wasm over container, serving", "a recursive function on all cores"),
    ];
    for (words, floor) in over_containers {
        let name = format!("fixture, {words}");
        if let Some(measured) = scales.iter().find(|scale| scale.name == name) {
            let ratio = measured
                .ratio()
                .map_or_else(String::new, |value| format!(" (ratio {})", ratio(value)));
            let _ = writeln!(
                text,
                "| fold of {} nodes, cold, {words} | {} \
                 | {floor}: {}{ratio} |",
                measured.size,
                seconds(measured.cold_seconds),
                seconds(measured.floor_seconds),
            );
        }
    }
    for waited in waits {
        let note =
            if waited.note.is_empty() { String::new() } else { format!(" ({})", waited.note) };
        let _ = writeln!(
            text,
            "| command: {}{note} | {} | {}: {} (ratio {}) |",
            waited.name,
            seconds(waited.seconds),
            waited.beside,
            seconds(waited.beside_seconds),
            ratio(waited.seconds / waited.beside_seconds)
        );
    }
    if let Some(largest) =
        scales.iter().filter(|scale| scale.name == "files, wasm").max_by_key(|scale| scale.size)
    {
        let changed = largest
            .changed_seconds
            .map_or_else(String::new, |time| format!(", {} after one changed", seconds(time)));
        let _ = writeln!(
            text,
            "| fold of {} files in wasm | {}{changed} \
             | recursive Rust on all cores: {}; at most {} MiB |",
            largest.size,
            seconds(largest.cold_seconds),
            seconds(largest.floor_seconds),
            largest.peak_bytes >> 20
        );
    }
    Ok(format!("{before}{BEGIN}{text}{END}{after}"))
}
