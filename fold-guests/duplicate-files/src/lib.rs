#![no_std]
//! A fold visitor that finds files with the same content.
//!
//! For a directory, it returns a tree of `files`, the number of files that another one could
//! replace, `bytes`, their size, and if there are some `copies`: for each content a line with its
//! size and the paths of its files, separated by tabs. What could save most comes first. Empty files
//! and symbolic links are left out. For a file, it returns an empty text.
//!
//! Copies can be in different directories, so this visitor reads all trees below its directory
//! instead of the results for its children. It reads no file.

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Reverse;

use manifold_guest::{
    Entry, Id, Job, Kind, Mode, ObjectRef, Result, put_blob, put_tree, size, tree,
};
use manifold_visitor::shown;

fn duplicate_files(job: &Job) -> Result<ObjectRef> {
    let input = job.required("in")?;
    if input.kind() == Kind::Blob {
        return put_blob(b"");
    }
    let mut paths: BTreeMap<Id, Vec<String>> = BTreeMap::new();
    let mut directories = Vec::from([(input.id, String::new())]);
    while let Some((directory, path)) = directories.pop() {
        for entry in tree(&directory)? {
            let path = [&path, &*shown(&entry.name)].concat();
            match entry.mode {
                Mode::Tree => directories.push((entry.id, path + "/")),
                Mode::Blob | Mode::Executable => paths.entry(entry.id).or_default().push(path),
                Mode::Symlink | Mode::Commit => {}
            }
        }
    }
    let mut copies = Vec::new();
    for (id, mut paths) in paths.into_iter().filter(|(_, paths)| paths.len() > 1) {
        let bytes = size(&id)?;
        if bytes > 0 {
            paths.sort();
            copies.push((bytes.saturating_mul(paths.len() as u64 - 1), bytes, paths));
        }
    }
    copies.sort_by(|(a, _, one), (b, _, other)| (Reverse(a), one).cmp(&(Reverse(b), other)));

    let files = copies.iter().map(|(_, _, paths)| paths.len() as u64 - 1).sum::<u64>();
    let bytes = copies.iter().fold(0u64, |total, (bytes, ..)| total.saturating_add(*bytes));
    let mut result =
        Vec::from([text("bytes", bytes.to_string())?, text("files", files.to_string())?]);
    if files > 0 {
        let lines =
            copies.iter().map(|(_, bytes, paths)| bytes.to_string() + "\t" + &paths.join("\t"));
        let lines: Vec<_> = lines.collect();
        result.push(text("copies", lines.join("\n"))?);
    }
    put_tree(&result)
}

/// Stores a text, and returns it as an entry.
fn text(name: &str, text: String) -> Result<Entry> {
    Ok(put_blob((text + "\n").as_bytes())?.named(name))
}

manifold_guest::main!(duplicate_files);
