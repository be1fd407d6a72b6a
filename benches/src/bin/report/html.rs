//! The report as a self-contained HTML page with plots.

use std::fmt::Write;

use manifold_benches::Measured;

use crate::markdown::{self, ratio, time};
use crate::measured::{Group, Line, Results, Role};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}\
td,th{border-bottom:1px solid #ddd;padding:.2em .7em;text-align:left}\
h2{margin-top:2em;font-size:1.1em}svg text{font:12px system-ui,sans-serif}\
.ours{fill:#2463a8}.floor{fill:#8a8a8a}.peer{fill:#c8852c}";

/// Returns the page.
pub(crate) fn report(results: &Results) -> String {
    let Results { machine, groups, waits, cores, scales } = results;
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <title>Manifold: benchmark report</title><style>{STYLE}</style>\
         <h1>Manifold: benchmark report</h1><table>"
    );
    for (name, value) in machine {
        let _ = write!(page, "<tr><th>{name}<td>{}", escaped(value));
    }
    page += "</table>";
    if !waits.is_empty() {
        let _ = write!(page, "<h1>The command</h1><p>{}", escaped(markdown::WAITS));
        page += &table_of(&markdown::waits_table(waits));
        page += "<h1>Operations</h1>";
    }
    page += "<p>Bars show medians; the thin line is the middle half of the samples. Every \
             plot has its own logarithmic scale. Blue is Manifold, grey its floor (the same \
             operation in the underlying library alone), orange a peer. A ratio is Manifold's time \
             divided by the other's. If Manifold has several lines, there is a ratio for each, in \
             their order.";
    for group in groups {
        let _ = write!(page, "<h2>{}</h2>{}", escaped(&group.name), bars(group));
    }
    if !cores.is_empty() {
        let _ = write!(page, "<h1>A second core</h1><p>{}", escaped(markdown::CORES));
        page += &table_of(&markdown::cores_table(cores));
    }
    if !scales.is_empty() {
        page += "<h1>From small to large</h1>";
        page += &curves(scales);
        page += &table_of(&markdown::scale_table(scales));
    }
    page + "</html>\n"
}

const WIDTH: f64 = 900.0;
const NAMES: f64 = 330.0;
const ROW: f64 = 22.0;

/// Returns a plot with a bar for each line of a group.
fn bars(group: &Group) -> String {
    let least = group.lines.iter().map(|line| line.spread.0).fold(f64::INFINITY, f64::min);
    let most = group.lines.iter().map(|line| line.spread.1).fold(0.0, f64::max);
    // The scale starts below the least value, so that its bar is visible.
    let (low, high) = ((least / 3.0).log10(), most.log10());
    let scale = |value: f64| {
        NAMES + (value.log10() - low) / (high - low).max(0.1) * (WIDTH - NAMES - 190.0)
    };
    let ours: Vec<f64> = group.of(Role::Ours).map(|line| line.median).collect();
    let mut plot =
        format!("<svg width=\"{WIDTH}\" height=\"{}\">", group.lines.len() as f64 * ROW + 4.0);
    for (at, line) in group.lines.iter().enumerate() {
        let top = at as f64 * ROW + 2.0;
        let end = scale(line.median);
        let beside = match line.role {
            Role::Floor | Role::Peer if !ours.is_empty() => {
                let ratios: Vec<_> = ours.iter().map(|ours| ratio(ours / line.median)).collect();
                format!(" (ratio {})", ratios.join(", "))
            }
            _ => String::new(),
        };
        let _ = write!(
            plot,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{}\" x=\"{NAMES}\" y=\"{top}\" width=\"{:.1}\" height=\"15\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#000\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}{beside}</text>",
            NAMES - 8.0,
            top + 12.0,
            escaped(&label(line)),
            class(line.role),
            end - NAMES,
            scale(line.spread.0),
            scale(line.spread.1),
            end.max(scale(line.spread.1)) + 6.0,
            top + 12.0,
            time(line.median),
            y = top + 7.5,
        );
    }
    plot + "</svg>"
}

fn label(line: &Line) -> String {
    match line.role {
        Role::Ours if line.name.is_empty() => "Manifold".to_owned(),
        Role::Ours => format!("Manifold, {}", line.name),
        Role::Floor | Role::Peer => line.name.clone(),
    }
}

const fn class(role: Role) -> &'static str {
    match role {
        Role::Ours => "ours",
        Role::Floor => "floor",
        Role::Peer => "peer",
    }
}

/// Returns a plot of time against size, both logarithmic, with a curve for each name.
fn curves(scales: &[Measured]) -> String {
    const HEIGHT: f64 = 420.0;
    let mut names: Vec<&str> = scales.iter().map(|scale| scale.name.as_str()).collect();
    names.dedup();
    let sizes = scales.iter().map(|scale| (scale.size.max(1) as f64).log10());
    let times = scales.iter().map(|scale| scale.cold_seconds.max(1e-9).log10());
    let bounds = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        })
    };
    let ((left, right), (low, high)) = (bounds(&mut sizes.clone()), bounds(&mut times.clone()));
    let x = |size: usize| {
        60.0 + ((size.max(1) as f64).log10() - left) / (right - left).max(0.1) * (WIDTH - 330.0)
    };
    let y = |seconds: f64| {
        HEIGHT - 30.0 - (seconds.max(1e-9).log10() - low) / (high - low).max(0.1) * (HEIGHT - 60.0)
    };
    let mut plot = format!(
        "<p>The time of a cold fold by its size.<br><svg width=\"{WIDTH}\" height=\"{HEIGHT}\">"
    );
    for (at, name) in names.iter().enumerate() {
        let points: Vec<&Measured> = scales.iter().filter(|scale| scale.name == *name).collect();
        let path =
            points.iter().map(|scale| format!("{:.1},{:.1}", x(scale.size), y(scale.cold_seconds)));
        let color = format!("hsl({} 60% 40%)", at * 360 / names.len().max(1));
        let _ = write!(
            plot,
            "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" points=\"{}\"/>",
            path.collect::<Vec<_>>().join(" ")
        );
        for scale in &points {
            let (x, y) = (x(scale.size), y(scale.cold_seconds));
            let title =
                format!("{name}, {}: {}", scale.size, markdown::seconds(scale.cold_seconds));
            let _ = write!(
                plot,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{color}\">\
                 <title>{}</title></circle>",
                escaped(&title)
            );
        }
        let _ = write!(
            plot,
            "<text x=\"{}\" y=\"{}\" fill=\"{color}\">{}</text>",
            WIDTH - 250.0,
            20.0 + 18.0 * at as f64,
            escaped(name)
        );
    }
    for decade in (left.floor() as i32)..=(right.ceil() as i32) {
        let size = 10f64.powi(decade);
        let _ = write!(
            plot,
            "<text x=\"{:.1}\" y=\"{}\">{size}</text>",
            x(size as usize),
            HEIGHT - 8.0
        );
    }
    for decade in (low.floor() as i32)..=(high.ceil() as i32) {
        let seconds = 10f64.powi(decade);
        let _ = write!(
            plot,
            "<text x=\"0\" y=\"{:.1}\">{}</text>",
            y(seconds),
            markdown::seconds(seconds)
        );
    }
    plot + "</svg>"
}

/// Converts a Markdown table to an HTML table.
fn table_of(markdown: &str) -> String {
    let mut table = String::from("<table>");
    for (at, line) in markdown.lines().enumerate().filter(|(at, _)| *at != 1) {
        table += "<tr>";
        for cell in line.trim_matches('|').split('|') {
            let _ =
                write!(table, "<{}>{}", if at == 0 { "th" } else { "td" }, escaped(cell.trim()));
        }
    }
    table + "</table>"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
