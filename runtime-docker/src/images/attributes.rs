//! The attributes of files that git trees cannot hold. `docs/images.md` documents their format.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use manifold_runtime_api::EntryMode;
use serde::{Deserialize, Serialize};

/// The attributes of one file, link or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// The permissions, with the bits above `0o777`.
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: Time,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    /// The path of the file of which this is a hard link.
    pub(crate) link: Option<Vec<u8>>,
}

/// A time since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    /// Nanoseconds after `seconds`, below 1,000,000,000.
    pub(crate) nanoseconds: u32,
}

impl Time {
    /// Parses decimal seconds, as in the pax header `mtime`. Digits after the ninth decimal are
    /// ignored.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let digits = whole.strip_prefix('-').unwrap_or(whole);
        if digits.is_empty() || !is_digits(digits) || !is_digits(fraction) {
            return None;
        }
        let seconds: i64 = whole.parse().ok()?;
        let fraction: u32 = format!("{:0<9.9}", fraction).parse().ok()?;
        Some(match (whole.starts_with('-'), fraction) {
            (true, 1..) => {
                Self { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - fraction }
            }
            _ => Self { seconds, nanoseconds: fraction },
        })
    }

    /// Formats the time so that [`Time::parse`] reads it.
    pub(crate) fn format(self) -> String {
        let (sign, seconds, nanoseconds) = match (self.seconds, self.nanoseconds) {
            (seconds @ ..=-1, 1..) => {
                ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - self.nanoseconds)
            }
            (seconds @ ..=-1, _) => ("-", seconds.unsigned_abs(), 0),
            (seconds, nanoseconds) => ("", seconds.unsigned_abs(), nanoseconds),
        };
        let text = format!("{sign}{seconds}.{nanoseconds:09}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

impl Attributes {
    /// Returns the attributes of an entry with `mode` about which nothing is said.
    pub(crate) fn of(mode: EntryMode) -> Self {
        let mode = match mode {
            EntryMode::Blob => 0o644,
            EntryMode::Symlink => 0o777,
            _ => 0o755,
        };
        Self { mode, uid: 0, gid: 0, mtime: Time::default(), xattrs: BTreeMap::new(), link: None }
    }

    /// Formats a line about `path`, which is an entry with `mode`. Returns `None` if all attributes
    /// have their default.
    pub(crate) fn line(&self, path: &[u8], mode: EntryMode) -> Option<String> {
        let default = Self::of(mode);
        if *self == default {
            return None;
        }
        let line = match &self.link {
            Some(link) => Line { link: Some(Text::of(link)), ..Line::about(path) },
            None => Line {
                mode: (self.mode != default.mode).then(|| format!("{:04o}", self.mode)),
                uid: self.uid,
                gid: self.gid,
                mtime: (self.mtime != default.mtime).then(|| self.mtime.format()),
                xattrs: self
                    .xattrs
                    .iter()
                    .map(|(name, value)| (name.clone(), BASE64.encode(value)))
                    .collect(),
                ..Line::about(path)
            },
        };
        serde_json::to_string(&line).ok()
    }

    /// Applies a line to the default attributes of an entry with `mode`.
    fn read(line: Line<'_>, mode: EntryMode) -> Result<Self, String> {
        let mut attributes = Self::of(mode);
        if let Some(mode) = line.mode {
            attributes.mode = u32::from_str_radix(&mode, 8)
                .ok()
                .filter(|bits| *bits <= 0o7777)
                .ok_or_else(|| format!("its mode {mode:?} is not permissions in octal"))?;
        }
        (attributes.uid, attributes.gid) = (line.uid, line.gid);
        if let Some(time) = line.mtime {
            attributes.mtime = Time::parse(&time)
                .ok_or_else(|| format!("its mtime {time:?} is not a number of seconds"))?;
        }
        for (name, value) in line.xattrs {
            let value =
                BASE64.decode(value).map_err(|_| format!("its attribute {name} is not base64"))?;
            attributes.xattrs.insert(name, value);
        }
        attributes.link = line.link.map(|link| link.bytes("link")).transpose()?;
        Ok(attributes)
    }
}

/// The attributes of the entries of a layer, by path.
#[derive(Debug, Default)]
pub(crate) struct LayerAttributes(BTreeMap<Vec<u8>, String>);

impl LayerAttributes {
    /// Reads the lines of a blob.
    ///
    /// # Errors
    /// Returns a message that names the line if it is not JSON or names no path, or a path twice.
    pub(crate) fn parse(content: &[u8]) -> Result<Self, String> {
        let mut lines = BTreeMap::new();
        let content =
            std::str::from_utf8(content).map_err(|_| "they are not UTF-8 text".to_owned())?;
        for (number, text) in (1..).zip(content.lines()) {
            let wrong = |problem: String| format!("line {number}: {problem}");
            let line: Line<'_> =
                serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
            let path = line.path.bytes("path").map_err(wrong)?;
            if lines.insert(path, text.to_owned()).is_some() {
                return Err(format!("line {number}: the path occurs twice"));
            }
        }
        Ok(Self(lines))
    }

    /// Removes and returns the attributes of `path`, which is an entry with `mode`.
    ///
    /// # Errors
    /// Returns a message if an attribute has no valid value.
    pub(crate) fn take(&mut self, path: &[u8], mode: EntryMode) -> Result<Attributes, String> {
        match self.0.remove(path) {
            None => Ok(Attributes::of(mode)),
            Some(text) => {
                let line = serde_json::from_str(&text).map_err(|error| error.to_string())?;
                Attributes::read(line, mode)
            }
        }
    }

    /// Returns a path that was not taken.
    pub(crate) fn rest(&self) -> Option<&[u8]> {
        self.0.keys().next().map(Vec::as_slice)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    path: Text<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtime: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    link: Option<Text<'a>>,
}

impl<'a> Line<'a> {
    fn about(path: &'a [u8]) -> Self {
        let path = Text::of(path);
        let xattrs = BTreeMap::new();
        Self { path, mode: None, uid: 0, gid: 0, mtime: None, xattrs, link: None }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Bytes in JSON.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text<'a> {
    Utf8(#[serde(borrow)] Cow<'a, str>),
    Other { base64: String },
}

impl<'a> Text<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Utf8(text.into()),
            Err(_) => Self::Other { base64: BASE64.encode(bytes) },
        }
    }

    fn bytes(&self, what: &str) -> Result<Vec<u8>, String> {
        match self {
            Self::Utf8(text) => Ok(text.as_bytes().to_vec()),
            Self::Other { base64 } => {
                BASE64.decode(base64).map_err(|_| format!("its {what} is not base64"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for (text, seconds, nanoseconds) in [
            ("0", 0, 0),
            ("1700000000", 1_700_000_000, 0),
            ("1700000000.5", 1_700_000_000, 500_000_000),
            ("0.000000001", 0, 1),
            ("-1", -1, 0),
            ("-0.25", -1, 750_000_000),
            ("-1.5", -2, 500_000_000),
        ] {
            let time = Time { seconds, nanoseconds };
            assert_eq!(Time::parse(text), Some(time), "{text}");
            assert_eq!(time.format(), text);
        }
        assert_eq!(Time::parse("1.0000000019"), Some(Time { seconds: 1, nanoseconds: 1 }));
        for text in ["", "-", ".5", "x", "1.x", "+1", "1e3", "99999999999999999999"] {
            assert_eq!(Time::parse(text), None, "{text}");
        }
    }

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let mut attributes = Attributes::of(EntryMode::Executable);
        assert_eq!(attributes.line(b"a", EntryMode::Executable), None);
        attributes.mode = 0o4755;
        attributes.gid = 42;
        attributes.mtime = Time { seconds: 1, nanoseconds: 0 };
        attributes.xattrs.insert("security.capability".to_owned(), vec![1, 0, 255]);
        let line = attributes.line(b"usr/\xff", EntryMode::Executable).unwrap();
        assert_eq!(
            line,
            r#"{"path":{"base64":"dXNyL/8="},"mode":"4755","gid":42,"mtime":"1","xattrs":{"security.capability":"AQD/"}}"#
        );
        let mut read = LayerAttributes::parse(line.as_bytes()).unwrap();
        assert_eq!(read.take(b"usr/\xff", EntryMode::Executable), Ok(attributes));
        assert_eq!(read.rest(), None);
    }

    #[test]
    fn wrong_lines_are_named() {
        for (text, problem) in [
            ("{}", "line 1: missing field `path`"),
            ("{\"path\":\"a\"}\n{\"path\":\"a\"}", "line 2: the path occurs twice"),
            ("{\"path\":\"a\",\"owner\":1}", "line 1: unknown field `owner`"),
        ] {
            let error = LayerAttributes::parse(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(problem), "{error}");
        }
        let mut lines = LayerAttributes::parse(
            b"{\"path\":\"a\",\"mode\":\"9\"}\n{\"path\":\"b\",\"mtime\":\"x\"}",
        )
        .unwrap();
        assert!(lines.take(b"a", EntryMode::Blob).unwrap_err().contains("octal"));
        assert!(lines.take(b"b", EntryMode::Blob).unwrap_err().contains("seconds"));
    }
}
