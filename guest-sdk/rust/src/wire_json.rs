//! The operations in JSON, `caos_abi_v1`: over the standard streams of a process.

use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::error::{Error, Result, malformed};
use crate::json::{Reader, push_string};
use crate::object::{Entry, Id, Kind, Mode, Object};
use crate::operations::JobFields;
use crate::transport::exchange;

pub(crate) fn job() -> Result<JobFields> {
    let [mut args, mut image, mut std, mut salt] = [const { String::new() }; 4];
    call(Request::new("job"), &mut |key, reader| {
        match key {
            "args" => args = reader.string()?,
            "image" => image = reader.string()?,
            "std" => std = reader.string()?,
            "salt" => salt = reader.string()?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(JobFields { args: id(&args)?, image, std, salt })
}

pub(crate) fn tree(id: &Id) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    call(Request::new("tree").string("hash", &id.to_hex()), &mut |key, reader| match key {
        "entries" => reader.array(&mut |reader| {
            entries.push(read_entry(reader)?);
            Ok(())
        }),
        _ => reader.skip(),
    })?;
    Ok(entries)
}

pub(crate) fn get(id: &Id) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    call(Request::new("get").string("hash", &id.to_hex()), &mut |key, reader| match key {
        "bytes_b64" => {
            content = read_base64(reader)?;
            Ok(())
        }
        _ => reader.skip(),
    })?;
    Ok(content)
}

pub(crate) fn put_blob(content: &[u8]) -> Result<Object> {
    let id = stored(Request::new("put_blob").base64("bytes_b64", content))?;
    Ok(Object { kind: Kind::Blob, id })
}

pub(crate) fn put_tree(entries: &[Entry]) -> Result<Object> {
    let mut request = Request::new("put_tree");
    request.array("entries", entries, |request, entry| {
        match core::str::from_utf8(&entry.name) {
            Ok(name) => request.first_string("name", name),
            Err(_) => request.first_base64("name_b64", &entry.name),
        }
        request.push_string("mode", entry.mode.as_str());
        request.push_string("hash", &entry.id.to_hex());
    });
    Ok(Object { kind: Kind::Tree, id: stored(request)? })
}

pub(crate) fn run(image: &str, args: &Id) -> Result<Object> {
    let mut outcome = OutcomeFields::default();
    let request = Request::new("run").string("image", image).string("args", &args.to_hex());
    call(request, &mut |key, reader| outcome.field(key, reader))?;
    outcome.finish()
}

pub(crate) fn run_many<'a>(
    calls: impl IntoIterator<Item = (&'a str, &'a Id)>,
) -> Result<Vec<Result<Object>>> {
    let mut request = Request::new("run_many");
    request.array("reqs", calls, |request, (image, args)| {
        request.first_string("image", image);
        request.push_string("args", &args.to_hex());
    });
    let mut outcomes = Vec::new();
    call(request, &mut |key, reader| match key {
        "results" => reader.array(&mut |reader| {
            let mut outcome = OutcomeFields::default();
            reader.object(&mut |key, reader| outcome.field(key, reader))?;
            outcomes.push(outcome.finish());
            Ok(())
        }),
        _ => reader.skip(),
    })?;
    Ok(outcomes)
}

pub(crate) fn log(message: &str) {
    // The log is for people; a guest has nothing to do about a log that is full.
    let _ = call(Request::new("log").string("msg", message), &mut |_, reader| reader.skip());
}

pub(crate) fn out(object: &Object) -> Result<()> {
    let request = Request::new("out")
        .string("kind", object.kind.as_str())
        .string("hash", &object.id.to_hex());
    call(request, &mut |_, reader| reader.skip())
}

pub(crate) fn fail(message: &str) {
    let _ = call(Request::new("fail").string("message", message), &mut |_, reader| reader.skip());
}

/// Git's and the ABI's words.
impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Tree => "tree",
            Self::Commit => "commit",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Blob, Self::Tree, Self::Commit].into_iter().find(|kind| kind.as_str() == text)
    }
}

impl Mode {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Tree => "40000",
            Self::Blob => "100644",
            Self::Executable => "100755",
            Self::Symlink => "120000",
            Self::Commit => "160000",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }
}

/// A request that is being written.
struct Request(String);

impl Request {
    fn new(operation: &str) -> Self {
        let mut text = String::with_capacity(128);
        text.push_str("{\"op\":\"");
        text.push_str(operation);
        text.push('"');
        Self(text)
    }

    fn string(mut self, key: &str, value: &str) -> Self {
        self.push_string(key, value);
        self
    }

    fn base64(mut self, key: &str, value: &[u8]) -> Self {
        self.0.push(',');
        self.first_base64(key, value);
        self
    }

    fn push_string(&mut self, key: &str, value: &str) {
        self.0.push(',');
        self.first_string(key, value);
    }

    fn first_string(&mut self, key: &str, value: &str) {
        self.key(key);
        push_string(&mut self.0, value);
    }

    fn first_base64(&mut self, key: &str, value: &[u8]) {
        self.key(key);
        self.0.push('"');
        BASE64.encode_string(value, &mut self.0);
        self.0.push('"');
    }

    fn key(&mut self, key: &str) {
        self.0.push('"');
        self.0.push_str(key);
        self.0.push_str("\":");
    }

    /// Adds an array of objects, whose fields `item` writes.
    fn array<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Self, T),
    ) {
        self.0.push(',');
        self.key(key);
        let mut lead = '[';
        for value in items {
            self.0.push(lead);
            self.0.push('{');
            item(self, value);
            self.0.push('}');
            lead = ',';
        }
        if lead == '[' {
            self.0.push('[');
        }
        self.0.push(']');
    }
}

/// Sends a request, and hands every field of the response to `field`, unless it is an error.
fn call(
    mut request: Request,
    field: &mut dyn FnMut(&str, &mut Reader<'_>) -> Result<()>,
) -> Result<()> {
    request.0.push('}');
    let response = exchange(request.0.as_bytes());
    let mut error = None;
    Reader::new(&response).object(&mut |key, reader| {
        if key == "error" {
            error = Some(Error::new(reader.string()?));
            return Ok(());
        }
        // What comes with an error, its kind and chain, is for programs that look for it.
        if error.is_some() { reader.skip() } else { field(key, reader) }
    })?;
    error.map_or(Ok(()), Err)
}

fn id(hex: &str) -> Result<Id> {
    Id::from_hex(hex).ok_or_else(malformed)
}

fn stored(request: Request) -> Result<Id> {
    let mut hash = None;
    call(request, &mut |key, reader| match key {
        "hash" => {
            hash = Some(id(&reader.string()?)?);
            Ok(())
        }
        _ => reader.skip(),
    })?;
    hash.ok_or_else(malformed)
}

#[derive(Default)]
struct OutcomeFields {
    kind: Option<Kind>,
    hash: Option<String>,
    error: Option<String>,
}

impl OutcomeFields {
    fn field(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<()> {
        match key {
            "kind" => self.kind = Kind::parse(&reader.string()?),
            "hash" => self.hash = Some(reader.string()?),
            "error" => self.error = Some(reader.string()?),
            _ => reader.skip()?,
        }
        Ok(())
    }

    fn finish(self) -> Result<Object> {
        if let Some(error) = self.error {
            return Err(Error::new(error));
        }
        match (self.kind, self.hash) {
            (Some(kind), Some(hash)) => Ok(Object { kind, id: id(&hash)? }),
            _ => Err(malformed()),
        }
    }
}

fn read_entry(reader: &mut Reader<'_>) -> Result<Entry> {
    let [mut name, mut mode, mut hash] = [const { None::<String> }; 3];
    let mut raw_name = None;
    reader.object(&mut |key, reader| {
        match key {
            "name" => name = Some(reader.string()?),
            "name_b64" => raw_name = Some(read_base64(reader)?),
            "mode" => mode = Some(reader.string()?),
            "hash" => hash = Some(reader.string()?),
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    let name = raw_name.or_else(|| name.map(String::into_bytes));
    match (name, mode.as_deref().and_then(Mode::parse), hash) {
        (Some(name), Some(mode), Some(hash)) => Ok(Entry { name, mode, id: id(&hash)? }),
        _ => Err(malformed()),
    }
}

fn read_base64(reader: &mut Reader<'_>) -> Result<Vec<u8>> {
    BASE64.decode(reader.plain_string()?).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::scripted::expect;
    use alloc::vec;

    fn hex(digits: &str) -> Id {
        Id::from_hex(digits).expect("hex digits")
    }

    #[test]
    fn a_name_that_is_no_text_travels_both_ways() {
        let id = hex(&"01".repeat(20));
        let entry = Entry { name: b"caf\xe9".to_vec(), mode: Mode::Executable, id };
        expect(
            r#"{"op":"tree","hash":"0101010101010101010101010101010101010101"}"#,
            r#"{"entries":[{"name":"caf\\xe9","name_b64":"Y2Fm6Q==","kind":"blob","hash":"0101010101010101010101010101010101010101","mode":"100755"}]}"#,
        );
        assert_eq!(tree(&id), Ok(vec![entry.clone()]));
        expect(
            r#"{"op":"put_tree","entries":[{"name_b64":"Y2Fm6Q==","mode":"100755","hash":"0101010101010101010101010101010101010101"}]}"#,
            r#"{"hash":"0202"}"#,
        );
        assert_eq!(put_tree(&[entry]), Ok(Object { kind: Kind::Tree, id: hex("0202") }));
    }

    #[test]
    fn an_error_of_the_host_is_an_error_in_its_words() {
        expect(
            r#"{"op":"put_blob","bytes_b64":"aGk="}"#,
            r#"{"error":"no \"room\"","kind":"store","chain":["a","b"]}"#,
        );
        assert_eq!(put_blob(b"hi"), Err(Error::new("no \"room\"")));
    }

    #[test]
    fn failures_among_many_runs_stay_in_their_places() {
        let args = hex("a0");
        expect(
            r#"{"op":"run_many","reqs":[{"image":"x","args":"a0"},{"image":"y","args":"a0"}]}"#,
            r#"{"results":[{"error":"y is ill","kind":"guest"},{"kind":"blob","hash":"b0"}]}"#,
        );
        let outcomes = run_many([("x", &args), ("y", &args)]).expect("the call itself succeeds");
        let blob = Object { kind: Kind::Blob, id: hex("b0") };
        assert_eq!(outcomes, [Err(Error::new("y is ill")), Ok(blob)]);
        expect(r#"{"op":"run_many","reqs":[]}"#, r#"{"results":[]}"#);
        assert_eq!(run_many([]), Ok(vec![]));
    }

    #[test]
    fn a_response_of_another_shape_is_an_error() {
        for response in ["", "[]", "{}", r#"{"hash":1}"#, r#"{"hash":"a"#] {
            expect(r#"{"op":"put_blob","bytes_b64":""}"#, response);
            assert_eq!(put_blob(b""), Err(malformed()), "{response}");
        }
    }
}
