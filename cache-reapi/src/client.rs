//! [`Client`]: the operations of the Remote Execution API that a cache needs.

use std::collections::HashSet;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::bytestream::byte_stream_client::ByteStreamClient;
use bazel_remote_apis::google::bytestream::{ReadRequest, WriteRequest};
use futures_util::{FutureExt as _, TryStreamExt as _, stream};
use manifold_runtime_api::bytes::Bytes;
use reapi::action_cache_client::ActionCacheClient;
use reapi::capabilities_client::CapabilitiesClient;
use reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::action::Action;
use crate::backend::{Answer, Backend, Key, Value};
use crate::digest::Digest;
use crate::error::chain;
use crate::options::CacheOptions;
use crate::shared::blocking;
use crate::{CacheError, transit};

const SHA256: i32 = reapi::digest_function::Value::Sha256 as i32;
const ZSTD: i32 = reapi::compressor::Value::Zstd as i32;
/// The largest message that is sent or received, in bytes, if the server names no bound.
const BATCH_BYTES: u64 = 4 << 20;
/// What a message may have beside the content of blobs, in bytes.
const OVERHEAD_BYTES: u64 = 64 << 10;
/// What a message has beside the content of one blob, in bytes, at most.
const BESIDE_BYTES: u64 = 128;
/// The length of the pieces in which large blobs are sent, in bytes.
const PIECE_BYTES: usize = 1 << 20;
/// How often an operation is tried.
const TRIES: u32 = 4;
/// How many results are set at once.
const AT_ONCE: usize = 8;
/// The path of the pack in the result of a request.
const OUTCOME: &str = "outcome";

/// A connection to a server, which has what a cache needs.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: InterceptedService<Channel, Headers>,
    address: String,
    instance: String,
    /// The largest number of bytes of blobs in a message.
    batch_bytes: u64,
    /// How long the server may take for an answer.
    answer_within: Duration,
    /// Whether the server accepts results from this client, as far as it says so.
    accepts_results: bool,
    /// Whether the server sends and accepts compressed blobs in streams, and accepts them in batches.
    compresses_streams: bool,
    compresses_batches: bool,
}

/// Adds the user's headers to requests.
#[derive(Debug, Clone)]
struct Headers(MetadataMap);

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for entry in self.0.iter() {
            if let tonic::metadata::KeyAndValueRef::Ascii(key, value) = entry {
                request.metadata_mut().insert(key, value.clone());
            }
        }
        Ok(request)
    }
}

impl Client {
    /// Connects, and asks the server what it can do.
    pub(crate) async fn connect(options: &CacheOptions) -> Result<Self, CacheError> {
        let address = options.address.to_string();
        let unreachable = |error: tonic::transport::Error| CacheError::Unreachable {
            address: address.clone(),
            problem: chain(&error),
        };
        let mut endpoint = Endpoint::from_shared(options.address.uri())
            .map_err(unreachable)?
            .connect_timeout(options.connect_within);
        if options.address.is_secure {
            endpoint = endpoint.tls_config(options.tls()?).map_err(unreachable)?;
        }
        // The bound on establishing a connection does not count the TLS handshake.
        let connecting =
            tokio::time::timeout(options.connect_within.saturating_mul(2), endpoint.connect());
        let channel = match connecting.await {
            Ok(connected) => connected.map_err(unreachable)?,
            Err(_) => {
                let problem =
                    format!("no connection within {:?}", options.connect_within.saturating_mul(2));
                return Err(CacheError::Unreachable { address, problem });
            }
        };
        let channel = InterceptedService::new(channel, Headers(options.headers.clone()));
        let mut client = Self {
            channel,
            address,
            instance: options.address.instance.clone(),
            batch_bytes: BATCH_BYTES - OVERHEAD_BYTES,
            answer_within: options.answer_within,
            accepts_results: false,
            compresses_streams: false,
            compresses_batches: false,
        };
        client.ask_capabilities().await?;
        Ok(client)
    }

    async fn ask_capabilities(&mut self) -> Result<(), CacheError> {
        let request = reapi::GetCapabilitiesRequest { instance_name: self.instance.clone() };
        let answer = self.retried("say what it can do", || {
            let (mut service, request) =
                (CapabilitiesClient::new(self.channel.clone()), request.clone());
            async move { service.get_capabilities(request).await }
        });
        let unsupported = |problem: &str| CacheError::Unsupported {
            address: self.address.clone(),
            problem: problem.to_owned(),
        };
        let capabilities = answer.await?.into_inner().cache_capabilities;
        let capabilities = capabilities.ok_or_else(|| unsupported("is no cache"))?;
        if !capabilities.digest_functions.contains(&SHA256) {
            return Err(unsupported("does not name blobs by SHA-256"));
        }
        if let Ok(bytes @ 1..) = u64::try_from(capabilities.max_batch_total_size_bytes) {
            self.batch_bytes = bytes.min(BATCH_BYTES).saturating_sub(OVERHEAD_BYTES).max(1);
        }
        self.compresses_streams = capabilities.supported_compressors.contains(&ZSTD);
        self.compresses_batches = capabilities.supported_batch_update_compressors.contains(&ZSTD);
        self.accepts_results = capabilities
            .action_cache_update_capabilities
            .is_some_and(|updates| updates.update_enabled);
        Ok(())
    }

    async fn result(&self, action: &Digest) -> Result<Option<reapi::ActionResult>, CacheError> {
        let request = reapi::GetActionResultRequest {
            instance_name: self.instance.clone(),
            action_digest: Some(action.to_reapi()),
            digest_function: SHA256,
            ..reapi::GetActionResultRequest::default()
        };
        let answer = self.retried("look up a result", || {
            let (mut service, request) =
                (ActionCacheClient::new(self.channel.clone()), request.clone());
            async move { service.get_action_result(request).await }
        });
        match answer.await {
            Ok(answer) => Ok(Some(answer.into_inner())),
            Err(CacheError::Refused { code: Code::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn set_result(
        &self,
        action: &Digest,
        result: reapi::ActionResult,
    ) -> Result<(), CacheError> {
        let request = reapi::UpdateActionResultRequest {
            instance_name: self.instance.clone(),
            action_digest: Some(action.to_reapi()),
            action_result: Some(result),
            digest_function: SHA256,
            ..reapi::UpdateActionResultRequest::default()
        };
        let answer = self.retried("accept a result", || {
            let (mut service, request) =
                (ActionCacheClient::new(self.channel.clone()), request.clone());
            async move { service.update_action_result(request).await }
        });
        answer.await.map(drop)
    }

    async fn small_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, CacheError> {
        const OPERATION: &str = "send a blob";
        let request = reapi::BatchReadBlobsRequest {
            instance_name: self.instance.clone(),
            digests: vec![digest.to_reapi()],
            digest_function: SHA256,
            acceptable_compressors: self.compresses_streams.then_some(ZSTD).into_iter().collect(),
        };
        let answer = self.retried(OPERATION, || {
            let (mut service, request) = (self.storage(), request.clone());
            async move { service.batch_read_blobs(request).await }
        });
        let Some(response) = answer.await?.into_inner().responses.pop() else { return Ok(None) };
        let status = response.status.unwrap_or_default();
        match Code::from(status.code) {
            Code::Ok if response.compressor == ZSTD => {
                self.decompressed(digest, response.data).await.map(Some)
            }
            Code::Ok => Ok(Some(response.data)),
            code if is_lost(code) => Ok(None),
            code => Err(self.refused(OPERATION, code, &status.message)),
        }
    }

    async fn large_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, CacheError> {
        const OPERATION: &str = "send a large blob";
        let is_compressed = self.compresses_streams;
        let request = ReadRequest {
            resource_name: format!("{}{}/{digest}", self.prefix(), kind_of_blobs(is_compressed)),
            ..ReadRequest::default()
        };
        let length = if is_compressed { transit::bound(digest.length()) } else { digest.length() };
        let read = self.retried_within(self.time_for(length), OPERATION, || {
            let mut service = ByteStreamClient::new(self.channel.clone());
            let request = request.clone();
            async move {
                let mut pieces = service.read(request).await?.into_inner();
                let mut content = Vec::new();
                while let Some(piece) = pieces.message().await? {
                    content.extend_from_slice(&piece.data);
                    // The content is another blob then, which is found out later.
                    if content.len() as u64 > length {
                        break;
                    }
                }
                Ok(content)
            }
        });
        match read.await {
            Ok(content) if is_compressed => self.decompressed(digest, content).await.map(Some),
            Ok(content) => Ok(Some(content)),
            Err(CacheError::Refused { code, .. }) if is_lost(code) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn decompressed(
        &self,
        digest: &Digest,
        compressed: Vec<u8>,
    ) -> Result<Vec<u8>, CacheError> {
        let length = digest.length();
        let content = blocking(move || transit::decompressed(&compressed, length)).await;
        content.map_err(|source| CacheError::BadTransit { digest: digest.clone(), source })
    }

    /// Uploads those of the blobs that the server does not have.
    async fn upload(&self, blobs: Vec<Vec<u8>>) -> Result<(), CacheError> {
        let name = |blob: Vec<u8>| (Digest::of(&blob), blob);
        let blobs = blocking(move || blobs.into_iter().map(name).collect::<Vec<_>>()).await;
        let digests = blobs.iter().map(|(digest, _)| digest).collect::<HashSet<_>>();
        let mut missing = self.missing(digests.into_iter().map(Digest::to_reapi)).await?;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (digest, blob) in blobs {
            if !missing.remove(&digest) {
                continue;
            }
            if digest.length() > self.batch_bytes {
                self.add_large_blob(&digest, blob).await?;
                continue;
            }
            let length = digest.length() + BESIDE_BYTES;
            if bytes + length > self.batch_bytes {
                self.add_small_blobs(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
            bytes += length;
            let (blob, is_compressed) = travelling(blob, self.compresses_batches).await;
            batch.push(reapi::batch_update_blobs_request::Request {
                digest: Some(digest.to_reapi()),
                data: blob,
                compressor: if is_compressed { ZSTD } else { 0 },
            });
        }
        if batch.is_empty() { Ok(()) } else { self.add_small_blobs(batch).await }
    }

    async fn missing(
        &self,
        digests: impl Iterator<Item = reapi::Digest>,
    ) -> Result<HashSet<Digest>, CacheError> {
        let request = reapi::FindMissingBlobsRequest {
            instance_name: self.instance.clone(),
            blob_digests: digests.collect(),
            digest_function: SHA256,
        };
        let answer = self.retried("say which blobs it lacks", || {
            let (mut service, request) = (self.storage(), request.clone());
            async move { service.find_missing_blobs(request).await }
        });
        let missing = answer.await?.into_inner().missing_blob_digests;
        Ok(missing.iter().filter_map(Digest::from_reapi).collect())
    }

    async fn add_small_blobs(
        &self,
        requests: Vec<reapi::batch_update_blobs_request::Request>,
    ) -> Result<(), CacheError> {
        const OPERATION: &str = "accept blobs";
        let request = reapi::BatchUpdateBlobsRequest {
            instance_name: self.instance.clone(),
            requests,
            digest_function: SHA256,
        };
        let answer = self.retried(OPERATION, || {
            let (mut service, request) = (self.storage(), request.clone());
            async move { service.batch_update_blobs(request).await }
        });
        let statuses = answer.await?.into_inner().responses.into_iter();
        let mut statuses = statuses.filter_map(|response| response.status);
        match statuses.find(|status| Code::from(status.code) != Code::Ok) {
            Some(status) => Err(self.refused(OPERATION, Code::from(status.code), &status.message)),
            None => Ok(()),
        }
    }

    async fn add_large_blob(&self, digest: &Digest, blob: Vec<u8>) -> Result<(), CacheError> {
        let (blob, is_compressed) = travelling(blob, self.compresses_streams).await;
        let (blob, kind) = (Bytes::from(blob), kind_of_blobs(is_compressed));
        let time = self.time_for(digest.length());
        let answer = self.retried_within(time, "accept a large blob", || {
            let mut service = ByteStreamClient::new(self.channel.clone());
            // Uploads are told apart by a random number.
            let (high, low) = (fastrand::u64(..), fastrand::u64(..));
            let name = format!("{}uploads/{}/{kind}/{digest}", self.prefix(), uuid(high, low));
            let (blob, count) = (blob.clone(), blob.len().div_ceil(PIECE_BYTES));
            let pieces = (0..count).map(move |number| {
                let start = number * PIECE_BYTES;
                let piece = blob.slice(start..blob.len().min(start + PIECE_BYTES));
                let is_first = number == 0;
                WriteRequest {
                    resource_name: if is_first { name.clone() } else { String::new() },
                    write_offset: (number * PIECE_BYTES) as i64,
                    finish_write: number + 1 == count,
                    data: piece.to_vec(),
                }
            });
            async move { service.write(stream::iter(pieces)).await }
        });
        answer.await.map(drop)
    }

    /// Returns how long it may take to move a blob of this length.
    fn time_for(&self, length: u64) -> Duration {
        const SLOWEST_BYTES_PER_SECOND: u64 = 256 << 10;
        let time = Duration::from_secs(length / SLOWEST_BYTES_PER_SECOND);
        self.answer_within.saturating_add(time)
    }

    fn storage(&self) -> ContentAddressableStorageClient<InterceptedService<Channel, Headers>> {
        let largest = usize::try_from(BATCH_BYTES + OVERHEAD_BYTES).unwrap_or(usize::MAX);
        ContentAddressableStorageClient::new(self.channel.clone())
            .max_decoding_message_size(largest)
    }

    /// Returns how the names of resources begin.
    fn prefix(&self) -> String {
        if self.instance.is_empty() { String::new() } else { format!("{}/", self.instance) }
    }

    fn refused(&self, operation: &'static str, code: Code, message: &str) -> CacheError {
        let (address, message) = (self.address.clone(), message.to_owned());
        CacheError::Refused { address, operation, code, message }
    }

    /// Tries an operation again, after a pause, if the server says that it may succeed later.
    async fn retried<T, F: Future<Output = Result<T, Status>>>(
        &self,
        operation: &'static str,
        attempt: impl Fn() -> F,
    ) -> Result<T, CacheError> {
        self.retried_within(self.answer_within, operation, attempt).await
    }

    /// Like [`Self::retried`], with another bound on the time of an attempt.
    async fn retried_within<T, F: Future<Output = Result<T, Status>>>(
        &self,
        time: Duration,
        operation: &'static str,
        attempt: impl Fn() -> F,
    ) -> Result<T, CacheError> {
        let mut pause = Duration::from_millis(50);
        let mut tries = 0;
        loop {
            tries += 1;
            let status = match tokio::time::timeout(time, attempt()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer within {time:?}")),
            };
            let may_succeed = matches!(
                status.code(),
                Code::Unavailable | Code::ResourceExhausted | Code::Aborted
            );
            if !may_succeed || tries == TRIES {
                let message = if status.message().is_empty() {
                    chain(&status)
                } else {
                    status.message().to_owned()
                };
                return Err(self.refused(operation, status.code(), &message));
            }
            // Clients that failed together do not try again together.
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause *= 4;
        }
    }
}

impl Backend for Client {
    fn address(&self) -> &str {
        &self.address
    }

    fn accepts_results(&self) -> bool {
        self.accepts_results
    }

    fn compresses(&self) -> bool {
        self.compresses_streams && self.compresses_batches
    }

    fn value<'a>(&'a self, key: &'a Key) -> Answer<'a, Option<Value>> {
        let look_up = async move {
            let result = match self.result(&Action::of(key).digest).await {
                Ok(Some(result)) => result,
                Ok(None) => return Ok(None),
                // Such as a result that is too large.
                Err(CacheError::Refused { code, message, .. }) if is_lost(code) => {
                    return Err(CacheError::BadResult { what: key.to_string(), problem: message });
                }
                Err(error) => return Err(error),
            };
            let files = result.output_files.iter();
            let packs = files.map(|file| Digest::from_reapi(file.digest.as_ref()?));
            let packs = packs.collect::<Option<Vec<_>>>().ok_or_else(|| CacheError::BadResult {
                what: key.to_string(),
                problem: "a digest is malformed".to_owned(),
            })?;
            let text = String::from_utf8_lossy(&result.stdout_raw).into_owned();
            Ok(Some(Value { packs, text }))
        };
        look_up.boxed()
    }

    fn set_values(&self, values: Vec<(Key, Value)>) -> Answer<'_, ()> {
        let set = async move {
            let (mut blobs, mut results) = (Vec::new(), Vec::new());
            for (key, value) in values {
                let action = Action::of(&key);
                results.push((action.digest.clone(), result_of(&key, value)));
                blobs.extend(action.blobs());
            }
            self.upload(blobs).await?;
            let setting = results.into_iter().map(Ok);
            let set = |(action, result)| async move { self.set_result(&action, result).await };
            stream::iter(setting).try_for_each_concurrent(AT_ONCE, set).await
        };
        set.boxed()
    }

    fn blob<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<Vec<u8>>> {
        if digest.length() <= self.batch_bytes {
            self.small_blob(digest).boxed()
        } else {
            self.large_blob(digest).boxed()
        }
    }

    fn add_blobs(&self, blobs: Vec<Vec<u8>>) -> Answer<'_, ()> {
        self.upload(blobs).boxed()
    }
}

/// Returns whether a status says that the server has lost or damaged what it was asked for.
fn is_lost(code: Code) -> bool {
    matches!(code, Code::NotFound | Code::DataLoss | Code::InvalidArgument | Code::OutOfRange)
}

/// Returns the result that has the packs of a value as output files.
fn result_of(key: &Key, value: Value) -> reapi::ActionResult {
    let files = value.packs.iter().enumerate().map(|(number, digest)| reapi::OutputFile {
        path: match key {
            Key::Request(_) => OUTCOME.to_owned(),
            Key::Ref(_) => format!("pack-{number:04}"),
        },
        digest: Some(digest.to_reapi()),
        ..reapi::OutputFile::default()
    });
    reapi::ActionResult {
        output_files: files.collect(),
        stdout_raw: value.text.into_bytes(),
        ..reapi::ActionResult::default()
    }
}

/// Returns a blob as it travels, and whether that is compressed, if it may be.
async fn travelling(blob: Vec<u8>, may_be_compressed: bool) -> (Vec<u8>, bool) {
    if !may_be_compressed {
        return (blob, false);
    }
    let compress = move || match transit::compressed(&blob) {
        Some(compressed) => (compressed, true),
        None => (blob, false),
    };
    blocking(compress).await
}

/// Returns a part of the names of resources.
fn kind_of_blobs(is_compressed: bool) -> &'static str {
    if is_compressed { "compressed-blobs/zstd" } else { "blobs" }
}

/// Formats a random number as a version 4 UUID.
fn uuid(high: u64, low: u64) -> String {
    let high = high & !0xf000 | 0x4000;
    let low = low >> 2 | 1 << 63;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}
