//! `manifold diff`: how two objects differ.

use std::fmt::Write;

use manifold_dispatcher::Dispatcher;
use manifold_runtime_api::bstr::{BString, ByteSlice};
use manifold_runtime_api::{EntryMode, ObjectKind, TreeEntry};
use similar::TextDiff;

use crate::args::Diff;
use crate::error::CliError;
use crate::objects::{self, Named};
use crate::report;
use crate::shown::{quoted, quoted_text};

/// The largest blob in bytes whose lines are compared.
const LARGEST_TEXT: u64 = 16 << 20;

/// Prints a line for each path that differs, in the order of paths, and for texts the lines that
/// differ.
pub(crate) fn diff(options: &Diff) -> Result<(), CliError> {
    let session = options.reading.session()?;
    let dispatcher = &session.dispatcher;
    let one = objects::find(dispatcher, &options.one)?;
    let other = objects::find(dispatcher, &options.other)?;
    for change in changes(dispatcher, one, other)? {
        let mut text = change.line();
        if !options.names {
            text += &change.lines(dispatcher)?;
        }
        report::print(text.as_bytes())?;
    }
    Ok(())
}

/// Returns a line for each path that differs, and for texts the lines that differ.
pub(crate) fn text(dispatcher: &Dispatcher, one: Named, other: Named) -> Result<String, CliError> {
    let changes = changes(dispatcher, one, other)?.into_iter();
    changes.map(|change| Ok(format!("{}{}", change.line(), change.lines(dispatcher)?))).collect()
}

fn changes(dispatcher: &Dispatcher, one: Named, other: Named) -> Result<Vec<Change>, CliError> {
    let mut changes = Vec::new();
    compare(dispatcher, &BString::default(), Some(one), Some(other), &mut changes)?;
    Ok(changes)
}

/// Returns the paths at which two objects differ, each with what has happened: `added`, `removed` or
/// `changed`.
pub(crate) fn changed_paths(
    dispatcher: &Dispatcher,
    one: Named,
    other: Named,
) -> Result<Vec<(String, &'static str)>, CliError> {
    let line = |change: Change| {
        let what = match (change.one, change.other) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        (quoted_text(&change.path), what)
    };
    Ok(changes(dispatcher, one, other)?.into_iter().map(line).collect())
}

/// A path at which two objects differ.
struct Change {
    path: BString,
    one: Option<Named>,
    other: Option<Named>,
}

impl Change {
    /// Returns a letter and the path, as `git diff --name-status` prints them.
    fn line(&self) -> String {
        let letter = match (self.one, self.other) {
            (None, _) => 'A',
            (_, None) => 'D',
            (Some(one), Some(other)) if kind(one.mode) != kind(other.mode) => 'T',
            _ => 'M',
        };
        let path = quoted(&self.path);
        let path = if path.is_empty() { b".".to_vec() } else { path };
        format!("{letter}\t{}\n", path.to_str_lossy())
    }

    /// Returns the lines that differ, each with `-` or `+` before it, and three equal lines around.
    fn lines(&self, dispatcher: &Dispatcher) -> Result<String, CliError> {
        let (one, other) = (blob_text(dispatcher, self.one)?, blob_text(dispatcher, self.other)?);
        let (Some(one), Some(other)) = (one, other) else { return Ok(String::new()) };
        let mut lines = String::new();
        let diff = TextDiff::from_lines(&one, &other);
        // Writing to a String cannot fail.
        let _ = write!(lines, "{}", diff.unified_diff().context_radius(3));
        Ok(lines)
    }
}

/// The kinds of entries between which a change is one of type.
fn kind(mode: EntryMode) -> u8 {
    match mode {
        EntryMode::Blob | EntryMode::Executable => 0,
        EntryMode::Symlink => 1,
        EntryMode::Tree => 2,
        EntryMode::Commit => 3,
    }
}

/// Returns the text of a blob, or none if it is none or is too long. A missing one is empty.
fn blob_text(dispatcher: &Dispatcher, named: Option<Named>) -> Result<Option<String>, CliError> {
    let Some(named) = named else { return Ok(Some(String::new())) };
    let Some(object) = named.object().filter(|object| object.kind == ObjectKind::Blob) else {
        return Ok(None);
    };
    if dispatcher.blob_size(object.id)? > LARGEST_TEXT {
        return Ok(None);
    }
    let content = dispatcher.read(object.id)?.content;
    Ok(content.to_str().ok().filter(|text| !text.contains('\0')).map(str::to_owned))
}

/// Adds a change for each path at which the objects differ.
fn compare(
    dispatcher: &Dispatcher,
    path: &BString,
    one: Option<Named>,
    other: Option<Named>,
    changes: &mut Vec<Change>,
) -> Result<(), CliError> {
    // Without recursion, because trees can be deep.
    let mut open = vec![(path.clone(), one, other)];
    while let Some((path, one, other)) = open.pop() {
        let same = |(one, other): (Named, Named)| one.id == other.id && one.mode == other.mode;
        if one.zip(other).is_some_and(same) {
            continue;
        }
        let is_tree =
            |named: Option<Named>| named.is_some_and(|named| named.mode == EntryMode::Tree);
        if !is_tree(one) && !is_tree(other) {
            changes.push(Change { path, one, other });
            continue;
        }
        let entries = |named: Option<Named>| -> Result<Vec<TreeEntry>, CliError> {
            match named.filter(|named| named.mode == EntryMode::Tree) {
                Some(named) => Ok(dispatcher.read_tree(named.id)?.into_entries()),
                None => Ok(Vec::new()),
            }
        };
        // A file that became a directory is removed, and what is in the directory is added.
        let leaf = |named: Option<Named>| named.filter(|named| named.mode != EntryMode::Tree);
        if leaf(one).is_some() || leaf(other).is_some() {
            changes.push(Change { path: path.clone(), one: leaf(one), other: leaf(other) });
        }
        let mut pairs =
            std::collections::BTreeMap::<BString, (Option<Named>, Option<Named>)>::new();
        for entry in entries(one)? {
            let named = Named { id: entry.id, mode: entry.mode };
            pairs.entry(entry.name).or_default().0 = Some(named);
        }
        for entry in entries(other)? {
            let named = Named { id: entry.id, mode: entry.mode };
            pairs.entry(entry.name).or_default().1 = Some(named);
        }
        for (name, (one, other)) in pairs.into_iter().rev() {
            let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let path = [&path[..], separator, &name[..]].concat();
            open.push((path.into(), one, other));
        }
    }
    Ok(())
}
