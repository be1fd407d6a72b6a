//! [`Page`]: the table, and the pictures of who ran what.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use crate::machine::PERMITS;

/// What a node did, in seconds since 1970.
pub(crate) struct Lane {
    pub(crate) name: String,
    /// The calls and units of the node: beginning and end.
    pub(crate) units: Vec<(f64, f64)>,
    /// The files on which it worked.
    pub(crate) files: Vec<(f64, f64)>,
    pub(crate) killed: Option<f64>,
}

/// What was found.
#[derive(Default)]
pub(crate) struct Page {
    expected: HashMap<String, (String, f64)>,
    rows: Vec<[String; 4]>,
    pictures: String,
    broken: usize,
}

impl Page {
    /// Notes the outcome and the time of a call on one node.
    pub(crate) fn expected(&mut self, name: &str, text: String, time: Duration) {
        self.expected.insert(name.to_owned(), (text, time.as_secs_f64()));
    }

    /// Returns the outcome of a call on one node.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.expected.get(name).map_or("", |(text, _)| text)
    }

    /// Returns the time of a call on one node, in seconds.
    pub(crate) fn time(&self, name: &str) -> f64 {
        self.expected.get(name).map_or(f64::NAN, |(_, time)| *time)
    }

    /// Adds what was found to the table. `found` can name a call on one node, whose time is shown.
    pub(crate) fn row(&mut self, what: &str, promised: &str, found: &str, holds: bool) {
        let (promised, found) = match found {
            "" => ("", format!("{:.1} s", self.time(promised))),
            found => (promised, found.to_owned()),
        };
        self.broken += usize::from(!holds);
        let holds = if holds { "yes" } else { "NO" };
        self.rows.push([what.to_owned(), promised.to_owned(), found, holds.to_owned()]);
    }

    pub(crate) fn broken(&self) -> usize {
        self.broken
    }

    /// Returns the table in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut table = "| what | promised | found | holds |\n|---|---|---|---|\n".to_owned();
        for row in &self.rows {
            let _ = writeln!(table, "| {} |", row.join(" | "));
        }
        table
    }

    /// Returns the page: the table and the pictures.
    pub(crate) fn html(&self) -> String {
        let cells = |row: &[String; 4], tag: &str| {
            row.iter().map(|cell| format!("<{tag}>{cell}</{tag}>")).collect::<String>()
        };
        let heads = ["what", "promised", "found", "holds"].map(str::to_owned);
        let mut rows = format!("<tr>{}</tr>\n", cells(&heads, "th"));
        for row in &self.rows {
            let _ = writeln!(rows, "<tr>{}</tr>", cells(row, "td"));
        }
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Nodes</title>\n\
             <style>\nbody {{ font: 15px sans-serif; margin: 2em auto; max-width: 1000px; }}\n\
             table {{ border-collapse: collapse; }}\ntd, th {{ text-align: left; padding: 4px 10px; \
             border-bottom: 1px solid #ccc; }}\nsvg {{ width: 100%; }}\n</style>\n\
             <h1>Nodes</h1>\n<table>\n{rows}</table>\n{}</html>\n",
            self.pictures
        )
    }

    /// Adds a picture of who ran what: for each node, on how many files it worked, and below that its
    /// calls and units.
    pub(crate) fn picture(&mut self, title: &str, lanes: Vec<Lane>) {
        const WIDTH: f64 = 900.0;
        const LEFT: f64 = 90.0;
        const HIGH: f64 = 60.0;
        const BAR: f64 = 3.0;
        const BINS: usize = 450;
        let all = || lanes.iter().flat_map(|lane| lane.files.iter().chain(&lane.units));
        let from = all().map(|(began, _)| *began).fold(f64::INFINITY, f64::min);
        let to = all().map(|(_, ended)| *ended).fold(from + 0.1, f64::max);
        let x = |time: f64| LEFT + (time - from) / (to - from) * WIDTH;
        let (mut body, mut y) = (String::new(), 10.0);
        for (lane, colour) in lanes.iter().zip(["#4269d0", "#efb118", "#3ca951"]) {
            let mut busy = [0.0; BINS];
            let bin = (to - from) / BINS as f64;
            for (began, ended) in &lane.files {
                let mut at = *began;
                while at < *ended {
                    let index = (((at - from) / bin) as usize).min(BINS - 1);
                    let next = (from + (index + 1) as f64 * bin).min(*ended);
                    busy[index] += (next - at).max(0.0) / bin;
                    at = if next > at { next } else { *ended };
                }
            }
            let mut path = format!("M{LEFT} {}", y + HIGH);
            for (index, busy) in busy.iter().enumerate() {
                let high = (busy / PERMITS as f64).min(1.0) * HIGH;
                let at = LEFT + index as f64 * WIDTH / BINS as f64;
                let _ = write!(path, "L{at:.1} {:.1}", y + HIGH - high);
            }
            let _ = write!(path, "L{} {}Z", LEFT + WIDTH, y + HIGH);
            let _ = writeln!(
                body,
                "<text x=\"0\" y=\"{}\" font-size=\"13\">{}</text><path d=\"{path}\" fill=\"{colour}\"/>",
                y + HIGH / 2.0,
                lane.name
            );
            if let Some(killed) = lane.killed {
                let at = x(killed);
                let _ = writeln!(
                    body,
                    "<path d=\"M{at:.1} {y}V{}\" stroke=\"#d00\" stroke-width=\"2\"/><text x=\"{:.1}\" \
                     y=\"{}\" font-size=\"12\" fill=\"#d00\">killed</text>",
                    y + HIGH,
                    at + 4.0,
                    y + 12.0
                );
            }
            y += HIGH + 4.0;
            // Bars that overlap are below each other.
            let mut ends: Vec<f64> = Vec::new();
            let mut units = lane.units.clone();
            units.sort_by(|one, other| one.0.total_cmp(&other.0));
            for (began, ended) in units {
                let row = ends.iter().position(|end| *end <= began).unwrap_or(ends.len());
                match ends.get_mut(row) {
                    Some(end) => *end = ended,
                    None => ends.push(ended),
                }
                let _ = writeln!(
                    body,
                    "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\" \
                     stroke=\"#fff\" stroke-width=\".3\"/>",
                    x(began),
                    y + row as f64 * BAR,
                    (x(ended) - x(began)).max(0.5),
                    BAR
                );
            }
            y += ends.len() as f64 * BAR + 16.0;
        }
        let seconds = to - from;
        let _ = writeln!(
            self.pictures,
            "<h2>{title}</h2>\n<p>On how many files each node worked ({PERMITS} at once), and below that \
             its calls and units, over {seconds:.1} seconds.</p>\n<svg viewBox=\"0 0 {} {y}\" \
             xmlns=\"http://www.w3.org/2000/svg\">\n{body}</svg>",
            LEFT + WIDTH
        );
    }
}
