//! Names and contents of files.

use alloc::string::String;

/// The first bytes of a file, in which git looks for a zero byte to tell text from binary data.
const LOOKED_AT: usize = 8000;

/// Returns whether git takes a file with this content for binary: there is a zero byte at its start.
pub fn is_binary(content: &[u8]) -> bool {
    content[..content.len().min(LOOKED_AT)].contains(&0)
}

/// Returns the name of a file as text without tabs and line feeds.
///
/// A backslash and control characters are escaped, and so is each byte that is not ASCII if the name
/// is not valid UTF-8.
pub fn shown(name: &[u8]) -> String {
    let mut shown = String::with_capacity(name.len());
    let is_text = core::str::from_utf8(name).is_ok();
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => shown.push_str("\\\\"),
                '\t' => shown.push_str("\\t"),
                '\n' => shown.push_str("\\n"),
                '\0'..' ' | '\x7f' => escape(&[character as u8], &mut shown),
                _ if is_text || character.is_ascii() => shown.push(character),
                _ => escape(character.encode_utf8(&mut [0; 4]).as_bytes(), &mut shown),
            }
        }
        escape(chunk.invalid(), &mut shown);
    }
    shown
}

fn escape(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push_str("\\x");
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}
