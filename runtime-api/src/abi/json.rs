//! The JSON encoding, `caos_abi_v1`. The parent module documents its fields.

use std::borrow::Cow;
use std::str::FromStr;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bstr::{BString, ByteSlice};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::operation::{Answer, DecodeError, Operation};
use crate::entry_mode::EntryMode;
use crate::error::{Error, Result};
use crate::host::Call;
use crate::image::Code;
use crate::object::{ObjectId, ObjectKind, ObjectRef};
use crate::runtime::Job;
use crate::tree::{Tree, TreeEntry};

/// Base64 that is written with padding and read with or without it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The fields of all requests. One flat struct is parsed in a single pass, unlike an enum tagged by
/// `op`.
#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow)]
    hash: Option<Cow<'a, str>>,
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    bytes_b64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    image: Option<Cow<'a, str>>,
    #[serde(borrow)]
    args: Option<Cow<'a, str>>,
    offset: Option<u64>,
    length: Option<u64>,
    msg: Option<String>,
    message: Option<String>,
    #[serde(borrow)]
    entries: Option<Vec<RequestEntry<'a>>>,
    #[serde(borrow)]
    reqs: Option<Vec<RequestCall<'a>>>,
}

#[derive(Deserialize)]
struct RequestEntry<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name_b64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    hash: Cow<'a, str>,
    #[serde(borrow)]
    mode: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct RequestCall<'a> {
    #[serde(borrow)]
    image: Cow<'a, str>,
    #[serde(borrow)]
    args: Cow<'a, str>,
}

pub(super) fn decode(request: &[u8]) -> Result<Operation, DecodeError> {
    let request: Request<'_> = serde_json::from_slice(request).map_err(|error| {
        DecodeError::Malformed(format!("expected a JSON object with a field `op`: {error}"))
    })?;
    let op = request.op.clone();
    operation(request)
        .map_err(|problem| DecodeError::Field(format!("operation {:?}: {problem}", truncate(&op))))
}

fn operation(request: Request<'_>) -> Result<Operation, String> {
    let hash = || parse_id("hash", request.hash.as_deref());
    Ok(match &*request.op {
        "job" => Operation::Job,
        "job_with_args" => Operation::JobWithArgs,
        "tree" => Operation::Tree(hash()?),
        "get" => Operation::Get(hash()?),
        "get_range" => Operation::GetRange {
            id: hash()?,
            offset: required("offset", request.offset)?,
            length: required("length", request.length)?,
        },
        "size" => Operation::Size(hash()?),
        "put_blob" => Operation::PutBlob(content(request.bytes_b64)?),
        "out_blob" => Operation::OutBlob(content(request.bytes_b64)?),
        "put_tree" => {
            let entries = required("entries", request.entries)?;
            Operation::PutTree(entries.into_iter().map(tree_entry).collect::<Result<_, _>>()?)
        }
        "run" => Operation::Run(call(RequestCall {
            image: required("image", request.image)?,
            args: required("args", request.args)?,
        })?),
        "run_many" => {
            let calls = required("reqs", request.reqs)?;
            Operation::RunMany(calls.into_iter().map(call).collect::<Result<_, _>>()?)
        }
        "out" => {
            let kind = parse_kind(required("kind", request.kind.as_deref())?)?;
            Operation::Out(ObjectRef { kind, id: hash()? })
        }
        "log" => Operation::Log(required("msg", request.msg)?),
        "fail" => Operation::Fail(required("message", request.message)?),
        _ => return Err("no such operation".to_owned()),
    })
}

fn required<T>(field: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| format!("the field `{field}` is missing"))
}

fn parse_id(field: &str, text: Option<&str>) -> Result<ObjectId, String> {
    ObjectId::from_str(required(field, text)?)
        .map_err(|error| format!("the field `{field}`: {error}"))
}

fn parse_base64(field: &str, text: Cow<'_, str>) -> Result<Vec<u8>, String> {
    BASE64
        .decode(text.as_bytes())
        .map_err(|error| format!("the field `{field}` is not valid base64: {error}"))
}

fn content(bytes_b64: Option<Cow<'_, str>>) -> Result<Bytes, String> {
    Ok(parse_base64("bytes_b64", required("bytes_b64", bytes_b64)?)?.into())
}

fn parse_kind(text: &str) -> Result<ObjectKind, String> {
    match text {
        "blob" => Ok(ObjectKind::Blob),
        "tree" => Ok(ObjectKind::Tree),
        other => {
            Err(format!("the field `kind` is {:?}, expected \"blob\" or \"tree\"", truncate(other)))
        }
    }
}

fn call(call: RequestCall<'_>) -> Result<Call, String> {
    Ok(Call { args: parse_id("args", Some(&call.args))?, image: call.image.into_owned() })
}

fn tree_entry(entry: RequestEntry<'_>) -> Result<TreeEntry, String> {
    let name: BString = match entry.name_b64 {
        Some(name) => parse_base64("name_b64", name)?.into(),
        None => required("name", entry.name)?.into_owned().into(),
    };
    let mode = match (entry.mode.as_deref(), entry.kind.as_deref()) {
        (Some(mode), _) => EntryMode::parse(mode).ok_or_else(|| {
            format!(
                "the field `mode` is {:?}, expected 40000, 100644, 100755, 120000 or 160000",
                truncate(mode)
            )
        })?,
        (None, Some("commit")) => EntryMode::Commit,
        (None, Some(kind)) => EntryMode::plain(parse_kind(kind)?),
        (None, None) => return Err(format!("the entry {name:?} has neither `mode` nor `kind`")),
    };
    Ok(TreeEntry { name, mode, id: parse_id("hash", Some(&entry.hash))? })
}

fn truncate(text: &str) -> &str {
    &text[..text.floor_char_boundary(80)]
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct JobResponse<'a> {
    args: String,
    std: String,
    salt: &'a str,
    image: &'a str,
    stack: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<Vec<EntryResponse<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<OutcomeResponse>,
}

#[derive(Serialize)]
struct TreeResponse<'a> {
    entries: Vec<EntryResponse<'a>>,
}

#[derive(Serialize)]
struct EntryResponse<'a> {
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_b64: Option<String>,
    kind: &'static str,
    hash: String,
    mode: &'static str,
}

#[derive(Serialize)]
struct BytesResponse {
    bytes_b64: String,
}

#[derive(Serialize)]
struct SizeResponse {
    size: u64,
}

#[derive(Serialize)]
struct HashResponse {
    hash: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum OutcomeResponse {
    Success { kind: &'static str, hash: String },
    Failure(Failure),
}

#[derive(Serialize)]
struct OutcomesResponse {
    results: Vec<OutcomeResponse>,
}

pub(super) fn encode(job: &Job, result: Result<&Answer, &Error>) -> Vec<u8> {
    match result {
        Err(error) => to_json(&Failure::from(error)),
        Ok(Answer::Job) => to_json(&job_response(job, None)),
        Ok(Answer::JobWithArgs(args)) => to_json(&job_response(job, Some(args))),
        Ok(Answer::Tree(tree)) => to_json(&TreeResponse { entries: entries_response(tree) }),
        Ok(Answer::Blob(content)) => to_json(&BytesResponse { bytes_b64: BASE64.encode(content) }),
        Ok(Answer::Size(size)) => to_json(&SizeResponse { size: *size }),
        Ok(Answer::Stored(id)) => to_json(&HashResponse { hash: id.to_string() }),
        Ok(Answer::Outcome(outcome)) => to_json(&outcome_response(Ok(outcome))),
        Ok(Answer::Outcomes(results)) => to_json(&OutcomesResponse {
            results: results.iter().map(|r| outcome_response(r.as_ref())).collect(),
        }),
        Ok(Answer::Done) => to_json(&Empty {}),
    }
}

/// Serializing these structs cannot fail. If it did, the guest would receive an empty object.
fn to_json(response: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(response).unwrap_or_else(|_| b"{}".to_vec())
}

fn job_response<'a>(job: &'a Job, args: Option<&'a Tree>) -> JobResponse<'a> {
    JobResponse {
        args: job.args.to_string(),
        std: job.std.map(|id| id.to_string()).unwrap_or_default(),
        salt: &job.salt,
        image: &job.image,
        stack: "",
        entries: args.map(entries_response),
        module: match &job.code {
            Code::Hosted { module, .. } => Some(outcome_response(Ok(module))),
            Code::Module(_) | Code::Container(_) => None,
        },
    }
}

fn entries_response(tree: &Tree) -> Vec<EntryResponse<'_>> {
    tree.entries().iter().map(entry_response).collect()
}

fn entry_response(entry: &TreeEntry) -> EntryResponse<'_> {
    let (name, name_b64) = match entry.name.to_str() {
        Ok(name) => (Cow::Borrowed(name), None),
        Err(_) => {
            (Cow::Owned(entry.name.escape_bytes().to_string()), Some(BASE64.encode(&entry.name)))
        }
    };
    EntryResponse {
        name,
        name_b64,
        kind: entry.mode.kind_str(),
        hash: entry.id.to_string(),
        mode: entry.mode.as_str(),
    }
}

fn outcome_response(result: Result<&ObjectRef, &Error>) -> OutcomeResponse {
    match result {
        Ok(outcome) => {
            OutcomeResponse::Success { kind: outcome.kind.as_str(), hash: outcome.id.to_string() }
        }
        Err(error) => OutcomeResponse::Failure(error.into()),
    }
}
