#![no_std]
//! A fold visitor that counts lines by language: a table with the files, and the lines of code, of
//! comments and without content.
//!
//! A file's language follows from its name, which only its directory knows. So for a directory, this
//! guest runs itself for each file in it, with the argument `language`, and adds up the results and
//! those for the directories in it. For a file without a language, it returns an empty table.

extern crate alloc;

mod count;
mod languages;

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use manifold_guest::{
    Entry, Error, Job, Kind, Mode, Result, get, put_blob, put_tree, run_many, tree,
};
use manifold_visitor::shown;

use crate::languages::Language;

const HEAD: &str = "language\tfiles\tcode\tcomments\tblanks\n";
const COLUMNS: usize = 4;

/// The numbers of each language.
type Table = BTreeMap<String, [u64; COLUMNS]>;

fn lines_by_language(job: &Job) -> Result<String> {
    let input = job.required("in")?;
    let mut table = Table::new();
    if input.kind() == Kind::Tree {
        if job.optional("language").is_some() {
            return Err(Error::new("`language` is an argument for a single file"));
        }
        for result in files(job, input)? {
            add(&mut table, "a file", result?)?;
        }
        for child in tree(&job.required("children")?.id)? {
            add(&mut table, &shown(&child.name), child)?;
        }
    } else if let Some(argument) = job.optional("language") {
        let name = String::from_utf8(get(&argument.id)?).unwrap_or_default();
        let name = name.trim_ascii();
        let language = Language::named(name)
            .ok_or_else(|| Error::new(["`", name, "` is not a language that is known"].concat()))?;
        if let Some([code, comments, blanks]) = count::lines(&get(&input.id)?, language) {
            table.insert(String::from(name), [1, code, comments, blanks]);
        }
    }
    let rows = table.iter().map(|(language, numbers)| {
        let numbers = numbers.iter().flat_map(|number| ["\t".to_string(), number.to_string()]);
        [language.clone()].into_iter().chain(numbers).chain(["\n".to_string()]).collect()
    });
    Ok([HEAD].into_iter().map(String::from).chain(rows).collect())
}

/// Counts the lines of each file in a directory whose language is known.
fn files(job: &Job, directory: &Entry) -> Result<Vec<Result<Entry>>> {
    let mut names = Vec::new();
    let mut calls = Vec::new();
    for entry in tree(&directory.id)? {
        let is_file = matches!(entry.mode, Mode::Blob | Mode::Executable);
        if let Some(language) = Language::of(&entry.name).filter(|_| is_file) {
            let argument = put_blob(language.name.as_bytes())?.named("language");
            calls.push(put_tree(&[entry.object().named("in"), argument])?.id);
            names.push(entry.name);
        }
    }
    let results = run_many(calls.iter().map(|args| (&*job.image, args)))?;
    let named = results.into_iter().zip(names);
    Ok(named.map(|(result, name)| Ok(result?.named(name))).collect())
}

/// Adds the numbers of a result.
fn add(table: &mut Table, name: &str, result: Entry) -> Result<()> {
    let invalid = || Error::new(["the result for `", name, "` is not a table of lines"].concat());
    let text = String::from_utf8(get(&result.id)?).map_err(|_| invalid())?;
    for row in text.strip_prefix(HEAD).ok_or_else(invalid)?.lines() {
        let (language, numbers) = row.split_once('\t').ok_or_else(invalid)?;
        let mut numbers = numbers.split('\t');
        for total in table.entry(String::from(language)).or_default() {
            let number = numbers.next().and_then(|number| number.parse().ok());
            *total = number.and_then(|number| total.checked_add(number)).ok_or_else(invalid)?;
        }
    }
    Ok(())
}

manifold_guest::main!(lines_by_language);
