//! The commands that maintain the store: `unpin`, `gc`, `verify` and `export`.

use std::error::Error as _;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use manifold_cli::export::export as write_refs;
use manifold_dispatcher::{Damage, DurableStore, Keep, ObjectSource, Pin, Store};
use manifold_runtime_api::ObjectId;
use manifold_runtime_docker::{ContainerEngine, EngineOptions};
use serde_json::json;

use crate::args::{Export, Gc, Unpin, Verify};
use crate::error::CliError;
use crate::progress::Steps;
use crate::report;
use crate::repository::Repository;
use crate::say::warn;

pub(crate) fn unpin(options: &Unpin) -> Result<(), CliError> {
    let requests = ids(&options.requests)?;
    let store = options.store.open()?;
    for request in &requests {
        let pin = store.pinned(*request)?.map(|outcome| Pin { request: *request, outcome });
        if pin.is_none_or(|pin| pin.is_of_named_images()) {
            return Err(CliError::NotPinned { request: request.to_string() });
        }
    }
    for request in requests {
        store.unpin(request)?;
    }
    Ok(store.flush()?)
}

pub(crate) fn gc(options: &Gc) -> Result<(), CliError> {
    let store = options.store.open()?;
    let mut keep = Keep::default();
    keep.used_within = options.used_within;
    keep.at_most_bytes = options.max_size.map(|size| size.as_u64());
    keep.written_within = options.written_within;
    keep.pinned_within = options.pinned_within;
    let before = file_size(&store)?;
    let mut steps = Steps::new();
    let done = store.collect(&keep, |progress| steps.show(progress))?;
    drop(steps);
    let after = file_size(&store)?;
    let images = remove_images(&store);
    let text = if options.json {
        report::json(&json!({
            "kept": {
                "objects": done.kept_objects, "bytes": done.kept_bytes,
                "entries": done.kept_entries, "pins": done.kept_pins,
            },
            "dropped": {
                "objects": done.dropped_objects, "bytes": done.dropped_bytes,
                "entries": done.dropped_entries, "pins": done.dropped_pins,
            },
            "file": { "before": before, "after": after, "compacted": done.compacted },
            "images": images.as_ref().map(|removed| json!({ "dropped": removed })),
        }))?
    } else {
        let line = |what, objects, bytes, entries, pins| {
            format!(
                "{what} objects: {objects} ({}), memo entries: {entries}, pins: {pins}\n",
                ByteSize(bytes)
            )
        };
        [
            line("kept   ", done.kept_objects, done.kept_bytes, done.kept_entries, done.kept_pins),
            line(
                "dropped",
                done.dropped_objects,
                done.dropped_bytes,
                done.dropped_entries,
                done.dropped_pins,
            ),
            format!("file    {} before, {} now\n", ByteSize(before), ByteSize(after)),
            if done.compacted { "" } else { "        not compacted: other processes use it\n" }
                .to_owned(),
            match images {
                Some(count @ 1..) => format!("images  {count} removed from the container engine\n"),
                _ => String::new(),
            },
        ]
        .concat()
    };
    report::print(text.as_bytes())
}

/// Removes images from the container engine that were loaded from trees which the store no longer
/// has. Returns how many, or `None` if no engine can be asked.
fn remove_images(store: &DurableStore) -> Option<usize> {
    let options = EngineOptions::default().deadline(ENGINE_TIME);
    // Most machines have no engine. That is nothing to speak of.
    let socket = options.endpoint.strip_prefix("unix://").map(Path::new);
    if socket.is_some_and(|socket| !socket.exists()) {
        return None;
    }
    let removed = ContainerEngine::new(options).map_err(CliError::NoThreads).and_then(|engine| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        // An object that cannot be read is none that can be given up.
        let is_kept = |tree| !matches!(store.kind(tree), Ok(None));
        let removed = runtime.map_err(CliError::NoThreads)?.block_on(engine.remove_images(is_kept));
        removed.map_err(CliError::UnusedImages)
    });
    match removed {
        Ok(removed) => Some(removed.len()),
        Err(error) => {
            warn(&format!(
                "{error}: {}",
                error.source().map(ToString::to_string).unwrap_or_default()
            ));
            None
        }
    }
}

/// How long a call to the container engine may take.
const ENGINE_TIME: Duration = Duration::from_secs(5);

fn file_size(store: &DurableStore) -> Result<u64, CliError> {
    let path = store.file();
    let metadata = path.metadata();
    Ok(metadata.map_err(|source| CliError::Unreadable { path: path.to_owned(), source })?.len())
}

pub(crate) fn verify(options: &Verify) -> Result<(), CliError> {
    let store =
        if options.repair { options.store.open()? } else { options.store.open_to_read()? };
    let mut steps = Steps::new();
    let found = store.verify(|progress| steps.show(progress))?;
    drop(steps);
    let text = if options.json {
        report::json(&json!({
            "objects": found.objects, "bytes": found.bytes, "entries": found.entries,
            "entries_without_object": found.entries_without_object, "pins": found.pins,
            "damages": found.damages.iter().map(Damage::to_string).collect::<Vec<_>>(),
        }))?
    } else {
        let damages: String =
            found.damages.iter().map(|damage| format!("damaged: {damage}\n")).collect();
        let (objects, bytes, entries) = (found.objects, ByteSize(found.bytes), found.entries);
        format!(
            "{damages}checked objects: {objects} ({bytes}), memo entries: {entries}, pins: {}\n",
            found.pins
        )
    };
    report::print(text.as_bytes())?;
    let file = store.file().to_owned();
    if found.damages.iter().any(|damage| matches!(damage, Damage::File { .. })) {
        return Err(CliError::DamagedFile { file });
    }
    match found.damages.len() {
        0 => Ok(()),
        _ if options.repair => Ok(store.drop_damaged(&found)?),
        count => Err(CliError::Damaged { file, count }),
    }
}

pub(crate) fn export(options: &Export) -> Result<(), CliError> {
    let store = options.store.open_to_read()?;
    let pins = store.pins()?;
    let wanted = ids(&options.requests)?;
    if let Some(request) =
        wanted.iter().find(|request| !pins.iter().any(|pin| pin.request == **request))
    {
        return Err(CliError::NotPinned { request: request.to_string() });
    }
    let repository = Repository::named(&options.repo)?;
    // If refs are not stored as files, only git itself can write refs that it sees.
    let git = (!repository.has_refs_in_files()).then(|| repository.git());
    let exported: Vec<_> = pins
        .into_iter()
        .filter(|pin| match wanted.is_empty() {
            true => pin.is_of_request(),
            false => wanted.contains(&pin.request),
        })
        .collect();
    let mut steps = Steps::new();
    let refs =
        write_refs(repository.gix(), git, &*store, &exported, |progress| steps.show(progress))
            .map_err(|source| CliError::Export { path: options.repo.clone(), source })?;
    drop(steps);
    report::print(refs.iter().map(|name| format!("{name}\n")).collect::<String>().as_bytes())
}

/// Parses object ids.
fn ids(texts: &[String]) -> Result<Vec<ObjectId>, CliError> {
    let parse = |id: &String| {
        ObjectId::from_hex(id).map_err(|source| CliError::InvalidId { id: id.clone(), source })
    };
    texts.iter().map(parse).collect()
}
