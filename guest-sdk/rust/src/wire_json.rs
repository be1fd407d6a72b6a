//! The JSON encoding of the operations, `caos_abi_v1`. Guests that run as processes use it, one
//! line per message.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::error::{Error, ErrorKind, Result, malformed};
use crate::job::Job;
use crate::json::{Reader, push_string};
use crate::object::{Entry, Id, Kind, Mode, ObjectRef};
use crate::transport::exchange;

pub(crate) fn job() -> Result<Job> {
    let [mut image, mut std, mut salt] = [const { String::new() }; 3];
    let mut args = None;
    call(Request::new("job_with_args"), &mut |key, reader| {
        match key {
            "image" => image = reader.string()?,
            "std" => std = reader.string()?,
            "salt" => salt = reader.string()?,
            "entries" => args = Some(read_entries(reader)?),
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(Job { args: args.ok_or_else(malformed)?, image, std, salt })
}

pub(crate) fn tree(id: &Id) -> Result<Vec<Entry>> {
    let mut entries = None;
    call(Request::new("tree").string("hash", &id.to_hex()), &mut |key, reader| {
        match key {
            "entries" => entries = Some(read_entries(reader)?),
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    entries.ok_or_else(malformed)
}

pub(crate) fn get(id: &Id) -> Result<Vec<u8>> {
    content(Request::new("get").string("hash", &id.to_hex()))
}

pub(crate) fn get_range(id: &Id, offset: u64, length: u64) -> Result<Vec<u8>> {
    let request = Request::new("get_range").string("hash", &id.to_hex());
    content(request.number("offset", offset).number("length", length))
}

pub(crate) fn size(id: &Id) -> Result<u64> {
    let mut size = None;
    call(Request::new("size").string("hash", &id.to_hex()), &mut |key, reader| match key {
        "size" => {
            size = Some(reader.number()?);
            Ok(())
        }
        _ => reader.skip(),
    })?;
    size.ok_or_else(malformed)
}

pub(crate) fn put_blob(content: &[u8]) -> Result<ObjectRef> {
    let id = stored(Request::new("put_blob").base64("bytes_b64", content))?;
    Ok(ObjectRef { kind: Kind::Blob, id })
}

pub(crate) fn put_tree(entries: &[Entry]) -> Result<ObjectRef> {
    let mut request = Request::new("put_tree");
    request.array("entries", entries, |request, entry| {
        match core::str::from_utf8(&entry.name) {
            Ok(name) => request.first_string("name", name),
            Err(_) => request.first_base64("name_b64", &entry.name),
        }
        request.push_string("mode", entry.mode.as_str());
        request.push_string("hash", &entry.id.to_hex());
    });
    Ok(ObjectRef { kind: Kind::Tree, id: stored(request)? })
}

pub(crate) fn run(image: &str, args: &Id) -> Result<ObjectRef> {
    let mut outcome = OutcomeFields::default();
    let request = Request::new("run").string("image", image).string("args", &args.to_hex());
    call(request, &mut |key, reader| outcome.field(key, reader))?;
    outcome.finish()
}

pub(crate) fn run_many<'a>(
    calls: impl IntoIterator<Item = (&'a str, &'a Id)>,
) -> Result<Vec<Result<ObjectRef>>> {
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
    // Errors are ignored: a guest cannot do anything about a full log.
    let _ = call(Request::new("log").string("msg", message), &mut |_, reader| reader.skip());
}

pub(crate) fn out(object: &ObjectRef) -> Result<()> {
    let request = Request::new("out")
        .string("kind", object.kind.as_str())
        .string("hash", &object.id.to_hex());
    call(request, &mut |_, reader| reader.skip())
}

pub(crate) fn out_blob(content: &[u8]) -> Result<()> {
    let request = Request::new("out_blob").base64("bytes_b64", content);
    call(request, &mut |_, reader| reader.skip())
}

pub(crate) fn fail(message: &str) {
    let _ = call(Request::new("fail").string("message", message), &mut |_, reader| reader.skip());
}

/// Conversion to and from the ABI's names, which are git's object types.
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

/// Conversion to and from git's octal modes.
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

/// A request under construction: a JSON object without its closing brace.
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

    fn number(mut self, key: &str, value: u64) -> Self {
        self.0.push(',');
        self.key(key);
        self.0.push_str(&value.to_string());
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

    /// Appends an array of objects. Calls `item` to append the fields of each.
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

/// Sends a request. Calls `field` for every field of the response, which must read or skip the
/// value. Errors if the response is an error.
fn call(
    mut request: Request,
    field: &mut dyn FnMut(&str, &mut Reader<'_>) -> Result<()>,
) -> Result<()> {
    request.0.push('}');
    let response = exchange(request.0.as_bytes());
    let mut failure = FailureFields::default();
    Reader::new(&response).object(&mut |key, reader| {
        // The kind and the chain follow the message.
        if key == "error" || failure.message.is_some() {
            failure.field(key, reader)
        } else {
            field(key, reader)
        }
    })?;
    failure.finish().map_or(Ok(()), Err)
}

/// The fields of an error.
#[derive(Default)]
struct FailureFields {
    message: Option<String>,
    kind: String,
    chain: Vec<String>,
}

impl FailureFields {
    fn field(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<()> {
        match key {
            "error" => self.message = Some(reader.string()?),
            "kind" => self.kind = reader.string()?,
            "chain" => reader.array(&mut |reader| {
                self.chain.push(reader.string()?);
                Ok(())
            })?,
            _ => reader.skip()?,
        }
        Ok(())
    }

    /// Returns the error, or `None` if there was no message.
    fn finish(self) -> Option<Error> {
        let kind = ErrorKind::parse(self.kind.as_bytes());
        Some(Error::from_host(self.message?, kind, self.chain))
    }
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

/// Sends a request and returns the field `bytes_b64` of the response.
fn content(request: Request) -> Result<Vec<u8>> {
    let mut content = None;
    call(request, &mut |key, reader| match key {
        "bytes_b64" => {
            content = Some(read_base64(reader)?);
            Ok(())
        }
        _ => reader.skip(),
    })?;
    content.ok_or_else(malformed)
}

/// The fields of an outcome or of an error, which have one in common: `kind`.
#[derive(Default)]
struct OutcomeFields {
    hash: Option<String>,
    failure: FailureFields,
}

impl OutcomeFields {
    fn field(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<()> {
        match key {
            "hash" => self.hash = Some(reader.string()?),
            _ => self.failure.field(key, reader)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<ObjectRef> {
        let kind = Kind::parse(&self.failure.kind);
        if let Some(error) = self.failure.finish() {
            return Err(error);
        }
        match (kind, self.hash) {
            (Some(kind), Some(hash)) => Ok(ObjectRef { kind, id: id(&hash)? }),
            _ => Err(malformed()),
        }
    }
}

fn read_entries(reader: &mut Reader<'_>) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    reader.array(&mut |reader| {
        entries.push(read_entry(reader)?);
        Ok(())
    })?;
    Ok(entries)
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
mod tests;
