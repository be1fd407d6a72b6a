//! Engines that do not see the files of this machine, and how they are found out. This machine's
//! engine pretends to be one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::query_parameters::ListImagesOptionsBuilder;
use manifold_runtime_api::{ErrorKind, Status};
use manifold_runtime_docker::{
    ContainerEngine, DockerRuntime, EngineError, EngineOptions, Mode, Step,
};
use manifold_testing::containers::{ContainerFixture, docker, engine};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;

/// What a proxy replaces in what it passes on, by words of the same length.
#[derive(Clone, Default)]
struct Changes {
    in_requests: Vec<(Vec<u8>, Vec<u8>)>,
    in_responses: Vec<(Vec<u8>, Vec<u8>)>,
}

fn changed(mut bytes: Vec<u8>, changes: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    for (from, to) in changes {
        assert_eq!(from.len(), to.len());
        for start in 0..bytes.len().saturating_sub(from.len() - 1) {
            if bytes[start..].starts_with(from) {
                bytes[start..start + from.len()].copy_from_slice(to);
            }
        }
    }
    bytes
}

/// Passes on what one side writes until it has no more.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    changes: Vec<(Vec<u8>, Vec<u8>)>,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&changed(buffer[..count].to_vec(), &changes)).await.is_err() {
            return;
        }
        let _ = to.flush().await;
    }
    let _ = to.shutdown().await;
}

async fn connect(client: impl AsyncRead + AsyncWrite + Unpin, engine: String, changes: Changes) {
    let Ok(engine) = UnixStream::connect(engine).await else { return };
    let (from_client, to_client) = tokio::io::split(client);
    let (from_engine, to_engine) = engine.into_split();
    tokio::join!(
        pass(from_client, to_engine, changes.in_requests),
        pass(from_engine, to_client, changes.in_responses)
    );
}

/// Starts a proxy to the engine on a port of this machine, with TLS if there is an acceptor.
/// Returns its address.
async fn proxy(tls: Option<TlsAcceptor>, changes: Changes) -> Option<String> {
    let engine = EngineOptions::default().endpoint.strip_prefix("unix://")?.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, tls.clone(), engine.clone(), changes.clone()));
        }
    });
    Some(address)
}

async fn serve(client: TcpStream, tls: Option<TlsAcceptor>, engine: String, changes: Changes) {
    match tls {
        None => connect(client, engine, changes).await,
        Some(tls) => {
            if let Ok(client) = tls.accept(client).await {
                connect(client, engine, changes).await;
            }
        }
    }
}

/// Writes the certificates of a client to `place`. Returns what accepts only clients that have them.
fn certificates(place: &Path) -> TlsAcceptor {
    let key = || KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, key()).unwrap();
    let (server_key, client_key) = (key(), key());
    let signed = |names: &[&str], key: &KeyPair| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        CertificateParams::new(names).unwrap().signed_by(key, &authority).unwrap()
    };
    let server = signed(&["127.0.0.1"], &server_key);
    let client = signed(&["client"], &client_key);
    std::fs::write(place.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(place.join("cert.pem"), client.pem()).unwrap();
    std::fs::write(place.join("key.pem"), client_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(
            vec![server.der().clone()],
            PrivatePkcs8KeyDer::from(server_key.serialize_der()).into(),
        );
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

fn options(address: &str) -> EngineOptions {
    EngineOptions::default().endpoint(address).certificates(None)
}

/// Returns the text of what is mounted in a container of `engine`, and how many images it has that
/// carry the init.
async fn mounts(engine: &ContainerEngine, mode: Mode) -> (String, usize) {
    let fixture = ContainerFixture::new(engine, DockerRuntime::builder().mode(mode).parked(1));
    let image = fixture.program("strange", &["probe"]);
    let mounts = fixture.run(&image, &[("do", "mounts")]).await.unwrap();
    let filters = std::collections::HashMap::from([("label", vec!["io.manifold.init"])]);
    let options = ListImagesOptionsBuilder::new().filters(&filters).build();
    (mounts, docker().list_images(Some(options)).await.unwrap().len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_carry_the_init_where_the_engine_sees_no_files_of_this_machine() {
    let Some(own) = engine().await else { return };
    assert!(mounts(&own, Mode::Fresh).await.0.contains(" /run/manifold/init "));
    let engine = ContainerEngine::new(EngineOptions::default().shares_files(Some(false))).unwrap();
    let mut images = Vec::new();
    for mode in [Mode::Fresh, Mode::Parked, Mode::Recycled] {
        let (mounts, count) = mounts(&engine, mode).await;
        assert!(!mounts.contains("/run/manifold"), "{mounts}");
        images.push(count);
    }
    assert!(images.iter().all(|count| *count == images[0]), "made once: {images:?}");
    // What was run elsewhere is the same request.
    for engine in [&own, &engine] {
        let fixture = ContainerFixture::new(engine, DockerRuntime::builder());
        let image = fixture.program("strange", &["probe"]);
        assert_eq!(fixture.run(&image, &[("do", "log")]).await.unwrap(), "logged");
    }
    // A serving container needs a socket of this machine.
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(Mode::Serving));
    let image = fixture.program("strange", &["probe"]);
    let error = fixture.run(&image, &[("do", "log")]).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Runtime, Status::Permanent));
    assert!(error.to_string().contains("sees the files of this machine"), "{error}");

    engine.close().unwrap();
    engine_without_unused_images(&own).await;
}

/// Removes images with the init that nothing uses.
async fn engine_without_unused_images(engine: &ContainerEngine) {
    engine.remove_images(|_| true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_with_the_init_that_is_lost_is_made_again() {
    let Some(_own) = engine().await else { return };
    let engine = ContainerEngine::new(EngineOptions::default().shares_files(Some(false))).unwrap();
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(Mode::Fresh));
    // An image of its own, because other tests use the other.
    let image = fixture.program("strange", &["probe", "lost"]);
    let module = image.parse().unwrap();
    let module = fixture.dispatcher.read_tree(module).unwrap().get("module").unwrap().id;
    fixture.run(&image, &[("do", "log")]).await.unwrap();
    let removed = engine.remove_images(|tree| tree != module).await.unwrap();
    assert_eq!(removed, [module]);
    assert_eq!(fixture.run(&image, &[("do", "log"), ("again", "")]).await.unwrap(), "logged");
    engine.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_elsewhere_is_found_out() {
    let Some(own) = engine().await else { return };
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let quoted = |name: &str| format!("\"Name\":\"{name}\"").into_bytes();
    let other = quoted(&"x".repeat(name.trim().len()));
    // An engine that runs on a machine of another name.
    let renamed =
        Changes { in_responses: vec![(quoted(name.trim()), other)], ..Changes::default() };
    // One that does not have the files.
    let place = std::env::temp_dir();
    let nowhere = |name: &str| format!("{}/{name}-", place.display()).into_bytes();
    let without = Changes {
        in_requests: vec![(nowhere("manifold"), nowhere("nonexist"))],
        ..Changes::default()
    };
    for (changes, sees_files) in [(Changes::default(), true), (renamed, false), (without, false)] {
        let Some(address) = proxy(None, changes).await else {
            eprintln!("SKIPPED: the engine is not at a unix socket.");
            return;
        };
        let engine = ContainerEngine::new(options(&address)).unwrap();
        let (mounts, _) = mounts(&engine, Mode::Recycled).await;
        assert_eq!(mounts.contains(" /run/manifold/init "), sees_files, "{mounts}");
        engine.close().unwrap();
    }
    engine_without_unused_images(&own).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_is_reached_by_tls() {
    let Some(_own) = engine().await else { return };
    let place = tempfile::tempdir().unwrap();
    let acceptor = certificates(place.path());
    let Some(address) = proxy(Some(acceptor), Changes::default()).await else { return };
    let with = |directory: PathBuf| {
        ContainerEngine::new(options(&address).certificates(Some(directory))).unwrap()
    };
    let engine = with(place.path().to_owned());
    assert!(!engine.version().await.unwrap().is_empty());
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder());
    let image = fixture.program("strange", &["probe"]);
    assert_eq!(fixture.run(&image, &[("do", "log")]).await.unwrap(), "logged");
    engine.close().unwrap();

    // Another authority, no certificates, and none at all.
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    let error = with(other.path().to_owned()).version().await.unwrap_err();
    assert!(matches!(error, EngineError::Unreachable { step: Step::Connect, .. }), "{error:?}");
    let empty = other.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let error = with(empty).version().await.unwrap_err();
    assert!(matches!(error, EngineError::Unusable { .. }) && !error.to_string().is_empty());
    assert_eq!(error.status(), Status::Permanent);
    assert!(error.to_string().contains("certificates in"), "{error}");
    let plain = ContainerEngine::new(options(&address)).unwrap();
    assert!(plain.version().await.is_err());
}

#[tokio::test]
async fn addresses_that_cannot_be_used_are_explained() {
    for (address, words) in [
        ("ssh://user@host", "ssh -nNT -L"),
        ("npipe:////./pipe/docker", "expected unix:///path or tcp://host:port"),
        ("host:2375", "expected unix:///path or tcp://host:port"),
    ] {
        let engine = ContainerEngine::new(options(address)).unwrap();
        let error = engine.version().await.unwrap_err();
        assert!(matches!(error, EngineError::Unusable { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.status(), Status::Permanent);
    }
}
