//! `manifold trace`: shows what a command did that recorded a trace.

mod details;
mod json;
mod text;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use manifold_trace::{SpanRecord, Trace as Recorded, Waterfall};
use serde_json::{Map, Value as Json};

use crate::args::Trace;
use crate::error::CliError;
use crate::report;
use crate::say::say;

pub(crate) fn trace(options: &Trace) -> Result<(), CliError> {
    let mut trace = Recorded::read(&options.file).map_err(CliError::Trace)?;
    if !trace.has_ended() {
        say("note: the recording was cut; what happened in its last second is missing");
    }
    let selects_spans = options.critical_path
        || options.waterfall.is_some()
        || options.slowest.is_some()
        || options.perfetto.is_some()
        || options.html.is_some();
    if selects_spans {
        details::add(&mut trace, &options.store);
    }
    if let Some(path) = &options.perfetto {
        write(path, options, |out| trace.write_events(out))?;
    }
    if let Some(path) = &options.html {
        let title = format!("trace of {}", command(&trace));
        write(path, options, |out| trace.write_page(&title, out))?;
    }
    let mut values = Map::new();
    let mut texts = Vec::new();
    if !selects_spans {
        let summary = trace.summary();
        match options.json {
            true => return report::print(report::json(&summary)?.as_bytes()),
            false => texts.push(text::summary(&command(&trace), &summary)),
        }
    }
    if options.critical_path {
        let path = trace.critical_path(slowest_call(&trace, options)?);
        match options.json {
            true => drop(values.insert("critical_path".to_owned(), json::path(&trace, &path))),
            false => texts.push(text::path(&trace, &path, options.lines)),
        }
    }
    if let Some(request) = &options.waterfall {
        let span = match request {
            Some(request) => named(&trace, request, options)?,
            None => slowest_call(&trace, options)?,
        };
        let waterfall = Waterfall::of(&trace, span, options.lines);
        match options.json {
            true => {
                drop(values.insert("waterfall".to_owned(), json::waterfall(&trace, &waterfall)))
            }
            false => texts.push(text::waterfall(&trace, &waterfall)),
        }
    }
    if let Some(count) = options.slowest {
        let slowest = trace.slowest(count);
        match options.json {
            true => drop(values.insert("slowest".to_owned(), json::spans(&trace, &slowest))),
            false => texts.push(text::slowest(&trace, &slowest)),
        }
    }
    if options.json {
        return report::print(report::json(&Json::Object(values))?.as_bytes());
    }
    report::print(texts.join("\n").as_bytes())
}

/// Returns the root call that took longest; if none has ended, the span that took longest.
fn slowest_call<'a>(trace: &'a Recorded, options: &Trace) -> Result<&'a SpanRecord, CliError> {
    let slowest = trace.calls().max_by_key(|call| call.duration());
    let slowest = slowest.or_else(|| trace.spans().iter().max_by_key(|span| span.duration()));
    slowest.ok_or_else(|| CliError::NothingInTrace { path: options.file.clone() })
}

/// Returns the longest span of the request whose id begins with `digits`.
fn named<'a>(
    trace: &'a Recorded,
    digits: &str,
    options: &Trace,
) -> Result<&'a SpanRecord, CliError> {
    let spans = trace.find(digits);
    let longest = spans.iter().copied().max_by_key(|span| span.duration());
    let Some(longest) = longest.filter(|_| !digits.is_empty()) else {
        let (request, path) = (digits.to_owned(), options.file.clone());
        return Err(CliError::NotInTrace { request, path });
    };
    if spans.iter().any(|span| span.request != longest.request) {
        return Err(CliError::AmbiguousRequest { request: digits.to_owned() });
    }
    Ok(longest)
}

/// Returns the command line that the trace is of.
fn command(trace: &Recorded) -> String {
    let command = trace.labels().iter().find_map(|label| match label {
        manifold_trace::Label::Command(command) => Some(command.join(" ")),
        _ => None,
    });
    command.unwrap_or_else(|| "a program".to_owned())
}

/// Writes a file. Errors if it is the trace.
fn write(
    path: &Path,
    options: &Trace,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), CliError> {
    let unwritable = |source| CliError::Unwritable { path: path.to_owned(), source };
    let place = |path: &Path| path.metadata().ok().map(|there| (there.dev(), there.ino()));
    if place(path).is_some_and(|there| place(&options.file) == Some(there)) {
        return Err(unwritable(io::Error::new(io::ErrorKind::AlreadyExists, "it is the trace")));
    }
    let mut file = BufWriter::new(File::create(path).map_err(unwritable)?);
    write(&mut file).and_then(|()| file.flush()).map_err(unwritable)
}

/// Formats a time with a suitable unit.
fn time(time: Duration) -> String {
    report::time(time.as_secs_f64())
}
