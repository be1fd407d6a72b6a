#![no_std]
//! A fold visitor that lists what comments leave to do: the lines with one of the words `TODO`,
//! `FIXME`, `XXX` and `HACK` after something that starts a comment in a common language.

extern crate alloc;

use alloc::vec::Vec;

use manifold_guest::{Entry, Job, Result};
use manifold_visitor::findings;

const WORDS: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];
/// What starts a comment, besides a star at the start of a line: those of block comments often have
/// one.
const MARKS: [&str; 7] = ["//", "#", "/*", "<!--", "--", ";", "%"];

fn todo_comments(job: &Job) -> Result<Vec<Entry>> {
    findings(job, |line| {
        let at = WORDS.iter().filter_map(|word| position(line, word)).min()?;
        let (before, rest) = line.split_at(at);
        let is_comment = MARKS.iter().any(|mark| before.contains(mark))
            || before.trim_ascii_start().starts_with('*');
        is_comment.then_some(rest)
    })
}

/// Returns where `word` is first a word of its own.
fn position(line: &str, word: &str) -> Option<usize> {
    let is_inside = |byte: Option<&u8>| byte.is_some_and(|byte| is_word(*byte));
    let bytes = line.as_bytes();
    let mut found = line.match_indices(word).map(|(at, _)| at);
    found.find(|at| !is_inside(bytes[..*at].last()) && !is_inside(bytes.get(at + word.len())))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

manifold_guest::main!(todo_comments);
