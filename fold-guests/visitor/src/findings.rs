//! Visitors that find lines.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use manifold_guest::{Entry, Error, Job, Kind, ObjectRef, Result, get, put_blob, put_tree, tree};

use crate::files::is_binary;
use crate::numbers::{add, number, number_entry};

/// Returns the lines in which `find` finds something, of a file or of all files below a directory.
///
/// For a file, it is a text with `NUMBER:TEXT` for each line, where `TEXT` is what `find` returned.
/// For a directory, it is a tree of `count`, a number as [`number`] reads it, and unless that is 0
/// `lines`: a tree with those of each child that has some.
///
/// A line ends before a line feed, or before a carriage return and a line feed. What is not UTF-8 is
/// replaced by U+FFFD. Nothing is found in a binary file.
///
/// # Errors
/// Returns an error if an argument is missing or cannot be read, or if a child's result is neither
/// such a text nor such a tree.
pub fn findings(job: &Job, find: impl Fn(&str) -> Option<&str>) -> Result<ObjectRef> {
    let input = job.required("in")?;
    if input.kind() == Kind::Blob {
        return put_blob(lines(&get(&input.id)?, find).as_bytes());
    }
    let nothing = [put_blob(b"")?.id, put_tree(&[number_entry("count", 0)?])?.id];
    let (mut count, mut lines) = (0, Vec::new());
    for child in tree(&job.required("children")?.id)? {
        if nothing.contains(&child.id) {
            continue;
        }
        if child.kind() == Kind::Blob {
            let found = get(&child.id)?.iter().filter(|byte| **byte == b'\n').count();
            count = add(count, found as u64)?;
            lines.push(child);
            continue;
        }
        for entry in tree(&child.id)? {
            match &*entry.name {
                b"count" => count = add(count, number(&entry)?)?,
                b"lines" => lines.push(Entry { name: child.name.clone(), ..entry }),
                _ => {
                    let name = String::from_utf8_lossy(&child.name);
                    return Err(Error::new(
                        ["the result for `", &name, "` is not one of this visitor"].concat(),
                    ));
                }
            }
        }
    }
    let mut found = Vec::from([number_entry("count", count)?]);
    if count > 0 {
        found.push(put_tree(&lines)?.named("lines"));
    }
    put_tree(&found)
}

/// Returns the lines in which something is found.
fn lines(content: &[u8], find: impl Fn(&str) -> Option<&str>) -> String {
    let mut lines = String::new();
    if is_binary(content) {
        return lines;
    }
    for (line, number) in String::from_utf8_lossy(content).lines().zip(1u64..) {
        if let Some(text) = find(line) {
            lines.push_str(&number.to_string());
            lines.push(':');
            lines.push_str(text);
            lines.push('\n');
        }
    }
    lines
}
