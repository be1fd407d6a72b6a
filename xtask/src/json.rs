//! A reader for JSON, as `cargo metadata` and npm's `package.json` contain it.

use std::iter::Peekable;
use std::str::Chars;

use crate::process::Result;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// A number, as it is written.
    Number(String),
    Text(String),
    List(Vec<Json>),
    /// The members of an object, in their order.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses `text`.
    ///
    /// # Errors
    /// Returns an error if `text` is not one JSON value.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut reader = Reader { rest: text.chars().peekable() };
        let value = reader.value()?;
        reader.skip_space();
        match reader.rest.next() {
            None => Ok(value),
            Some(character) => Err(format!("invalid JSON: `{character}` after the value")),
        }
    }

    /// Returns the member `name` of an object, or `None` for other values.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    /// Returns the member `name` of an object if it is a text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the items of the list in the member `name`. Empty if there is none.
    pub(crate) fn items(&self, name: &str) -> &[Self] {
        match self.get(name) {
            Some(Self::List(items)) => items,
            _ => &[],
        }
    }

    /// Returns the names of the object in the member `name`. Empty if there is none.
    pub(crate) fn keys(&self, name: &str) -> Vec<&str> {
        match self.get(name) {
            Some(Self::Object(members)) => members.iter().map(|(name, _)| &**name).collect(),
            _ => Vec::new(),
        }
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        while self.rest.next_if(char::is_ascii_whitespace).is_some() {}
    }

    fn expect(&mut self, expected: char) -> Result {
        match self.rest.next() {
            Some(found) if found == expected => Ok(()),
            found => Err(format!("invalid JSON: expected `{expected}`, found {found:?}")),
        }
    }

    fn value(&mut self) -> Result<Json> {
        self.skip_space();
        match self.rest.peek() {
            Some('{') => self.object(),
            Some('[') => self.list(),
            Some('"') => self.string().map(Json::Text),
            _ => self.word(),
        }
    }

    fn object(&mut self) -> Result<Json> {
        let mut members = Vec::new();
        self.expect('{')?;
        self.skip_space();
        if self.rest.next_if_eq(&'}').is_some() {
            return Ok(Json::Object(members));
        }
        loop {
            self.skip_space();
            let name = self.string()?;
            self.skip_space();
            self.expect(':')?;
            members.push((name, self.value()?));
            self.skip_space();
            if self.rest.next_if_eq(&',').is_none() {
                self.expect('}')?;
                return Ok(Json::Object(members));
            }
        }
    }

    fn list(&mut self) -> Result<Json> {
        let mut items = Vec::new();
        self.expect('[')?;
        self.skip_space();
        if self.rest.next_if_eq(&']').is_some() {
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value()?);
            self.skip_space();
            if self.rest.next_if_eq(&',').is_none() {
                self.expect(']')?;
                return Ok(Json::List(items));
            }
        }
    }

    fn string(&mut self) -> Result<String> {
        self.expect('"')?;
        // In UTF-16, because that is what `\u` escapes are.
        let mut units: Vec<u16> = Vec::new();
        loop {
            let character = self.rest.next().ok_or("invalid JSON: a string does not end")?;
            let plain = match character {
                '"' => return Ok(String::from_utf16_lossy(&units)),
                '\\' => match self.rest.next() {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some('b') => '\u{8}',
                    Some('f') => '\u{c}',
                    Some('u') => {
                        units.push(self.unit()?);
                        continue;
                    }
                    Some(itself @ ('"' | '\\' | '/')) => itself,
                    found => return Err(format!("invalid JSON: the escape {found:?}")),
                },
                plain => plain,
            };
            units.extend_from_slice(plain.encode_utf16(&mut [0; 2]));
        }
    }

    fn unit(&mut self) -> Result<u16> {
        let digits: String = self.rest.by_ref().take(4).collect();
        u16::from_str_radix(&digits, 16).map_err(|_| format!("invalid JSON: `\\u{digits}`"))
    }

    fn word(&mut self) -> Result<Json> {
        let mut word = String::new();
        let belongs = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        while let Some(character) = self.rest.next_if(belongs) {
            word.push(character);
        }
        match &*word {
            "null" => Ok(Json::Null),
            "true" => Ok(Json::Bool(true)),
            "false" => Ok(Json::Bool(false)),
            _ if word.parse::<f64>().is_ok() => Ok(Json::Number(word)),
            _ => Err(format!("invalid JSON: expected a value, found `{word}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_each_kind_are_read() {
        let text = r#" {"a": [1, -2.5e3, true, false, null, {}, []], "b": {"c": "d"}} "#;
        let value = Json::parse(text).unwrap();
        let items = value.items("a");
        assert_eq!(items[..2], [Json::Number("1".into()), Json::Number("-2.5e3".into())]);
        assert_eq!(items[2..5], [Json::Bool(true), Json::Bool(false), Json::Null]);
        assert_eq!(items[5..], [Json::Object(vec![]), Json::List(vec![])]);
        assert_eq!(value.get("b").and_then(|b| b.text("c")), Some("d"));
        assert_eq!(value.keys("b"), ["c"]);
    }

    #[test]
    fn escapes_are_decoded() {
        let value = Json::parse(r#""a\"\\\/\n\u00e9\ud83d\ude00é😀""#).unwrap();
        assert_eq!(value, Json::Text("a\"\\/\né😀é😀".into()));
    }

    #[test]
    fn malformed_text_is_an_error() {
        for text in ["", "{", "[1,]", "{\"a\" 1}", "\"a", "\"\\x\"", "\"\\u12\"", "nul", "1 2"] {
            assert!(Json::parse(text).is_err(), "{text}");
        }
    }
}
