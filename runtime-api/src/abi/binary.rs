//! The binary encoding, `caos_abi_v2`. The parent module documents its format.

use bytes::Bytes;

use super::failure::Failure;
use super::operation::{Answer, DecodeError, Operation};
use crate::entry_mode::EntryMode;
use crate::error::{Error, Result};
use crate::host::Call;
use crate::image::Code;
use crate::object::{ObjectId, ObjectKind, ObjectRef};
use crate::runtime::Job;
use crate::tree::{Tree, TreeEntry};

/// The minimum size of an encoded entry or call, in bytes: the length of an id and the length of a
/// text.
const MIN_ITEM_BYTES: usize = 1 + 4;

pub(super) fn decode(request: &[u8]) -> Result<Operation, DecodeError> {
    let mut reader = Reader(request);
    let operation = match reader.byte()? {
        1 => Operation::Job,
        2 => Operation::Tree(reader.id()?),
        3 => Operation::Get(reader.id()?),
        4 => Operation::PutBlob(Bytes::copy_from_slice(reader.rest())),
        5 => Operation::PutTree(reader.items(Reader::entry)?),
        6 => Operation::Run(reader.call()?),
        7 => Operation::RunMany(reader.items(Reader::call)?),
        8 => Operation::Out(ObjectRef { kind: reader.kind()?, id: reader.id()? }),
        9 => Operation::Log(utf8(reader.rest())?),
        10 => Operation::Fail(utf8(reader.rest())?),
        11 => Operation::Size(reader.id()?),
        12 => Operation::GetRange {
            id: reader.id()?,
            offset: reader.number()?,
            length: reader.number()?,
        },
        13 => Operation::JobWithArgs,
        14 => Operation::OutBlob(Bytes::copy_from_slice(reader.rest())),
        other => return Err(DecodeError::Field(format!("unknown operation {other}"))),
    };
    match reader.0.len() {
        0 => Ok(operation),
        more => Err(DecodeError::Malformed(format!("{more} bytes follow the end of the request"))),
    }
}

/// The part of a request that has not been read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(|| {
            DecodeError::Malformed(format!(
                "the request ends early: expected {length} more bytes, found {}",
                self.0.len()
            ))
        })?;
        self.0 = rest;
        Ok(bytes)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.bytes(1)?[0])
    }

    fn length(&mut self) -> Result<usize, DecodeError> {
        let mut length = [0; 4];
        length.copy_from_slice(self.bytes(4)?);
        Ok(u32::from_le_bytes(length) as usize)
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = [0; 8];
        number.copy_from_slice(self.bytes(8)?);
        Ok(u64::from_le_bytes(number))
    }

    fn text(&mut self) -> Result<String, DecodeError> {
        let length = self.length()?;
        utf8(self.bytes(length)?)
    }

    fn id(&mut self) -> Result<ObjectId, DecodeError> {
        let length = usize::from(self.byte()?);
        ObjectId::from_bytes(self.bytes(length)?)
            .map_err(|error| DecodeError::Field(error.to_string()))
    }

    fn kind(&mut self) -> Result<ObjectKind, DecodeError> {
        match self.byte()? {
            0 => Ok(ObjectKind::Blob),
            1 => Ok(ObjectKind::Tree),
            other => Err(DecodeError::Field(format!(
                "unknown object kind {other}: expected 0 (blob) or 1 (tree)"
            ))),
        }
    }

    fn entry(&mut self) -> Result<TreeEntry, DecodeError> {
        let mode = self.byte()?;
        let mode = EntryMode::ALL
            .get(usize::from(mode))
            .ok_or_else(|| DecodeError::Field(format!("unknown mode {mode}: expected 0 to 4")))?;
        let id = self.id()?;
        let length = self.length()?;
        Ok(TreeEntry::new(self.bytes(length)?, *mode, id))
    }

    fn call(&mut self) -> Result<Call, DecodeError> {
        Ok(Call { args: self.id()?, image: self.text()? })
    }

    fn items<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.length()?;
        // The guest chooses `count`, so capacity is reserved only for items that fit in the
        // request.
        let mut items = Vec::with_capacity(count.min(self.0.len() / MIN_ITEM_BYTES));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
}

fn utf8(bytes: &[u8]) -> Result<String, DecodeError> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| DecodeError::Field("a text is not UTF-8".to_owned()))
}

const SUCCESS: u8 = 0;
const FAILURE: u8 = 1;

pub(super) fn encode(job: &Job, result: Result<&Answer, &Error>) -> Vec<u8> {
    let mut body = Vec::with_capacity(64.max(1 + result.map_or(0, size_of_lists)));
    match result {
        Err(error) => push_failure(&mut body, error),
        Ok(answer) => {
            body.push(SUCCESS);
            push_answer(&mut body, job, answer);
        }
    }
    body
}

/// Returns the size of what makes an encoded answer long, in bytes.
fn size_of_lists(answer: &Answer) -> usize {
    const LENGTH: usize = 4;
    const ID: usize = 1 + 20;
    match answer {
        Answer::Tree(tree) | Answer::JobWithArgs(tree) => {
            let entries = tree.entries().iter();
            LENGTH + entries.map(|entry| 1 + ID + LENGTH + entry.name.len()).sum::<usize>()
        }
        Answer::Outcomes(results) => LENGTH + results.len() * (1 + 1 + ID),
        Answer::Blob(content) => content.len(),
        _ => 0,
    }
}

fn push_answer(body: &mut Vec<u8>, job: &Job, answer: &Answer) {
    match answer {
        Answer::Job => {
            push_request(body, job);
            push_module(body, job);
        }
        Answer::JobWithArgs(args) => {
            push_request(body, job);
            push_entries(body, args);
            push_module(body, job);
        }
        Answer::Tree(tree) => push_entries(body, tree),
        Answer::Blob(content) => body.extend_from_slice(content),
        Answer::Size(bytes) => body.extend_from_slice(&bytes.to_le_bytes()),
        Answer::Stored(id) => push_id(body, Some(*id)),
        Answer::Outcome(outcome) => push_outcome(body, *outcome),
        Answer::Outcomes(results) => {
            push_length(body, results.len());
            for result in results {
                match result {
                    Ok(outcome) => {
                        body.push(SUCCESS);
                        push_outcome(body, *outcome);
                    }
                    Err(error) => push_failure(body, error),
                }
            }
        }
        Answer::Done => {}
    }
}

fn push_request(body: &mut Vec<u8>, job: &Job) {
    push_id(body, Some(job.args));
    push_id(body, job.std);
    push_text(body, job.image.as_bytes());
    push_text(body, job.salt.as_bytes());
}

/// Appends the module of a job for a container that is a host.
fn push_module(body: &mut Vec<u8>, job: &Job) {
    if let Code::Hosted { module, .. } = &job.code {
        push_outcome(body, *module);
    }
}

fn push_entries(body: &mut Vec<u8>, tree: &Tree) {
    push_length(body, tree.len());
    for entry in tree.entries() {
        body.push(entry.mode.position());
        push_id(body, Some(entry.id));
        push_text(body, &entry.name);
    }
}

fn push_length(body: &mut Vec<u8>, length: usize) {
    // A greater length exceeds every limit on the size of a response.
    body.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn push_text(body: &mut Vec<u8>, text: &[u8]) {
    push_length(body, text.len());
    body.extend_from_slice(text);
}

fn push_id(body: &mut Vec<u8>, id: Option<ObjectId>) {
    let id = id.as_ref().map_or(&[][..], ObjectId::as_bytes);
    body.push(id.len() as u8);
    body.extend_from_slice(id);
}

fn push_outcome(body: &mut Vec<u8>, outcome: ObjectRef) {
    body.push(match outcome.kind {
        ObjectKind::Blob => 0,
        ObjectKind::Tree => 1,
    });
    push_id(body, Some(outcome.id));
}

fn push_failure(body: &mut Vec<u8>, error: &Error) {
    let Failure { error, kind, chain } = Failure::from(error);
    body.push(FAILURE);
    push_text(body, error.as_bytes());
    push_text(body, kind.as_bytes());
    push_length(body, chain.len());
    for line in chain {
        push_text(body, line.as_bytes());
    }
}
