//! Counts the lines of a file.

use manifold_visitor::is_binary;

use crate::languages::{Language, Syntax, Text};

/// What a line begins inside of.
#[derive(Clone, Copy)]
enum Inside {
    Code,
    /// A comment with this start and end, and the number of those that contain it.
    Comment(&'static str, &'static str, u32),
    /// A string with this end.
    String(&'static str, Text),
}

/// Returns the number of lines of code, of comments, and without content. Returns `None` for a
/// binary file.
///
/// A line with code and a comment counts as code.
pub(crate) fn lines(content: &[u8], language: &Language) -> Option<[u64; 3]> {
    if is_binary(content) {
        return None;
    }
    if content.is_empty() {
        return Some([0; 3]);
    }
    let [mut code, mut comments, mut blanks] = [0; 3];
    let starts = starts(language.syntax);
    let mut inside = Inside::Code;
    for line in content.strip_suffix(b"\n").unwrap_or(content).split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() {
            // In a string, it is part of its value.
            *(if matches!(inside, Inside::String(..)) { &mut code } else { &mut blanks }) += 1;
        } else if has_code(line, &mut inside, language.syntax, &starts) {
            code += 1;
        } else {
            comments += 1;
        }
    }
    Some([code, comments, blanks])
}

/// Returns for each byte whether a comment or a string can start with it, or other code that is
/// looked at as a whole.
fn starts(syntax: &Syntax) -> [bool; 256] {
    let blocks = syntax.block.iter().map(|(start, _)| start);
    let strings = syntax.strings.iter().map(|(start, ..)| start);
    let all = syntax.line.iter().chain(blocks).chain(strings).chain(syntax.code);
    let mut starts = [false; 256];
    for start in all {
        if let Some(byte) = start.as_bytes().first() {
            starts[usize::from(*byte)] = true;
        }
    }
    starts
}

/// Returns whether there is code in a line, and sets what the next line begins inside of.
fn has_code(
    mut rest: &[u8],
    inside: &mut Inside,
    syntax: &'static Syntax,
    starts: &[bool; 256],
) -> bool {
    let starts_with = |rest: &[u8], start: &str| rest.starts_with(start.as_bytes());
    let mut code = false;
    // An empty mark makes every line a comment.
    if syntax.line.contains(&"") {
        return false;
    }
    while let Some(first) = rest.first() {
        let length = match *inside {
            Inside::Comment(start, end, depth) => {
                if starts_with(rest, end) {
                    *inside = match depth {
                        0 => Inside::Code,
                        _ => Inside::Comment(start, end, depth - 1),
                    };
                    end.len()
                } else if syntax.nested && starts_with(rest, start) {
                    *inside = Inside::Comment(start, end, depth + 1);
                    start.len()
                } else {
                    1
                }
            }
            Inside::String(end, text) => {
                code = true;
                if starts_with(rest, end) {
                    *inside = Inside::Code;
                    end.len()
                } else if *first == b'\\' && text != Text::Raw {
                    2
                } else {
                    1
                }
            }
            Inside::Code if !starts[usize::from(*first)] => {
                code |= !first.is_ascii_whitespace();
                1
            }
            Inside::Code => {
                if let Some((start, end)) =
                    syntax.block.iter().find(|(start, _)| starts_with(rest, start))
                {
                    *inside = Inside::Comment(start, end, 0);
                    start.len()
                } else if syntax.line.iter().any(|start| starts_with(rest, start)) {
                    return code;
                } else if let Some(plain) =
                    syntax.code.iter().find(|plain| starts_with(rest, plain))
                {
                    code = true;
                    plain.len()
                } else if let Some((start, end, text)) =
                    syntax.strings.iter().find(|(start, ..)| starts_with(rest, start))
                {
                    *inside = Inside::String(end, *text);
                    start.len()
                } else {
                    code |= !first.is_ascii_whitespace();
                    1
                }
            }
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    if let Inside::String(_, Text::Line) = inside {
        *inside = Inside::Code;
        code = true;
    }
    code
}
