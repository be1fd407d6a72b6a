//! The binary encoding of the operations, `caos_abi_v2`. Wasm guests use it.

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::{Error, ErrorKind, Result, malformed};
use crate::job::Job;
use crate::object::{Entry, Id, Kind, Mode, ObjectRef};
use crate::transport::exchange;

pub(crate) fn job() -> Result<Job> {
    Request::new(13).send(|response| {
        // The first field is the id of the tree of arguments.
        let (_, std) = (response.id()?, response.id()?);
        let (image, salt) = (response.text()?, response.text()?);
        let args = response.entries()?;
        // The remaining field names the module. Only containers that run modules need it.
        response.rest();
        Ok(Job { args, image, std: std.to_hex(), salt })
    })
}

pub(crate) fn tree(id: &Id) -> Result<Vec<Entry>> {
    Request::new(2).id(id).send(|response| response.entries())
}

pub(crate) fn get(id: &Id) -> Result<Vec<u8>> {
    Request::new(3).id(id).send(|response| Ok(response.rest().to_vec()))
}

pub(crate) fn size(id: &Id) -> Result<u64> {
    Request::new(11).id(id).send(|response| response.number())
}

pub(crate) fn get_range(id: &Id, offset: u64, length: u64) -> Result<Vec<u8>> {
    let request = Request::new(12).id(id).number(offset).number(length);
    request.send(|response| Ok(response.rest().to_vec()))
}

pub(crate) fn put_blob(content: &[u8]) -> Result<ObjectRef> {
    let id = Request::new(4).rest(content).send(|response| response.id())?;
    Ok(ObjectRef { kind: Kind::Blob, id })
}

pub(crate) fn put_tree(entries: &[Entry]) -> Result<ObjectRef> {
    let mut request = Request::new(5);
    request.length(entries.len());
    for entry in entries {
        request.0.push(entry.mode as u8);
        request = request.id(&entry.id).text(&entry.name);
    }
    Ok(ObjectRef { kind: Kind::Tree, id: request.send(|response| response.id())? })
}

pub(crate) fn run(image: &str, args: &Id) -> Result<ObjectRef> {
    Request::new(6).id(args).text(image.as_bytes()).send(|response| response.object())
}

pub(crate) fn run_many<'a>(
    calls: impl IntoIterator<Item = (&'a str, &'a Id)>,
) -> Result<Vec<Result<ObjectRef>>> {
    let mut request = Request::new(7);
    // A placeholder: the number of calls is known only after the loop.
    request.length(0);
    let mut count = 0u32;
    for (image, args) in calls {
        request = request.id(args).text(image.as_bytes());
        count += 1;
    }
    request.0[1..5].copy_from_slice(&count.to_le_bytes());
    request.send(|response| {
        response.items(|response| {
            Ok(match response.byte()? {
                0 => Ok(response.object()?),
                _ => Err(response.failure()?),
            })
        })
    })
}

pub(crate) fn log(message: &str) {
    // Errors are ignored: a guest cannot do anything about a full log.
    let _ = Request::new(9).rest(message.as_bytes()).send(|_| Ok(()));
}

pub(crate) fn out(object: &ObjectRef) -> Result<()> {
    let mut request = Request::new(8);
    request.0.push(object.kind as u8);
    request.id(&object.id).send(|_| Ok(()))
}

pub(crate) fn out_blob(content: &[u8]) -> Result<()> {
    Request::new(14).rest(content).send(|_| Ok(()))
}

pub(crate) fn fail(message: &str) {
    let _ = Request::new(10).rest(message.as_bytes()).send(|_| Ok(()));
}

/// A request under construction.
struct Request(Vec<u8>);

impl Request {
    fn new(operation: u8) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.push(operation);
        Self(bytes)
    }

    fn length(&mut self, length: usize) {
        self.0.extend_from_slice(&(length as u32).to_le_bytes());
    }

    fn id(mut self, id: &Id) -> Self {
        let bytes = id.as_bytes();
        self.0.push(bytes.len() as u8);
        self.0.extend_from_slice(bytes);
        self
    }

    fn number(self, number: u64) -> Self {
        self.rest(&number.to_le_bytes())
    }

    fn text(mut self, text: &[u8]) -> Self {
        self.length(text.len());
        self.0.extend_from_slice(text);
        self
    }

    fn rest(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Sends the request and decodes the response with `read`. Errors if the response is an error.
    fn send<T>(self, read: impl FnOnce(&mut Response<'_>) -> Result<T>) -> Result<T> {
        let response = exchange(&self.0);
        let mut response = Response(&response);
        match response.byte()? {
            0 => read(&mut response),
            _ => Err(response.failure()?),
        }
    }
}

/// The part of a response that has not been read yet.
struct Response<'a>(&'a [u8]);

impl<'a> Response<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }

    fn byte(&mut self) -> Result<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn length(&mut self) -> Result<usize> {
        let mut length = [0; 4];
        length.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(length) as usize)
    }

    fn number(&mut self) -> Result<u64> {
        let mut number = [0; 8];
        number.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(number))
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    fn text(&mut self) -> Result<String> {
        core::str::from_utf8(self.bytes()?).map(String::from).map_err(|_| malformed())
    }

    fn id(&mut self) -> Result<Id> {
        let length = usize::from(self.byte()?);
        Id::from_bytes(self.take(length)?).ok_or_else(malformed)
    }

    fn object(&mut self) -> Result<ObjectRef> {
        let kind = if self.byte()? == 0 { Kind::Blob } else { Kind::Tree };
        Ok(ObjectRef { kind, id: self.id()? })
    }

    fn entries(&mut self) -> Result<Vec<Entry>> {
        self.items(|response| {
            let mode = Mode::ALL.get(usize::from(response.byte()?)).ok_or_else(malformed)?;
            Ok(Entry { id: response.id()?, name: response.bytes()?.to_vec(), mode: *mode })
        })
    }

    fn items<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.length()?;
        // Every item takes at least one byte, which bounds the capacity by the response's length.
        let mut items = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// Reads an error.
    fn failure(&mut self) -> Result<Error> {
        let message = self.text()?;
        let kind = ErrorKind::parse(self.bytes()?);
        Ok(Error::from_host(message, kind, self.items(Self::text)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::scripted::expect;
    use alloc::vec;

    fn id(byte: u8) -> Id {
        Id::from_bytes(&[byte; 20]).expect("an id")
    }

    fn with_id(before: &[u8], byte: u8) -> Vec<u8> {
        [before, &[20], &[byte; 20]].concat()
    }

    #[test]
    fn every_operation_is_encoded_and_decoded() {
        let image = b"\x05\0\0\0image";
        let entry = Entry { name: b"caf\xe9".to_vec(), mode: Mode::Executable, id: id(2) };
        let entries = [&b"\x01\0\0\0"[..], &with_id(&[2], 2), b"\x04\0\0\0caf\xe9"].concat();
        let names = [&with_id(&[0], 1)[..], &[0], image, b"\0\0\0\0"].concat();
        expect([13], [&names[..], &entries, &with_id(&[0], 9)].concat());
        let job = super::job().expect("a job");
        assert_eq!((&*job.std, &*job.image, &*job.salt), ("", "image", ""));
        assert_eq!(job.args, core::slice::from_ref(&entry));

        expect(with_id(&[2], 1), [&[0], &entries[..]].concat());
        assert_eq!(tree(&id(1)), Ok(vec![entry.clone()]));
        expect([&[5], &entries[..]].concat(), with_id(&[0], 3));
        assert_eq!(put_tree(&[entry]), Ok(ObjectRef { kind: Kind::Tree, id: id(3) }));

        expect(with_id(&[3], 4), b"\0bytes");
        assert_eq!(get(&id(4)), Ok(b"bytes".to_vec()));
        expect(with_id(&[11], 4), b"\0\x05\0\0\0\x01\0\0\0");
        assert_eq!(size(&id(4)), Ok((1 << 32) + 5));
        let range = b"\x02\0\0\0\0\0\0\x01\x03\0\0\0\0\0\0\0";
        expect([&with_id(&[12], 4)[..], range].concat(), b"\0tes");
        assert_eq!(get_range(&id(4), (1 << 56) + 2, 3), Ok(b"tes".to_vec()));
        expect(b"\x04bytes", with_id(&[0], 4));
        assert_eq!(put_blob(b"bytes"), Ok(ObjectRef { kind: Kind::Blob, id: id(4) }));
        expect([&with_id(&[6], 1)[..], image].concat(), with_id(&[0, 1], 5));
        assert_eq!(run("image", &id(1)), Ok(ObjectRef { kind: Kind::Tree, id: id(5) }));
        expect(with_id(&[8, 0], 6), [0]);
        assert_eq!(out(&ObjectRef { kind: Kind::Blob, id: id(6) }), Ok(()));
        expect(b"\x0ebytes", [0]);
        assert_eq!(out_blob(b"bytes"), Ok(()));
        expect(b"\x09a line", [0]);
        log("a line");
        expect(b"\x0athe end", [0]);
        fail("the end");
    }

    #[test]
    fn run_many_returns_failures_in_order() {
        let call = [&with_id(&[], 1)[..], b"\x01\0\0\0x"].concat();
        let failure = b"\x01\x04\0\0\0oops\x05\0\0\0limit\x02\0\0\0\x04\0\0\0oops\x03\0\0\0far";
        let oops =
            || Error::from_host("oops".into(), ErrorKind::Limit, vec!["oops".into(), "far".into()]);
        let response = [&b"\0\x02\0\0\0"[..], failure, &with_id(&[0, 0], 2)].concat();
        expect([&[7, 2, 0, 0, 0], &call[..], &call].concat(), response);
        let blob = ObjectRef { kind: Kind::Blob, id: id(2) };
        assert_eq!(run_many([("x", &id(1)), ("x", &id(1))]), Ok(vec![Err(oops()), Ok(blob)]));
        expect([7, 0, 0, 0, 0], [0, 0, 0, 0, 0]);
        assert_eq!(run_many([]), Ok(vec![]));
        expect([4], failure);
        assert_eq!(put_blob(b""), Err(oops()));
    }

    #[test]
    fn a_malformed_response_is_an_error() {
        for response in
            [&[][..], &[0], &[0, 20, 1], &[0, 33], &[1, 255, 255, 255, 255], &[1, 1, 0, 0, 0, 0xff]]
        {
            expect([4], response);
            assert_eq!(put_blob(b""), Err(malformed()), "{response:?}");
        }
        expect(with_id(&[11], 4), b"\0\x05\0\0\0");
        assert_eq!(size(&id(4)), Err(malformed()));
    }
}
