//! Text that others made, for people to look at: what a terminal would obey is shown instead.

use std::fmt::Write;

/// `text` without control characters and without those that turn the direction of writing: each is shown as Rust writes it. Line
/// ends and tabs stay.
pub(crate) fn shown(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => clean.push(character),
            _ if is_obeyed(character) => clean.extend(character.escape_default()),
            _ => clean.push(character),
        }
    }
    clean
}

/// The same in one line.
pub(crate) fn shown_in_line(text: &str) -> String {
    shown(text).replace('\n', "\\n")
}

/// Whether a terminal does something at this character but to show it.
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON text with such characters as escapes. They only stand in strings.
pub(crate) fn shown_json(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if is_obeyed(character) {
            // Writing to a String cannot fail.
            let _ = write!(clean, "\\u{:04x}", u32::from(character));
        } else {
            clean.push(character);
        }
    }
    clean
}

/// A name in a tree as git shows it: in quotes and with escapes if it has anything but printable ASCII, or a quote or backslash
/// (`core.quotePath` in `git-config`).
pub(crate) fn quoted(name: &[u8]) -> Vec<u8> {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if name.iter().all(is_plain) {
        return name.to_vec();
    }
    let mut quoted = vec![b'"'];
    for byte in name {
        match byte {
            b'"' | b'\\' => quoted.extend([b'\\', *byte]),
            0x07 => quoted.extend(b"\\a"),
            0x08 => quoted.extend(b"\\b"),
            b'\t' => quoted.extend(b"\\t"),
            b'\n' => quoted.extend(b"\\n"),
            0x0b => quoted.extend(b"\\v"),
            0x0c => quoted.extend(b"\\f"),
            b'\r' => quoted.extend(b"\\r"),
            byte if is_plain(byte) => quoted.push(*byte),
            byte => quoted.extend(format!("\\{byte:03o}").bytes()),
        }
    }
    quoted.push(b'"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        assert_eq!(
            shown("a\x1b[2J\x07\r\n\tb\u{9b}\u{202e}é"),
            "a\\u{1b}[2J\\u{7}\\r\n\tb\\u{9b}\\u{202e}é"
        );
        assert_eq!(shown_in_line("a\nerror: b"), "a\\nerror: b");
        assert_eq!(shown_json("\"\u{7f}\u{9b}\""), "\"\\u007f\\u009b\"");
    }

    #[test]
    fn names_are_quoted_as_git_quotes_them() {
        for (name, expected) in [
            (&b"plain name"[..], &b"plain name"[..]),
            (b"tab\t", b"\"tab\\t\""),
            (b"\x1b[31m", b"\"\\033[31m\""),
            ("é".as_bytes(), b"\"\\303\\251\""),
            (b"quo\"te", b"\"quo\\\"te\""),
        ] {
            assert_eq!(quoted(name), expected);
        }
    }
}
