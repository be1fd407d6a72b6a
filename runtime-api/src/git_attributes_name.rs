//! Names that a file system may treat as `.gitattributes`. Git's fsck requires a regular file under
//! such a name.
//!
//! The rules are those of git's `is_hfs_dotgitattributes` (`utf8.c`) and `is_ntfs_dotgitattributes`
//! (`path.c`).

use bstr::{BStr, ByteSlice};

const NAME: &str = ".gitattributes";
/// The start of the short name that NTFS gives the file when `gitatt~1` to `gitatt~4` are taken.
const HASHED_SHORT_NAME: &[u8] = b"gi7d29";

pub(crate) fn is_look_alike(name: &BStr) -> bool {
    is_for_hfs(name) || is_for_ntfs(name)
}

/// HFS+ ignores case and some invisible characters.
fn is_for_hfs(name: &BStr) -> bool {
    let ignored = |c: &char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    name.to_str().is_ok_and(|name| {
        let seen = name.chars().filter(|c| !ignored(c));
        seen.map(|c| c.to_ascii_lowercase()).eq(NAME.chars())
    })
}

/// NTFS ignores case, trailing dots and spaces, and a stream name after a colon. It also has short
/// names.
fn is_for_ntfs(name: &BStr) -> bool {
    let starts_with = |prefix: &[u8]| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if starts_with(NAME.as_bytes()) {
        return is_ignored_end(&name[NAME.len()..]);
    }
    if starts_with(b"gitatt~") && name.get(7).is_some_and(|digit| (b'1'..=b'4').contains(digit)) {
        return is_ignored_end(&name[8..]);
    }
    let Some(tilde) = name.iter().take(7).position(|byte| *byte == b'~') else { return false };
    let Some(digits) = name.get(tilde + 1..8.max(tilde + 2)) else { return false };
    name[..tilde].eq_ignore_ascii_case(&HASHED_SHORT_NAME[..tilde])
        && digits[0] != b'0'
        && digits.iter().all(u8::is_ascii_digit)
        && is_ignored_end(&name[tilde + 1 + digits.len()..])
}

fn is_ignored_end(end: &[u8]) -> bool {
    let end = end.split(|byte| *byte == b':').next().unwrap_or_default();
    end.iter().all(|byte| matches!(byte, b' ' | b'.'))
}
