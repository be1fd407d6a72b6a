//! The subset of JSON that the ABI needs: functions that append to a string, and a pull reader.
//!
//! Callbacks are `dyn` to keep guests small, because the size of a guest adds to its start-up time:
//! a copy of the reader for every type of response would be most of the code.

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::{Result, malformed};

/// Appends `text` to `out` as a JSON string.
pub(crate) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut clean_from = 0;
    for (index, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[clean_from..index]);
        if escape.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.push_str("\\u00");
            out.push(HEX[usize::from(byte >> 4)] as char);
            out.push(HEX[usize::from(byte & 15)] as char);
        } else {
            out.push_str(escape);
        }
        clean_from = index + 1;
    }
    out.push_str(&text[clean_from..]);
    out.push('"');
}

/// A pull reader over a JSON text. Methods consume the text from front to back.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

/// The maximum depth of skipped values. The host's responses are three levels deep.
const MAX_DEPTH: usize = 32;

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// Reads an object. Calls `field` for every key, which must read or skip the value.
    pub(crate) fn object(
        &mut self,
        field: &mut dyn FnMut(&str, &mut Self) -> Result<()>,
    ) -> Result<()> {
        self.expect(b'{')?;
        if self.accept(b'}') {
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(b':')?;
            field(&key, self)?;
            if !self.accept(b',') {
                return self.expect(b'}');
            }
        }
    }

    /// Reads an array. Calls `item` for each element, which must read or skip it.
    pub(crate) fn array(&mut self, item: &mut dyn FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.expect(b'[')?;
        if self.accept(b']') {
            return Ok(());
        }
        loop {
            item(self)?;
            if !self.accept(b',') {
                return self.expect(b']');
            }
        }
    }

    /// Reads a string.
    pub(crate) fn string(&mut self) -> Result<String> {
        self.expect(b'"')?;
        let mut bytes = Vec::new();
        loop {
            let clean = self
                .rest
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\'))
                .ok_or_else(malformed)?;
            bytes.extend_from_slice(&self.rest[..clean]);
            let end = self.rest[clean];
            self.rest = &self.rest[clean + 1..];
            if end == b'"' {
                return String::from_utf8(bytes).map_err(|_| malformed());
            }
            let character = self.escape()?;
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    /// Reads a string without copying it. Errors if the string contains an escape sequence.
    pub(crate) fn plain_string(&mut self) -> Result<&'a [u8]> {
        self.expect(b'"')?;
        let end =
            self.rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).ok_or_else(malformed)?;
        let (text, rest) = self.rest.split_at(end);
        if rest[0] != b'"' {
            return Err(malformed());
        }
        self.rest = &rest[1..];
        Ok(text)
    }

    /// Reads a number. Errors if it is not an integer from 0 to 2⁶⁴ - 1.
    pub(crate) fn number(&mut self) -> Result<u64> {
        self.peek();
        let end = self.rest.iter().position(|byte| !byte.is_ascii_digit()).ok_or_else(malformed)?;
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        let digits = core::str::from_utf8(digits).map_err(|_| malformed())?;
        digits.parse().map_err(|_| malformed())
    }

    /// Reads a value of any type and discards it.
    pub(crate) fn skip(&mut self) -> Result<()> {
        self.skip_nested(MAX_DEPTH)
    }

    fn skip_nested(&mut self, depth: usize) -> Result<()> {
        let depth = depth.checked_sub(1).ok_or_else(malformed)?;
        match self.peek() {
            Some(b'{') => self.object(&mut |_, reader| reader.skip_nested(depth)),
            Some(b'[') => self.array(&mut |reader| reader.skip_nested(depth)),
            Some(b'"') => self.string().map(drop),
            _ => {
                let end = self.rest.iter().position(|byte| matches!(byte, b',' | b'}' | b']'));
                self.rest = &self.rest[end.ok_or_else(malformed)?..];
                Ok(())
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        let letter = self.byte()?;
        Ok(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex4()?;
                let mut code = unit;
                if (0xD800..0xDC00).contains(&unit) {
                    if self.byte()? != b'\\' || self.byte()? != b'u' {
                        return Err(malformed());
                    }
                    let low = self
                        .hex4()?
                        .checked_sub(0xDC00)
                        .filter(|low| *low < 0x400)
                        .ok_or_else(malformed)?;
                    code = 0x10000 + ((unit - 0xD800) << 10) + low;
                }
                char::from_u32(code).ok_or_else(malformed)?
            }
            _ => return Err(malformed()),
        })
    }

    fn hex4(&mut self) -> Result<u32> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = char::from(self.byte()?).to_digit(16).ok_or_else(malformed)?;
            unit = unit * 16 + digit;
        }
        Ok(unit)
    }

    fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.rest.split_first().ok_or_else(malformed)?;
        self.rest = rest;
        Ok(*first)
    }

    fn peek(&mut self) -> Option<u8> {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
        self.rest.first().copied()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let accepted = self.peek() == Some(byte);
        if accepted {
            self.rest = &self.rest[1..];
        }
        accepted
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.accept(byte) { Ok(()) } else { Err(malformed()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_strings_are_read_back_unchanged() {
        for text in ["", "plain", "a\"b\\c\nd\u{1}\u{1f}", "naïve ☃ 🦀"] {
            let mut json = String::new();
            push_string(&mut json, text);
            assert_eq!(Reader::new(json.as_bytes()).string().as_deref(), Ok(text), "{json}");
        }
    }

    #[test]
    fn escape_sequences_are_decoded() {
        let read = |json: &str| Reader::new(json.as_bytes()).string();
        assert_eq!(read(r#""\u00e9\t\/\ud83e\udd80""#).as_deref(), Ok("é\t/🦀"));
        for bad in [r#""\ud83e""#, r#""\ud83eA""#, r#""\x""#, r#""open"#, r#""\u12"#] {
            assert_eq!(read(bad), Err(malformed()), "{bad}");
        }
    }

    #[test]
    fn unknown_fields_of_any_type_are_skipped() {
        let json = br#" { "a" : [1, {"b": null}, "x,}"], "c": -1.5e3 , "wanted":"yes", "d":{} }"#;
        let mut wanted = None;
        let read = Reader::new(json).object(&mut |key, reader| {
            if key == "wanted" {
                wanted = Some(reader.string()?);
                return Ok(());
            }
            reader.skip()
        });
        assert_eq!((read, wanted.as_deref()), (Ok(()), Some("yes")));
    }

    #[test]
    fn numbers_are_read_up_to_64_bits() {
        let read = |json: &str| Reader::new(json.as_bytes()).number();
        assert_eq!(read(" 0}"), Ok(0));
        assert_eq!(read("18446744073709551615,"), Ok(u64::MAX));
        for bad in ["", "1", "}", "-1}", "18446744073709551616}", "\"1\"}"] {
            assert_eq!(read(bad), Err(malformed()), "{bad}");
        }
    }

    #[test]
    fn malformed_json_is_an_error() {
        for bad in
            ["", "{", "{\"a\"", "{\"a\":", "{\"a\":1", "[", "{]", "nul", &"[".repeat(100_000)]
        {
            assert!(
                Reader::new(bad.as_bytes()).object(&mut |_, reader| reader.skip()).is_err(),
                "{bad:.20}"
            );
            assert!(Reader::new(bad.as_bytes()).skip().is_err(), "{bad:.20}");
        }
    }
}
