#![no_std]
//! A fold visitor that lists the largest files: a table with their paths and sizes.
//!
//! The argument `count` is the number of files to list, 10 without it.

extern crate alloc;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Reverse;

use manifold_guest::{Error, Job, Kind, Result, get, size, tree};
use manifold_visitor::shown;

const HEAD: &str = "path\tbytes\n";

fn largest_files(job: &Job) -> Result<String> {
    let input = job.required("in")?;
    let mut files = Vec::new();
    if input.kind() == Kind::Blob {
        files.push((size(&input.id)?, String::new()));
    } else {
        for child in tree(&job.required("children")?.id)? {
            let name = shown(&child.name);
            let table = String::from_utf8(get(&child.id)?).unwrap_or_default();
            for row in table.strip_prefix(HEAD).ok_or_else(|| not_a_table(&name))?.lines() {
                let (path, bytes) = row.split_once('\t').ok_or_else(|| not_a_table(&name))?;
                let bytes = bytes.parse().map_err(|_| not_a_table(&name))?;
                let path = if path.is_empty() { name.clone() } else { [&name, "/", path].concat() };
                files.push((bytes, path));
            }
        }
    }
    files.sort_by(|(a, one), (b, other)| (Reverse(a), one).cmp(&(Reverse(b), other)));
    files.truncate(count(job)?);
    let rows = files.iter().map(|(bytes, path)| [path, "\t", &bytes.to_string(), "\n"].concat());
    Ok([HEAD].into_iter().map(String::from).chain(rows).collect())
}

/// Returns the argument `count`.
fn count(job: &Job) -> Result<usize> {
    let Some(count) = job.optional("count") else { return Ok(10) };
    let text = get(&count.id)?;
    let number = core::str::from_utf8(&text).ok().and_then(|text| text.trim_ascii().parse().ok());
    let number = number.filter(|number| (1..=100_000).contains(number));
    number.ok_or_else(|| Error::new("`count` must be a number from 1 to 100000"))
}

fn not_a_table(name: &str) -> Error {
    Error::new(["the result for `", name, "` is not a table of files"].concat())
}

manifold_guest::main!(largest_files);
