//! `manifold pins`: what the store keeps, since when, and what it was made from.

use std::path::Path;
use std::sync::Arc;

use manifold_dispatcher::layers::Overlaid;
use manifold_dispatcher::{MemoryStore, Pin, Provenance, Store};
use serde_json::{Value as Json, json};

use crate::args::Pins;
use crate::error::CliError;
use crate::explain::{self, Names};
use crate::report;
use crate::session::{Options, Session};
use crate::shown::shown_in_line;

pub(crate) fn pins(options: &Pins) -> Result<(), CliError> {
    // What a session puts into its store is not kept.
    let store = Overlaid::new(MemoryStore::new(), options.store.open_to_read()?);
    let pins: Vec<_> = store.pins()?.into_iter().filter(|pin| !pin.is_of_named_images()).collect();
    if pins.is_empty() {
        return Ok(());
    }
    let session = Session::new(Arc::new(store), Vec::new(), &Options::default())?;
    let names = Names::read(&session.dispatcher, &[session.std, session.standard]);
    let mut text = String::new();
    for pin in pins {
        text += &line(&session, &names, &pin, options.json)?;
    }
    report::print(text.as_bytes())
}

fn line(session: &Session, names: &Names, pin: &Pin, json: bool) -> Result<String, CliError> {
    let dispatcher = &session.dispatcher;
    let (request, kind, hash) =
        (pin.request.to_string(), pin.outcome.kind.as_str(), pin.outcome.id.to_string());
    let time = dispatcher.pinned_at(pin.request)?;
    let time = time.map(|time| humantime::format_rfc3339_seconds(time).to_string());
    let record = dispatcher.provenance(pin.request)?;
    let note = dispatcher.note(pin.request)?;
    let args = |record: &Provenance| explain::args(dispatcher, record, names);
    if json {
        return report::json(&json!({
            "request": request,
            "kind": kind,
            "hash": hash,
            "used": time,
            "image": record.as_ref().map(|record| names.of(&record.request.image)),
            "args": record.as_ref().map(|record| {
                let args = args(record).into_iter();
                args.map(|(name, value)| (name, value.into())).collect::<serde_json::Map<_, Json>>()
            }),
            "input": note,
        }));
    }
    let what = match &record {
        Some(record) => {
            let args = args(record).into_iter();
            let mut words = vec![names.of(&record.request.image).to_owned()];
            words.extend(args.map(|(name, value)| format!("{name}={value}")));
            words.join(" ")
        }
        None if pin.is_of_request() => String::new(),
        None => names.known(&pin.outcome.id.to_string()).unwrap_or("an image").to_owned(),
    };
    let details = [time, Some(what), note].into_iter().flatten().filter(|text| !text.is_empty());
    let details = details.map(|text| format!("  {}", shown_in_line(&text)));
    Ok(format!("{request} {kind} {hash}{}\n", details.collect::<String>()))
}

/// Returns how an input is called in the note of a pin.
pub(crate) fn input_name(path: &Path, revision: Option<&str>) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match revision {
        Some(revision) => format!("{} at {revision}", path.display()),
        None => path.display().to_string(),
    }
}
