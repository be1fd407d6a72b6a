//! What the outcome of a guest holds: its values, and its lines.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use manifold_dispatcher::Dispatcher;
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{EntryMode, ObjectId, ObjectKind, ObjectRef};
use serde_json::{Map, Value as Json};

use crate::shown::{quoted, shown_in_line};

type Result<T, E = manifold_runtime_api::Error> = std::result::Result<T, E>;

/// The largest blob in bytes that is a value in a tree.
const LARGEST_VALUE: u64 = 4 << 10;
/// The largest blob in bytes that is read as a table.
const LARGEST_TABLE: u64 = 16 << 20;
/// The largest blob in bytes whose lines are shown.
const LARGEST_TEXT: u64 = 1 << 30;

/// The value of an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    One(String),
    /// By name.
    Several(BTreeMap<String, String>),
}

/// Reads the value of an outcome.
///
/// A tree has a value for each of its blobs that is a number, or if there is none, for each that is
/// one line of text. A blob that is a table has one for each cell: its first line consists of the
/// names of the columns, separated by tabs, and each other line of a name and a number for each
/// further column. A name of a column consists of letters, digits, spaces, `-` and `_`, and begins with
/// a letter.
pub(crate) fn value(dispatcher: &Dispatcher, outcome: ObjectRef) -> Result<Value> {
    match outcome.kind {
        ObjectKind::Blob => Ok(match text(dispatcher, outcome.id, LARGEST_TABLE)? {
            Ok(text) => table(&text).map_or(Value::One(text), Value::Several),
            Err(size) => Value::One(format!("{size} bytes")),
        }),
        ObjectKind::Tree => {
            let tree = dispatcher.read_tree(outcome.id)?;
            let mut values = BTreeMap::new();
            for entry in tree.entries() {
                if entry.mode.object_kind() == Some(ObjectKind::Blob)
                    && let Ok(text) = text(dispatcher, entry.id, LARGEST_VALUE)?
                    && !text.contains('\n')
                {
                    values.insert(entry.name.to_str_lossy().into_owned(), text);
                }
            }
            // Beside numbers, texts are not values, however many lines they have.
            let is_number = |text: &String| text.parse::<f64>().is_ok();
            if values.values().any(is_number) {
                values.retain(|_, text| is_number(text));
            }
            Ok(Value::Several(values))
        }
    }
}

/// Reads a text, without white space at its end. Returns its size if it is larger than `largest`.
fn text(dispatcher: &Dispatcher, id: ObjectId, largest: u64) -> Result<Result<String, u64>> {
    let size = dispatcher.blob_size(id)?;
    if size > largest {
        return Ok(Err(size));
    }
    let content = dispatcher.read(id)?.content;
    Ok(Ok(content.to_str_lossy().trim_end().to_owned()))
}

/// Returns values as JSON, those that are numbers as numbers.
pub(crate) fn json(values: &BTreeMap<String, String>) -> Map<String, Json> {
    values.iter().map(|(name, text)| (name.clone(), number_or_text(text))).collect()
}

/// Returns a number if the text is one that JSON can express.
pub(crate) fn number_or_text(text: &str) -> Json {
    match serde_json::from_str(text) {
        Ok(Json::Number(number)) => Json::Number(number),
        _ => Json::String(text.to_owned()),
    }
}

/// Returns whether this can be the name of a column: a letter, and then letters, digits, spaces, `-` and
/// `_`. Lines of text with tabs are rarely made of such names.
fn is_column_name(name: &str) -> bool {
    name.starts_with(char::is_alphabetic)
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
}

/// Returns the numbers in a table. Returns `None` if the text is not a table.
fn table(text: &str) -> Option<BTreeMap<String, String>> {
    let mut lines = text.lines();
    let head = lines.next()?;
    let columns: Vec<_> = head.split('\t').skip(1).collect();
    if columns.is_empty() || !head.split('\t').all(is_column_name) {
        return None;
    }
    let mut numbers = BTreeMap::new();
    for line in lines {
        let mut cells = line.split('\t');
        let name = cells.next()?;
        let cells: Vec<_> = cells.collect();
        if cells.len() != columns.len() {
            return None;
        }
        for (column, cell) in columns.iter().zip(cells) {
            cell.parse::<f64>().ok()?;
            numbers.insert(format!("{name} {column}"), cell.to_owned());
        }
    }
    Some(numbers)
}

/// Passes each line of an outcome to `each`, until that breaks. A line in a tree begins with the path
/// of its blob and a colon.
pub(crate) fn lines(
    dispatcher: &Dispatcher,
    outcome: ObjectRef,
    each: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    if outcome.kind == ObjectKind::Blob {
        return lines_of_blob(dispatcher, outcome.id, "", each);
    }
    // A stack of the entries to visit, so that deep trees need no deep recursion.
    let mut rest = vec![(String::new(), EntryMode::Tree, outcome.id)];
    while let Some((path, mode, id)) = rest.pop() {
        let flow = match mode {
            EntryMode::Tree => {
                let tree = dispatcher.read_tree(id)?;
                let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
                rest.extend(tree.entries().iter().rev().map(|entry| {
                    let name = quoted(&entry.name).to_str_lossy().into_owned();
                    (format!("{prefix}{name}"), entry.mode, entry.id)
                }));
                ControlFlow::Continue(())
            }
            EntryMode::Commit => each(&format!("{path}:the submodule {id}")),
            _ => lines_of_blob(dispatcher, id, &format!("{path}:"), each)?,
        };
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn lines_of_blob(
    dispatcher: &Dispatcher,
    id: ObjectId,
    prefix: &str,
    each: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let size = dispatcher.blob_size(id)?;
    let content = if size > LARGEST_TEXT { None } else { Some(dispatcher.read(id)?.content) };
    let Some(text) = content.as_ref().and_then(|content| content.to_str().ok()) else {
        return Ok(each(&format!("{prefix}{size} bytes that are no text")));
    };
    for line in text.lines() {
        let flow = each(&format!("{prefix}{}", shown_in_line(line)));
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_value_for_each_cell() {
        let numbers = table("language\tcode\tblanks\nC\t1\t2\nRust\t30\t4").unwrap();
        let numbers: Vec<_> =
            numbers.iter().map(|(name, number)| format!("{name}={number}")).collect();
        assert_eq!(numbers, ["C blanks=2", "C code=1", "Rust blanks=4", "Rust code=30"]);
        assert_eq!(table("language\tcode"), Some(BTreeMap::new()), "no rows");
        let lines_of_grep = ["7:\tunsafe.Pointer(p)", "1:\tname\n2:\t5"];
        let others = ["", "12", "1\t2\nC\t3", "a\tb\nC", "a\tb\nC\tx", "a\tb\nC\t1\t2"];
        for text in others.into_iter().chain(lines_of_grep) {
            assert_eq!(table(text), None, "{text:?}");
        }
    }
}
