#![no_std]
//! A fold visitor that lists what comments leave to do: the lines with one of the words `TODO`,
//! `FIXME`, `XXX` and `HACK` after something that starts a comment in a common language.

use manifold_guest::{Job, ObjectRef, Result};
use manifold_visitor::findings;

const WORDS: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];
/// What starts a comment, besides a star at the start of a line: those of block comments often have
/// one.
const MARKS: [&str; 7] = ["//", "#", "/*", "<!--", "--", ";", "%"];

fn todo_comments(job: &Job) -> Result<ObjectRef> {
    findings(job, |line| {
        let comment = comment(line)?;
        let places = WORDS.iter().filter_map(|word| {
            let mut places = line.match_indices(word).map(|(at, _)| at);
            places.find(|at| *at >= comment && is_separate(line, *at, word))
        });
        places.min().map(|at| &line[at..])
    })
}

/// Returns where the first comment in a line begins, after the mark.
fn comment(line: &str) -> Option<usize> {
    let text = line.trim_ascii_start();
    let after_star = text.strip_prefix('*').map(|rest| line.len() - rest.len());
    let marks = MARKS.iter().filter_map(|mark| Some(line.find(mark)? + mark.len()));
    marks.chain(after_star).min()
}

/// Returns whether `word`, which is at `at`, is a word of its own.
fn is_separate(line: &str, at: usize, word: &str) -> bool {
    let is_inside = |byte: Option<&u8>| byte.is_some_and(|byte| is_word(*byte));
    let bytes = line.as_bytes();
    !is_inside(bytes[..at].last()) && !is_inside(bytes.get(at + word.len()))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

manifold_guest::main!(todo_comments);
