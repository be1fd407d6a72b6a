//! What precedes an entry of an archive: pax records
//! ([POSIX](https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html), "pax Header
//! Block"), and long names as GNU tar writes them.

use std::io::{self, Read};

use tar::{Entry, EntryType};

/// The maximum size of what precedes an entry, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// What precedes an entry.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    /// Keys and values.
    pub(super) records: Vec<(String, Vec<u8>)>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Extensions {
    /// Reads `entry` if it belongs to the next one. Returns whether it does.
    ///
    /// # Errors
    /// Returns a message if it is malformed or too long.
    pub(super) fn read(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<bool, String> {
        let kind = entry.header().entry_type();
        let is_extension = matches!(
            kind,
            EntryType::XHeader
                | EntryType::XGlobalHeader
                | EntryType::GNULongName
                | EntryType::GNULongLink
        );
        if !is_extension {
            return Ok(false);
        }
        if entry.size() > MAX_BYTES {
            return Err(format!("a header has {} bytes, over {MAX_BYTES}", entry.size()));
        }
        let mut content = Vec::new();
        let failed = |error: io::Error| error.to_string();
        entry.take(MAX_BYTES).read_to_end(&mut content).map_err(failed)?;
        let without_nul = |mut content: Vec<u8>| {
            content.truncate(content.iter().position(|byte| *byte == 0).unwrap_or(content.len()));
            content
        };
        match kind {
            EntryType::XHeader => self.records.extend(records(&content)?),
            EntryType::GNULongName => self.name = Some(without_nul(content)),
            EntryType::GNULongLink => self.link = Some(without_nul(content)),
            // About all entries: a comment, as a rule.
            _ => {}
        }
        Ok(true)
    }

    fn last(&self, key: &str) -> Option<&Vec<u8>> {
        self.records.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Returns the path of `entry`.
    pub(super) fn path(&self, entry: &Entry<'_, impl Read>) -> Vec<u8> {
        let long = self.last("path").or(self.name.as_ref());
        long.cloned().unwrap_or_else(|| entry.path_bytes().into_owned())
    }

    /// Returns what `entry`, which is a link, leads to.
    pub(super) fn link(&self, entry: &Entry<'_, impl Read>) -> Vec<u8> {
        let long = self.last("linkpath").or(self.link.as_ref());
        long.cloned().unwrap_or_else(|| {
            entry.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default()
        })
    }

    /// Returns the number called `key`, if there is one.
    ///
    /// # Errors
    /// Returns a message if it is no number.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, String> {
        let Some(value) = self.last(key) else { return Ok(None) };
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        number.map(Some).ok_or_else(|| format!("the {key} of its header is no number"))
    }
}

/// Reads pax records: the length of the record in decimal digits, a space, the key, `=`, the value,
/// and a line feed. The value can have any bytes.
fn records(mut content: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let malformed = || "its pax header is malformed".to_owned();
    let mut records = Vec::new();
    while !content.is_empty() {
        let space = content.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let length = std::str::from_utf8(&content[..space]).ok();
        let length: usize = length.and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
        if length > content.len() || length < space + 2 {
            return Err(malformed());
        }
        let record = content[space + 1..length].strip_suffix(b"\n").ok_or_else(malformed)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
        let key = std::str::from_utf8(&record[..equals]).map_err(|_| malformed())?;
        records.push((key.to_owned(), record[equals + 1..].to_vec()));
        content = &content[length..];
    }
    Ok(records)
}
