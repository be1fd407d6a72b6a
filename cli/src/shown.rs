//! Text for terminals: control characters of untrusted text are shown instead of obeyed.

use std::fmt::Write;
use std::os::fd::AsFd;

/// Escapes control characters and bidirectional formatting characters in Rust's notation. Line
/// feeds and tabs are kept.
pub(crate) fn shown(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => clean.push(character),
            _ if is_interpreted(character) => clean.extend(character.escape_default()),
            _ => clean.push(character),
        }
    }
    clean
}

/// Like [`shown`], but also escapes line feeds.
pub(crate) fn shown_in_line(text: &str) -> String {
    shown(text).replace('\n', "\\n")
}

/// Returns how many columns a terminal has. `None` if `stream` is no terminal.
pub(crate) fn columns(stream: impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Returns whether a terminal interprets the character instead of showing it.
fn is_interpreted(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes the same characters in JSON text, as `\uXXXX`. They occur only inside of strings there.
pub(crate) fn shown_json(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if is_interpreted(character) {
            // Writing to a String cannot fail.
            let _ = write!(clean, "\\u{:04x}", u32::from(character));
        } else {
            clean.push(character);
        }
    }
    clean
}

/// Like [`quoted`], as text.
pub(crate) fn quoted_text(name: &[u8]) -> String {
    String::from_utf8_lossy(&quoted(name)).into_owned()
}

/// Quotes the name of a tree entry as git does: a name that contains anything but printable ASCII,
/// or a quote or backslash, is quoted and escaped (`core.quotePath` in `git-config`).
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
    fn control_characters_are_escaped() {
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
