//! Servers that answer wrongly, slowly or not at all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::rpc;
use futures_util::stream::Empty;
use manifold_cache_reapi::{CacheError, CacheOptions, Digest, Pack, SharedCache};
use manifold_dispatcher::{MemoryStore, Store};
use manifold_runtime_api::{Object, ObjectId, ObjectKind, ObjectRef};
use reapi::action_cache_server::{ActionCache, ActionCacheServer};
use reapi::capabilities_server::{Capabilities, CapabilitiesServer};
use reapi::content_addressable_storage_server::{
    ContentAddressableStorage, ContentAddressableStorageServer,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

/// What a server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It sends another blob than it is asked for.
    AnotherBlob,
    /// It sends what was asked for, but that is no pack.
    NoPack,
    /// The pack has another request than that which the result belongs to.
    AnotherRequest,
    /// The result has a digest that is none.
    NoDigest,
    /// The pack is larger than any that is taken.
    Huge,
    /// The result names a blob that is gone.
    Evicted,
    /// The result names a blob that is gone, and twice one that is there.
    PartlyEvicted,
    /// It is overloaded the first two times.
    Busy,
    /// It does not answer.
    Silent,
    /// It names blobs by another function than SHA-256.
    OtherDigests,
    /// It has no cache.
    NoCache,
}

/// A server that has a result for each request.
#[derive(Clone)]
struct Server {
    fault: Fault,
    tries: Arc<parking_lot::Mutex<u32>>,
}

fn request() -> ObjectId {
    ObjectId::of(ObjectKind::Tree, b"a request")
}

fn outcome() -> Object {
    Object::blob("an outcome")
}

impl Server {
    /// The blob to which the result of a request refers.
    fn content(&self) -> Vec<u8> {
        if self.fault == Fault::NoPack {
            return b"no pack".to_vec();
        }
        let request =
            if self.fault == Fault::AnotherRequest { ObjectId::empty_tree() } else { request() };
        let mut pack = Pack::default();
        pack.entries.push((request, ObjectRef::blob(outcome().id())));
        pack.objects.insert(outcome().id(), outcome());
        pack.encode()
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Capabilities for Server {
    async fn get_capabilities(
        &self,
        _: Request<reapi::GetCapabilitiesRequest>,
    ) -> Answer<reapi::ServerCapabilities> {
        let function = match self.fault {
            Fault::OtherDigests => reapi::digest_function::Value::Blake3,
            _ => reapi::digest_function::Value::Sha256,
        };
        let cache = reapi::CacheCapabilities {
            digest_functions: vec![function as i32],
            ..reapi::CacheCapabilities::default()
        };
        Ok(Response::new(reapi::ServerCapabilities {
            cache_capabilities: (self.fault != Fault::NoCache).then_some(cache),
            ..reapi::ServerCapabilities::default()
        }))
    }
}

#[tonic::async_trait]
impl ActionCache for Server {
    async fn get_action_result(
        &self,
        _: Request<reapi::GetActionResultRequest>,
    ) -> Answer<reapi::ActionResult> {
        match self.fault {
            Fault::Silent => std::future::pending().await,
            Fault::Busy => {
                let mut tries = self.tries.lock();
                *tries += 1;
                if *tries < 3 {
                    return Err(Status::resource_exhausted("too many requests"));
                }
            }
            _ => {}
        }
        let digest = Digest::of(&self.content());
        let mut digest =
            reapi::Digest { hash: digest.hash().to_owned(), size_bytes: digest.length() as i64 };
        match self.fault {
            Fault::NoDigest => digest.hash = "../../etc/passwd".to_owned(),
            Fault::Huge => digest.size_bytes = 1 << 40,
            _ => {}
        }
        let file = reapi::OutputFile { digest: Some(digest), ..reapi::OutputFile::default() };
        let mut output_files = vec![file.clone()];
        if self.fault == Fault::PartlyEvicted {
            let digest = reapi::Digest { hash: "0".repeat(64), size_bytes: 7 };
            let lost = reapi::OutputFile { digest: Some(digest), ..file.clone() };
            output_files.extend([lost, file]);
        }
        let result = reapi::ActionResult { output_files, ..Default::default() };
        Ok(Response::new(result))
    }

    async fn update_action_result(
        &self,
        _: Request<reapi::UpdateActionResultRequest>,
    ) -> Answer<reapi::ActionResult> {
        Err(Status::permission_denied("read-only"))
    }
}

#[tonic::async_trait]
impl ContentAddressableStorage for Server {
    type GetTreeStream = Empty<Result<reapi::GetTreeResponse, Status>>;
    type GetChunkMappingStream = Empty<Result<reapi::GetChunkMappingResponse, Status>>;

    async fn find_missing_blobs(
        &self,
        _: Request<reapi::FindMissingBlobsRequest>,
    ) -> Answer<reapi::FindMissingBlobsResponse> {
        Ok(Response::new(reapi::FindMissingBlobsResponse::default()))
    }

    async fn batch_update_blobs(
        &self,
        _: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Answer<reapi::BatchUpdateBlobsResponse> {
        Err(Status::permission_denied("read-only"))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Answer<reapi::BatchReadBlobsResponse> {
        let is_lost = request.into_inner().digests[0].hash.starts_with("000");
        let mut response = reapi::batch_read_blobs_response::Response {
            data: self.content(),
            ..Default::default()
        };
        match self.fault {
            Fault::AnotherBlob => response.data = b"another".to_vec(),
            _ if is_lost || self.fault == Fault::Evicted => {
                let code = Code::NotFound as i32;
                response.status = Some(rpc::Status { code, ..rpc::Status::default() });
            }
            _ => {}
        }
        Ok(Response::new(reapi::BatchReadBlobsResponse { responses: vec![response] }))
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
        _: Request<tonic::Streaming<reapi::RegisterChunkMappingRequest>>,
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

async fn connect(fault: Fault) -> Result<SharedCache, CacheError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("grpc://{}", listener.local_addr().unwrap());
    let server = Server { fault, tries: Arc::default() };
    let services = tonic::transport::Server::builder()
        .add_service(CapabilitiesServer::new(server.clone()))
        .add_service(ActionCacheServer::new(server.clone()))
        .add_service(ContentAddressableStorageServer::new(server));
    tokio::spawn(services.serve_with_incoming(TcpListenerStream::new(listener)));
    let options =
        CacheOptions::new(address.parse().unwrap()).answer_within(Duration::from_millis(500));
    SharedCache::connect(&options).await
}

/// Looks up the request at a server with this fault. Nothing may be stored if that fails.
async fn fetch(fault: Fault) -> Result<Option<ObjectRef>, CacheError> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let fetched = connect(fault).await.unwrap().fetch(request(), &store).await;
    if !matches!(fetched, Ok(Some(_))) {
        assert_eq!(store.kind(outcome().id()).unwrap(), None);
        assert_eq!(store.entries().unwrap(), []);
    }
    fetched
}

#[tokio::test]
async fn what_is_not_what_was_asked_for_is_refused_with_its_name() {
    let error = fetch(Fault::AnotherBlob).await.unwrap_err();
    assert!(matches!(&error, CacheError::WrongContent { .. }), "{error}");
    assert!(error.to_string().contains(Digest::of(b"another").hash()), "{error}");

    let error = fetch(Fault::NoPack).await.unwrap_err();
    assert!(matches!(&error, CacheError::BadPack { .. }), "{error}");
    assert!(error.to_string().contains(Digest::of(b"no pack").hash()), "{error}");

    for fault in [Fault::AnotherRequest, Fault::NoDigest] {
        let error = fetch(fault).await.unwrap_err();
        assert!(matches!(&error, CacheError::BadResult { .. }), "{error}");
        assert!(error.to_string().contains(&request().to_string()), "{error}");
    }
    let error = fetch(Fault::Huge).await.unwrap_err();
    assert!(matches!(error, CacheError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn what_the_server_has_removed_is_a_miss() {
    assert_eq!(fetch(Fault::Evicted).await.unwrap(), None);
    // A name keeps the packs that are there.
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    for (fault, packs, entries, is_whole) in [
        (Fault::PartlyEvicted, 1, 1, false),
        (Fault::AnotherBlob, 0, 0, false),
        (Fault::NoPack, 0, 0, false),
    ] {
        let seed = connect(fault).await.unwrap().fetch_ref("main", &store).await.unwrap().unwrap();
        let found = (seed.packs.len(), seed.entries.len(), seed.is_whole);
        assert_eq!(found, (packs, entries, is_whole));
        // Another version may know what it is.
        assert_eq!(seed.unread.len(), usize::from(fault == Fault::NoPack));
    }
    assert_eq!(store.look_up(request()).unwrap(), Some(ObjectRef::blob(outcome().id())));
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_a_silent_one_is_given_up() {
    let found = fetch(Fault::Busy).await.unwrap();
    assert_eq!(found, Some(ObjectRef::blob(outcome().id())));
    let start = Instant::now();
    let error = fetch(Fault::Silent).await.unwrap_err();
    assert!(matches!(error, CacheError::Refused { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_server_that_lacks_something_is_told_apart() {
    for fault in [Fault::OtherDigests, Fault::NoCache] {
        let error = connect(fault).await.unwrap_err();
        assert!(matches!(error, CacheError::Unsupported { .. }), "{error}");
    }
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let outcome = ObjectRef::blob(store.write(outcome()).unwrap());
    let cache = connect(Fault::Busy).await.unwrap();
    let error = cache.publish(request(), outcome, &store).await.unwrap_err();
    assert!(matches!(error, CacheError::Refused { code: Code::PermissionDenied, .. }), "{error}");
}
