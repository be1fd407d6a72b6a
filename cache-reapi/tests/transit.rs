//! A server with compression, TLS, client certificates and tokens.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::bytestream as stream;
use bazel_remote_apis::google::bytestream::byte_stream_server::{ByteStream, ByteStreamServer};
use futures_util::stream::{BoxStream, Empty, StreamExt as _};
use manifold_cache_reapi::{CacheError, CacheOptions, SharedCache};
use manifold_dispatcher::{MemoryStore, Store};
use manifold_runtime_api::{Object, ObjectId, ObjectRef};
use manifold_testing::certificates::Certificates;
use parking_lot::Mutex;
use reapi::action_cache_server::{ActionCache, ActionCacheServer};
use reapi::capabilities_server::{Capabilities, CapabilitiesServer};
use reapi::content_addressable_storage_server::{
    ContentAddressableStorage, ContentAddressableStorageServer,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};

const ZSTD: i32 = reapi::compressor::Value::Zstd as i32;

/// A server that keeps blobs as they come, so that a test sees how they travelled.
#[derive(Clone, Default)]
struct Server {
    content: Arc<Mutex<Content>>,
    /// Whether it says that it takes compressed blobs.
    compresses: bool,
}

#[derive(Default)]
struct Content {
    results: HashMap<String, reapi::ActionResult>,
    /// By the hash of the decompressed content: the compressor, and what came.
    blobs: HashMap<String, (i32, Vec<u8>)>,
    /// How many bytes came in batches and in streams.
    in_batches: usize,
    in_streams: usize,
    /// How many blobs were read.
    reads: usize,
    /// How many calls there were.
    calls: usize,
}

type Answer<T> = Result<Response<T>, Status>;

fn hash(digest: Option<reapi::Digest>) -> String {
    digest.unwrap().hash
}

#[tonic::async_trait]
impl Capabilities for Server {
    async fn get_capabilities(
        &self,
        _: Request<reapi::GetCapabilitiesRequest>,
    ) -> Answer<reapi::ServerCapabilities> {
        let compressors: Vec<_> = self.compresses.then_some(ZSTD).into_iter().collect();
        let cache = reapi::CacheCapabilities {
            digest_functions: vec![reapi::digest_function::Value::Sha256 as i32],
            action_cache_update_capabilities: Some(reapi::ActionCacheUpdateCapabilities {
                update_enabled: true,
            }),
            supported_compressors: compressors.clone(),
            supported_batch_update_compressors: compressors,
            ..reapi::CacheCapabilities::default()
        };
        Ok(Response::new(reapi::ServerCapabilities {
            cache_capabilities: Some(cache),
            ..reapi::ServerCapabilities::default()
        }))
    }
}

#[tonic::async_trait]
impl ActionCache for Server {
    async fn get_action_result(
        &self,
        request: Request<reapi::GetActionResultRequest>,
    ) -> Answer<reapi::ActionResult> {
        let hash = hash(request.into_inner().action_digest);
        let result = self.content.lock().results.get(&hash).cloned();
        result.map(Response::new).ok_or_else(|| Status::not_found("no result"))
    }

    async fn update_action_result(
        &self,
        request: Request<reapi::UpdateActionResultRequest>,
    ) -> Answer<reapi::ActionResult> {
        let request = request.into_inner();
        let result = request.action_result.unwrap();
        self.content.lock().results.insert(hash(request.action_digest), result.clone());
        Ok(Response::new(result))
    }
}

#[tonic::async_trait]
impl ContentAddressableStorage for Server {
    type GetTreeStream = Empty<Result<reapi::GetTreeResponse, Status>>;
    type GetChunkMappingStream = Empty<Result<reapi::GetChunkMappingResponse, Status>>;

    async fn find_missing_blobs(
        &self,
        request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Answer<reapi::FindMissingBlobsResponse> {
        let content = self.content.lock();
        let digests = request.into_inner().blob_digests.into_iter();
        let missing = digests.filter(|digest| !content.blobs.contains_key(&digest.hash));
        let missing_blob_digests = missing.collect();
        Ok(Response::new(reapi::FindMissingBlobsResponse { missing_blob_digests }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Answer<reapi::BatchUpdateBlobsResponse> {
        let mut content = self.content.lock();
        for blob in request.into_inner().requests {
            content.in_batches += blob.data.len();
            content.blobs.insert(hash(blob.digest), (blob.compressor, blob.data));
        }
        Ok(Response::new(reapi::BatchUpdateBlobsResponse::default()))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Answer<reapi::BatchReadBlobsResponse> {
        let request = request.into_inner();
        let mut content = self.content.lock();
        content.reads += request.digests.len();
        let responses = request.digests.into_iter().map(|digest| {
            let (compressor, data) = content.blobs[&digest.hash].clone();
            assert!(compressor == 0 || request.acceptable_compressors.contains(&compressor));
            reapi::batch_read_blobs_response::Response {
                digest: Some(digest),
                data,
                compressor,
                status: None,
            }
        });
        Ok(Response::new(reapi::BatchReadBlobsResponse { responses: responses.collect() }))
    }

    async fn get_tree(&self, _: Request<reapi::GetTreeRequest>) -> Answer<Self::GetTreeStream> {
        Err(Status::unimplemented(""))
    }

    async fn split_blob(
        &self,
        _: Request<reapi::SplitBlobRequest>,
    ) -> Answer<reapi::SplitBlobResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_chunk_mapping(
        &self,
        _: Request<reapi::GetChunkMappingRequest>,
    ) -> Answer<Self::GetChunkMappingStream> {
        Err(Status::unimplemented(""))
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<reapi::RegisterChunkMappingRequest>>,
    ) -> Answer<reapi::RegisterChunkMappingResponse> {
        Err(Status::unimplemented(""))
    }

    async fn splice_blob(
        &self,
        _: Request<reapi::SpliceBlobRequest>,
    ) -> Answer<reapi::SpliceBlobResponse> {
        Err(Status::unimplemented(""))
    }
}

/// Returns the hash in the name of a resource, and whether it is for compressed content.
fn resource(name: &str) -> (String, bool) {
    let hash = name.split('/').rev().nth(1).unwrap().to_owned();
    (hash, name.contains("compressed-blobs/zstd/"))
}

#[tonic::async_trait]
impl ByteStream for Server {
    type ReadStream = BoxStream<'static, Result<stream::ReadResponse, Status>>;

    async fn read(&self, request: Request<stream::ReadRequest>) -> Answer<Self::ReadStream> {
        let (hash, is_compressed) = resource(&request.into_inner().resource_name);
        let (compressor, data) = self.content.lock().blobs[&hash].clone();
        assert_eq!(compressor == ZSTD, is_compressed);
        let pieces: Vec<_> = data.chunks(100_000).map(<[u8]>::to_vec).collect();
        let pieces = pieces.into_iter().map(|data| Ok(stream::ReadResponse { data }));
        Ok(Response::new(futures_util::stream::iter(pieces).boxed()))
    }

    async fn write(
        &self,
        request: Request<Streaming<stream::WriteRequest>>,
    ) -> Answer<stream::WriteResponse> {
        let (mut pieces, mut name, mut data) = (request.into_inner(), String::new(), Vec::new());
        while let Some(piece) = pieces.message().await? {
            if !piece.resource_name.is_empty() {
                name = piece.resource_name;
            }
            assert_eq!(piece.write_offset, data.len() as i64);
            data.extend(piece.data);
        }
        let ((hash, is_compressed), committed_size) = (resource(&name), data.len() as i64);
        let mut content = self.content.lock();
        content.in_streams += data.len();
        content.blobs.insert(hash, (if is_compressed { ZSTD } else { 0 }, data));
        Ok(Response::new(stream::WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        _: Request<stream::QueryWriteStatusRequest>,
    ) -> Answer<stream::QueryWriteStatusResponse> {
        Err(Status::unimplemented(""))
    }
}

const TOKEN: &str = "Bearer a secret";

/// Starts a server. With `certificates`, it is reached through TLS, and wants a certificate of its
/// clients and a token.
async fn start(server: Server, certificates: Option<&Certificates>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut builder = tonic::transport::Server::builder();
    if let Some(certificates) = certificates {
        let read = |name| fs::read(certificates.file(name)).unwrap();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(read("server.pem"), read("server.key")))
            .client_ca_root(Certificate::from_pem(read("authority.pem")));
        builder = builder.tls_config(tls).unwrap();
    }
    let is_secure = certificates.is_some();
    let content = Arc::clone(&server.content);
    let check = move |request: Request<()>| {
        content.lock().calls += 1;
        let token = request.metadata().get("authorization");
        if is_secure && token.is_none_or(|token| token != TOKEN) {
            return Err(Status::unauthenticated("the token is wrong"));
        }
        Ok(request)
    };
    let services = builder
        .layer(tonic::service::InterceptorLayer::new(check))
        .add_service(CapabilitiesServer::new(server.clone()))
        .add_service(ActionCacheServer::new(server.clone()))
        .add_service(ByteStreamServer::new(server.clone()))
        .add_service(ContentAddressableStorageServer::new(server));
    tokio::spawn(services.serve_with_incoming(TcpListenerStream::new(listener)));
    format!("{}://localhost:{port}", if is_secure { "grpcs" } else { "grpc" })
}

fn request() -> ObjectId {
    ObjectId::empty_tree()
}

#[tokio::test]
async fn packs_that_were_sent_or_fetched_are_not_fetched_again() {
    let (server, place) = (Server::default(), tempfile::TempDir::new().unwrap());
    let address = start(server.clone(), None).await;
    let packs_in = |directory: &str| {
        let options = CacheOptions::new(address.parse().unwrap());
        options.packs_in(place.path().join(directory))
    };
    let cache = SharedCache::connect(&packs_in("one")).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let outcome = ObjectRef::blob(store.write(Object::blob("outcome")).unwrap());
    let packs = cache.publish_entries(vec![(request(), outcome)], &store).await.unwrap();
    cache.publish_ref("main", &packs).await.unwrap();
    for (directory, reads) in [("one", 0), ("two", 1), ("two", 1)] {
        let cache = SharedCache::connect(&packs_in(directory)).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let seed = cache.fetch_ref("main", &store).await.unwrap().unwrap();
        assert_eq!((seed.new_entries, server.content.lock().reads), (1, reads), "{directory}");
        assert_eq!(store.look_up(request()).unwrap(), Some(outcome));
    }
}

/// What the server can do, the result, and its pack.
#[tokio::test]
async fn a_hit_takes_three_round_trips() {
    let server = Server::default();
    let address = start(server.clone(), None).await;
    let outcome = publish(&connect(&address).await, 10).await;
    server.content.lock().calls = 0;
    assert_eq!(fetch(&connect(&address).await).await.unwrap(), Some(outcome));
    assert_eq!(server.content.lock().calls, 3);
}

/// Publishes an outcome of so many lines that are much alike, and returns it.
async fn publish(cache: &SharedCache, lines: usize) -> ObjectRef {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let text: String = (0..lines).map(|line| format!("line {line} of a long outcome\n")).collect();
    let outcome = ObjectRef::blob(store.write(Object::blob(text)).unwrap());
    cache.publish(request(), outcome, &store).await.unwrap();
    outcome
}

async fn fetch(cache: &SharedCache) -> Result<Option<ObjectRef>, CacheError> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    cache.fetch(request(), &store).await
}

async fn connect(address: &str) -> SharedCache {
    SharedCache::connect(&CacheOptions::new(address.parse().unwrap())).await.unwrap()
}

#[tokio::test]
async fn blobs_travel_compressed_if_the_server_takes_that() {
    // The second one is larger than a message.
    for (lines, bytes) in [(10_000, 270_000), (400_000, 11_000_000)] {
        let server = Server { compresses: true, ..Server::default() };
        let cache = connect(&start(server.clone(), None).await).await;
        let outcome = publish(&cache, lines).await;
        let (pack, travelled) = {
            let content = server.content.lock();
            let result = content.results.values().next().unwrap().clone();
            (
                result.output_files[0].digest.clone().unwrap(),
                content.in_batches + content.in_streams,
            )
        };
        assert!(pack.size_bytes > bytes, "the pack is not compressed: {pack:?}");
        assert!((travelled as i64) < pack.size_bytes / 4, "{travelled} bytes of {pack:?}");
        assert_eq!(fetch(&cache).await.unwrap(), Some(outcome));

        // The pack is compressed if nothing else is.
        let server = Server::default();
        let cache = connect(&start(server.clone(), None).await).await;
        let outcome = publish(&cache, lines).await;
        {
            let content = server.content.lock();
            assert!(((content.in_batches + content.in_streams) as i64) < bytes / 2);
            assert!(content.blobs.values().all(|(compressor, _)| *compressor == 0));
        }
        assert_eq!(fetch(&cache).await.unwrap(), Some(outcome));
    }
}

#[tokio::test]
async fn damaged_compressed_blobs_are_refused_with_their_names() {
    for lines in [10_000, 400_000] {
        let server = Server { compresses: true, ..Server::default() };
        let cache = connect(&start(server.clone(), None).await).await;
        publish(&cache, lines).await;
        let set = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut content = server.content.lock();
            let blobs = content.blobs.values_mut().filter(|(compressor, _)| *compressor == ZSTD);
            blobs.for_each(|(_, blob)| change(blob));
        };
        set(&|blob| blob.truncate(blob.len() / 2));
        let error = fetch(&cache).await.unwrap_err();
        assert!(matches!(error, CacheError::BadTransit { .. }), "{error}");
        let pack = server.content.lock().results.values().next().unwrap().output_files[0].clone();
        assert!(error.to_string().contains(&hash(pack.digest)), "{error}");
        // Much more than the blob should have.
        let bomb = zstd::bulk::compress(&vec![0; 100 << 20], 1).unwrap();
        set(&|blob| blob.clone_from(&bomb));
        let error = fetch(&cache).await.unwrap_err();
        assert!(matches!(error, CacheError::WrongContent { .. }), "{error}");
    }
}

#[tokio::test]
async fn clients_show_their_certificate_and_token() {
    let certificates = Certificates::new();
    let address = start(Server::default(), Some(&certificates)).await;
    let options = || CacheOptions::new(address.parse().unwrap());
    let file = |name| certificates.file(name);
    let trusting = || options().trusting(file("authority.pem"));
    let known = || trusting().identity(file("client.pem"), file("client.key"));
    let right = known().header("Authorization", TOKEN).unwrap();
    let cache = SharedCache::connect(&right).await.unwrap();
    let outcome = publish(&cache, 10).await;
    assert_eq!(fetch(&cache).await.unwrap(), Some(outcome));

    for wrong in [known(), known().header("authorization", "Bearer a guess").unwrap()] {
        let error = SharedCache::connect(&wrong).await.unwrap_err();
        let is_refused = matches!(error, CacheError::Refused { code: Code::Unauthenticated, .. });
        assert!(is_refused, "{error}");
        assert!(!error.in_a_line().contains("guess"), "{error}");
    }
    // The server's authority is not trusted, and then the client is unknown.
    for wrong in [options(), trusting()] {
        let error = SharedCache::connect(&wrong.header("authorization", TOKEN).unwrap()).await;
        let error = error.unwrap_err().in_a_line();
        assert!(error.contains(&address) && !error.contains("secret"), "{error}");
    }
    let missing = trusting().identity(file("none.pem"), file("client.key"));
    let error = SharedCache::connect(&missing).await.unwrap_err();
    assert!(matches!(error, CacheError::Credentials { .. }), "{error}");
    let swapped = trusting().identity(file("client.key"), file("client.pem"));
    let error = SharedCache::connect(&swapped).await.unwrap_err().in_a_line();
    assert!(error.contains(&address), "{error}");
}
