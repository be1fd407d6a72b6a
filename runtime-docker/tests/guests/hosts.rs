//! Containers that are hosts of modules.

use std::sync::Arc;
use std::time::Instant;

use manifold_dispatcher::native::argument;
use manifold_dispatcher::{DirectoryObjects, Invocation};
use manifold_runtime_api::{EntryMode, HostRef, ObjectRef, RuntimeNode};
use manifold_runtime_docker::{DockerRuntime, Mode};
use manifold_testing::containers::{ContainerFixture, engine, own_containers_of, python_image};
use manifold_testing::{VECTORS, Vector, store_fixture};

/// A container that is a host: it runs many Python modules at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_in_python_runs_a_fold_visitor() {
    let Some(engine) = engine().await else { return };
    let Some(image) = python_image() else { return };
    let objects = DirectoryObjects::scan(image.as_ref()).unwrap();
    let module = ObjectRef::tree(objects.root().id);
    let fixture = ContainerFixture::with_sources(
        &engine,
        DockerRuntime::builder().mode(Mode::Fresh),
        vec![Arc::new(objects)],
    );
    // Preparing the image loads it into the engine, where it gets a digest.
    let image = fixture.dispatcher.put_image(fixture.host, module).unwrap().to_string();
    fixture.dispatcher.prepare(&image, None).await.unwrap();
    let host = format!(
        "docker://{}",
        engine.digest(&format!("manifold-image:{}", module.id)).await.unwrap()
    );

    let hosted = |code: &str| {
        let module = ObjectRef::blob(fixture.dispatcher.put_blob(code.to_owned()).unwrap());
        let node = RuntimeNode { host: HostRef::parse(&host).unwrap(), module };
        fixture.dispatcher.put_node(node.encode().unwrap()).unwrap().to_string()
    };
    let visitor = hosted(include_str!("../../../fold-guests/python/file-count.py"));
    for name in VECTORS {
        let vector = Vector::read(name);
        let root = ObjectRef::tree(store_fixture(&fixture.dispatcher, name));
        let post = fixture.dispatcher.put_blob(visitor.clone()).unwrap();
        let args = [argument("in", root), argument("post", ObjectRef::blob(post))];
        let args = fixture.dispatcher.put_tree(args).unwrap();
        let start = Instant::now();
        let completion = fixture
            .dispatcher
            .run(Invocation::new(fixture.image("fold")).args(args))
            .await
            .unwrap();
        eprintln!("{name} with a visitor in Python: {:?}", start.elapsed());
        let result = fixture.dispatcher.read(completion.outcome.id).unwrap();
        assert_eq!(result.content, vector.result_text.as_bytes(), "{name}");
    }
    assert_eq!(own_containers_of(&engine).await.len(), 1, "one container runs all visits");

    // Exceptions that look like a lost connection or the end of the process fail only their job.
    // There are more of them than connections.
    for (code, words) in [
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("raise ConnectionError('mine')", "ConnectionError: mine"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("return 'text'", "TypeError: a bytes-like object is required, not 'str'"),
        ("raise Failure('as it is')", "as it is"),
    ] {
        let error =
            fixture.run(&hosted(&format!("def run(job):\n    {code}\n")), &[]).await.unwrap_err();
        assert_eq!(error.to_string(), words);
    }
    // A job that waits for other jobs of the same host does not block them.
    let chain = hosted(
        "def run(job):\n    args = job.args()\n    if 'n' not in args: return b'end'\n    \
         nested = job.run(job.fields['image'], args['n'].hash)\n    return b'<' + job.get(nested.hash)\n",
    );
    let empty = fixture.tree(&[]);
    let args = (0..12).fold(empty, |args, _| fixture.tree(&[("n", EntryMode::Tree, args)]));
    let completion = fixture.dispatcher.run(Invocation::new(&chain).args(args)).await.unwrap();
    assert_eq!(
        fixture.dispatcher.read(completion.outcome.id).unwrap().content,
        "<<<<<<<<<<<<end".as_bytes()
    );
    engine.close().unwrap();
}
