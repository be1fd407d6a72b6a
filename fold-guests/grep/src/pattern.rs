//! The patterns: regular expressions of what all common engines agree on.

use manifold_guest::{Error, Result};
use regex::{Regex, RegexBuilder};

/// Parses a pattern.
///
/// A pattern is made of characters, `.`, `[…]`, `(…)`, `(?:…)`, `|`, `*`, `+`, `?`, `{m,n}`, `^`,
/// `$`, and `\` before a punctuation character or one of `d D w W s S b B t`, which only stand for
/// ASCII.
///
/// A line break at its end is not a part of it, because `echo` writes one.
///
/// # Errors
/// Returns an error if the pattern is not UTF-8, or contains anything else.
pub(crate) fn parse(pattern: &[u8]) -> Result<Regex> {
    let pattern =
        std::str::from_utf8(pattern).map_err(|_| Error::new("`pattern` is not valid UTF-8"))?;
    let pattern = match pattern.strip_suffix('\n') {
        Some(line) => line.strip_suffix('\r').unwrap_or(line),
        None => pattern,
    };
    if pattern.contains('\n') {
        return Err(Error::new("`pattern` has several lines, and is compared with each line"));
    }
    let translated = translate(pattern)?;
    let mut regex = RegexBuilder::new(&translated);
    let regex = regex.dot_matches_new_line(true).build();
    regex.map_err(|_| Error::new(format!("`pattern` is not a regular expression: {pattern}")))
}

/// Translates a pattern into the syntax of the engine.
fn translate(pattern: &str) -> Result<String> {
    let unsupported = |what: &str| Err(Error::new(format!("`pattern` contains {what}: {pattern}")));
    let mut out = String::new();
    let mut characters = pattern.chars().peekable();
    // Whether the last character was the start of `[…]`, or is inside of it.
    let (mut starts_class, mut in_class) = (false, false);
    // Whether the last character ended a repetition, one that prefers to be short, or a position such
    // as `^`.
    let (mut repeats, mut is_lazy, mut is_position) = (false, false, false);
    // Whether the last characters in brackets were an escape for several characters, such as `\d`.
    let mut is_set = false;
    while let Some(character) = characters.next() {
        let was_set = std::mem::take(&mut is_set);
        if was_set && in_class && character == '-' && characters.peek() != Some(&']') {
            return unsupported("a range of a set; write `\\-`");
        }
        let was_start = std::mem::take(&mut starts_class);
        let (repeated, was_lazy) = (std::mem::take(&mut repeats), std::mem::take(&mut is_lazy));
        if std::mem::take(&mut is_position) && "*+?{".contains(character) {
            return unsupported("a repetition of a position");
        }
        match character {
            '\\' => {
                let escaped = characters.next().unwrap_or_default();
                match (set(escaped.to_ascii_lowercase()), escaped) {
                    (Some(set), _) if !in_class => {
                        let negated = if escaped.is_ascii_uppercase() { "^" } else { "" };
                        out.extend(["[", negated, set, "]"]);
                    }
                    (Some(set), 'd' | 'w' | 's') => {
                        if out.ends_with('-') && !out.ends_with("[-") && !out.ends_with("\\-") {
                            return unsupported("a range of a set; write `\\-`");
                        }
                        is_set = true;
                        out += set;
                    }
                    (None, 'b' | 'B') if !in_class => {
                        is_position = true;
                        out.extend(["(?-u:\\", escaped.encode_utf8(&mut [0; 4]), ")"]);
                    }
                    (None, 't') => out += "\\t",
                    // The engine gives them another meaning.
                    (None, '<' | '>') => out.push(escaped),
                    (None, _) if escaped.is_ascii_punctuation() => out.extend(['\\', escaped]),
                    _ => return unsupported("an unknown escape"),
                }
            }
            '[' if in_class => return unsupported("`[` in brackets; write `\\[`"),
            '[' => {
                (in_class, starts_class) = (true, true);
                out.push('[');
                if characters.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
            }
            ']' if was_start => return unsupported("empty brackets; write `\\]`"),
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => out.extend(['\\', character]),
            '-' if in_class && out.ends_with('-') => return unsupported("`--`; write `\\-`"),
            _ if in_class => out.push(character),
            '(' if characters.next_if_eq(&'?').is_some() => {
                if characters.next_if_eq(&':').is_none() {
                    return unsupported("`(?` without `:`");
                }
                out += "(?:";
            }
            '*' | '+' | '?' => {
                if was_lazy || (repeated && character != '?') {
                    return unsupported("a repetition of a repetition");
                }
                (repeats, is_lazy) = (true, repeated);
                out.push(character);
            }
            ']' | '}' => return unsupported("an unpaired bracket; write `\\` before it"),
            '{' => {
                let bounds: String =
                    std::iter::from_fn(|| characters.next_if(|c| *c != '}')).collect();
                let is_bound = |bound: &str| {
                    (1..=4).contains(&bound.len()) && bound.bytes().all(|b| b.is_ascii_digit())
                };
                let (low, high) = bounds.split_once(',').unwrap_or((&bounds, ""));
                let is_closed = characters.next().is_some();
                if repeated || !is_closed || !is_bound(low) || !(high.is_empty() || is_bound(high))
                {
                    return unsupported("`{` that starts no repetition; write `\\{`");
                }
                repeats = true;
                out.extend(["{", &bounds, "}"]);
            }
            '^' | '$' => {
                is_position = true;
                out.push(character);
            }
            _ => out.push(character),
        }
    }
    Ok(out)
}

/// Returns what `\d`, `\w` or `\s` stands for, for use in brackets.
fn set(letter: char) -> Option<&'static str> {
    match letter {
        'd' => Some("0-9"),
        'w' => Some("0-9A-Za-z_"),
        's' => Some(" \\t\\n\\v\\f\\r"),
        _ => None,
    }
}
