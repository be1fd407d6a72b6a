//! Parts of a trace as text, as wide as the terminal.

use std::io;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use manifold_dispatcher::{Phase, SpanKind};
use manifold_trace::{PathReport, SpanRecord, Summary, Trace, Waterfall};

use super::time;
use crate::report;
use crate::shown::{columns, shown_in_line};

/// The width if standard output is not a terminal and `COLUMNS` is not set.
const WIDTH: usize = 120;
/// The share of queueing from which a critical path says little.
const MUCH_QUEUEING: f64 = 0.3;
/// The phases that a waterfall shows in columns.
const COLUMNS: [Phase; 4] = [Phase::Queue, Phase::Start, Phase::Compute, Phase::Host];

fn width() -> usize {
    let set = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    set.or_else(|| columns(io::stdout())).unwrap_or(WIDTH).clamp(60, 1000)
}

/// Returns what a span is called: its image and the path of what it works on.
fn name(trace: &Trace, span: &SpanRecord) -> String {
    let image = match span.kind() {
        SpanKind::Call => "root call",
        _ => trace.image(span),
    };
    // An id says little, and its first digits tell it apart.
    let is_id = image.len() == 40 && image.bytes().all(|byte| byte.is_ascii_hexdigit());
    let image = if is_id { &image[..12] } else { image };
    let detail = trace.detail(span).map(|path| format!(" {path}")).unwrap_or_default();
    let kind = match span.kind() {
        SpanKind::Call | SpanKind::Run => "",
        SpanKind::Hit => " (hit)",
        SpanKind::Join => " (join)",
        SpanKind::Elsewhere => " (elsewhere)",
        _ => " (not started)",
    };
    let failed =
        if span.is_success() || span.kind() == SpanKind::Unstarted { "" } else { " FAILED" };
    shown_in_line(&format!("{image}{detail}{kind}{failed}"))
}

/// Cuts a text to `width` characters, or fills it up. The end of a path says more than its middle.
fn fit(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return format!("{text}{}", " ".repeat(width - count));
    }
    let end = width / 2;
    let start = width.saturating_sub(end + 1);
    text.chars().take(start).chain(['…']).chain(text.chars().skip(count - end)).collect()
}

fn table(head: &[&str], first_number: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(head.iter().copied());
    for column in table.column_iter_mut().skip(first_number) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

pub(super) fn summary(command: &str, summary: &Summary) -> String {
    let Summary { total, images, .. } = summary;
    let all = match summary.kept == summary.spans {
        true => "all of them kept".to_owned(),
        false => format!("{} of them kept", summary.kept),
    };
    let mut text = format!(
        "{}\n\nwall time  {}\nspans      {}, {all}; depth {}\nruns       {}, of which {} failed; \
         {} began again\nhits       {}; {} joins; {} not started\npermits    {}, {:.0} % in use\n\
         memo       saved some {} of computing\n",
        shown_in_line(command),
        report::time(summary.wall_seconds),
        summary.spans,
        summary.depth,
        total.runs,
        total.failures,
        total.rewinds,
        total.hits,
        total.joins,
        total.unstarted,
        summary.permits,
        summary.busy * 100.0,
        report::time(summary.saved_seconds),
    );
    let mut counts = table(
        &[
            "image", "runtime", "runs", "failed", "hits", "joins", "own time", "read", "written",
            "memory",
        ],
        2,
    );
    let mut phases = table(&["image", "runtime", "phase of a run", "p50", "p95", "max", "sum"], 3);
    let size = |bytes: u64| bytesize::ByteSize(bytes).display().iec_short().to_string();
    for image in images {
        let name = shown_in_line(&image.image);
        let numbers =
            [image.counts.runs, image.counts.failures, image.counts.hits, image.counts.joins];
        let sizes = [image.read_bytes, image.written_bytes, image.memory_bytes].map(size);
        counts.add_row(
            [name.clone(), image.runtime.clone()]
                .into_iter()
                .chain(numbers.map(|number| number.to_string()))
                .chain([report::time(image.own_seconds)])
                .chain(sizes),
        );
        for (index, phase) in image.phases.iter().enumerate() {
            let times =
                [phase.p50_seconds, phase.p95_seconds, phase.max_seconds, phase.sum_seconds];
            let (name, runtime) = if index == 0 {
                (name.clone(), image.runtime.clone())
            } else {
                (String::new(), String::new())
            };
            phases.add_row(
                [name, runtime, phase.phase.to_owned()].into_iter().chain(times.map(report::time)),
            );
        }
    }
    text += &format!("\n{counts}\n\n{phases}\n");
    text
}

pub(super) fn path(trace: &Trace, path: &PathReport<'_>, lines: usize) -> String {
    let queue = path.delays.iter().filter(|delay| delay.phase == Phase::Queue.as_str());
    let queue: f64 = queue.map(|delay| delay.share).sum();
    let hint = match queue > MUCH_QUEUEING {
        true => format!(
            "The runs on this path waited in queues for {:.0} % of the time. {:.0} % of the permits were \
             in use, so the sum of\nall work decides how long this takes: see the own times in the \
             summary.\n\n",
            queue * 100.0,
            trace.summary().busy * 100.0,
        ),
        false => String::new(),
    };
    let whole: Duration = path.steps.iter().map(|(_, _, own)| *own).sum();
    let mut delays = table(&["what would have to be faster", "time", "share", "spans"], 1);
    for delay in path.delays.iter().take(15) {
        let image = shown_in_line(&delay.image);
        let runtime = match delay.runtime.is_empty() {
            true => String::new(),
            false => format!(" ({})", delay.runtime),
        };
        delays.add_row([
            format!("{}: {image}{runtime}", delay.phase),
            report::time(delay.seconds),
            format!("{:.1} %", delay.share * 100.0),
            delay.spans.to_string(),
        ]);
    }
    // The steps that account for most of the time, in their order.
    let mut owns: Vec<_> = path.steps.iter().map(|(_, _, own)| *own).collect();
    owns.sort_unstable_by(|a, b| b.cmp(a));
    let least = owns.get(lines).copied().unwrap_or_default();
    let shown: Vec<_> =
        path.steps.iter().filter(|(_, _, own)| *own >= least).take(lines.max(1)).collect();
    let mut steps = String::new();
    let width = width().saturating_sub(32);
    for (span, level, own) in &shown {
        let indent = "  ".repeat((*level as usize).min(width / 4));
        let name = fit(&format!("{indent}{}", name(trace, span)), width);
        steps += &format!("{name} {:>10} {:>10}\n", time(*own), time(span.duration()));
    }
    let hidden = match path.steps.len() - shown.len() {
        0 => String::new(),
        hidden => format!("({hidden} shorter steps are not shown; --lines shows more)\n"),
    };
    format!(
        "critical path: {} in {} spans\n\n{hint}{delays}\n\n{} {:>10} {:>10}\n{steps}{hidden}",
        time(whole),
        path.steps.len(),
        fit("span, the last first", width),
        "own time",
        "in all",
    )
}

pub(super) fn waterfall(trace: &Trace, waterfall: &Waterfall<'_>) -> String {
    let rows = waterfall.rows();
    let Some(first) = rows.first().map(|row| row.span) else { return String::new() };
    const CELL: usize = 10;
    let width = width();
    let numbers = (COLUMNS.len() + 1) * CELL;
    let names = (width.saturating_sub(numbers) * 3 / 5).max(20);
    let bars = width.saturating_sub(numbers + names + 1).max(10);
    let mut text = fit("span", names);
    for column in COLUMNS.iter().map(|phase| phase.as_str()).chain(["in all"]) {
        text += &format!("{column:>CELL$}");
    }
    text += "\n";
    for row in rows {
        let span = row.span;
        let hidden = match row.hidden {
            0 => String::new(),
            hidden => format!(" [+{hidden}]"),
        };
        let indent = "  ".repeat((row.level as usize).min(names / 4));
        text += &fit(&format!("{indent}{}{hidden}", name(trace, span)), names);
        for phase in COLUMNS {
            let spent = span.phase(phase);
            let cell = if spent.is_zero() { String::new() } else { time(spent) };
            text += &format!("{cell:>CELL$}");
        }
        text += &format!("{:>CELL$} {}\n", time(span.duration()), bar(first, span, bars));
    }
    text += "bars: · waits to begin, █ is in progress\n";
    text
}

/// Draws when `span` was in progress within the time of `whole`.
fn bar(whole: &SpanRecord, span: &SpanRecord, width: usize) -> String {
    let all = whole.duration().as_secs_f64().max(f64::MIN_POSITIVE);
    let cell = |at: Duration| {
        let share = at.saturating_sub(whole.began()).as_secs_f64() / all;
        ((share * width as f64) as usize).min(width - 1)
    };
    // These phases come first, but for a queue in which a frame waits again after nested runs.
    let waits = [Phase::Resolve, Phase::LookUp, Phase::Queue, Phase::Prepare];
    let waits: Duration = waits.iter().map(|phase| span.phase(*phase)).sum();
    let waits = if span.kind() == SpanKind::Run { waits } else { Duration::ZERO };
    let (from, end) = (cell(span.began()), cell(span.ended()));
    let begins = cell(span.began() + waits).min(end);
    let mut bar = " ".repeat(from);
    bar.extend(std::iter::repeat_n('·', begins - from));
    bar.extend(std::iter::repeat_n('█', end + 1 - begins));
    bar
}

pub(super) fn slowest(trace: &Trace, spans: &[&SpanRecord]) -> String {
    let width = width().saturating_sub(48);
    let mut text = format!(
        "{} {:>10} {:>10} {:>8}  request\n",
        fit("span", width),
        "own time",
        "in all",
        "kind"
    );
    for span in spans {
        let request = trace.request(span).map(|request| request.to_string()).unwrap_or_default();
        text += &format!(
            "{} {:>10} {:>10} {:>8}  {}\n",
            fit(&name(trace, span), width),
            time(span.own()),
            time(span.duration()),
            span.kind().as_str(),
            request.get(..12).unwrap_or_default(),
        );
        if let Some(error) = trace.error(span) {
            text += &format!("    {}\n", fit(&shown_in_line(error), width));
        }
    }
    text
}
