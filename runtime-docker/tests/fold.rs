//! The container guests: compared with the golden vectors and with the guests in other languages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::{
    Capabilities, Code, Host, HostImage, Job, NodeShape, ObjectId, ObjectRef, Result, Runtime,
    async_trait,
};
use manifold_runtime_docker::{DockerRuntime, Mode};
use manifold_standard_guests::{self as guests, Hosts};
use manifold_testing::containers::{ContainerFixture, engine};
use manifold_testing::{Journal, VECTORS, Vector, store_chain, store_fixture};

/// A runtime that runs the container guest named by a module. Modules of the vectors are blobs with
/// the name of a guest.
struct ByName {
    docker: DockerRuntime,
    modules: BTreeMap<ObjectId, ObjectRef>,
}

#[async_trait]
impl Runtime for ByName {
    fn host_image(&self) -> &HostImage {
        self.docker.host_image()
    }

    fn capabilities(&self) -> Capabilities {
        self.docker.capabilities()
    }

    async fn run(&self, mut job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        job.code = Code::Module(self.modules[&job.code.own_module()?.id]);
        self.docker.run(job, host).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fold_reproduces_the_requests_and_results_of_the_vectors() {
    let Some(engine) = engine().await else { return };
    for name in VECTORS {
        let vector = Vector::read(name);
        let docker = DockerRuntime::builder().mode(Mode::Serving).build(&engine).unwrap();
        // A dispatcher without runtimes puts the images of the guests.
        let store: Arc<dyn manifold_dispatcher::Store> =
            Arc::new(manifold_dispatcher::MemoryStore::new());
        let builder = || Dispatcher::builder().store(Arc::clone(&store));
        let preparing = builder().build().unwrap();
        let hosts = Hosts::default().serving(docker.host_image().id());
        let std = preparing.read_tree(guests::install_for(&preparing, hosts).unwrap()).unwrap();
        let modules = vector.modules.values().map(|text| {
            let image = std.get(format!("{text}.serving")).unwrap().id;
            let NodeShape::Runtime { module, .. } =
                NodeShape::of(&preparing.read_tree(image).unwrap()).unwrap()
            else {
                panic!("{text} is a curry node")
            };
            (preparing.put_blob(text.clone()).unwrap(), module)
        });
        let by_name = ByName { modules: modules.collect(), docker };
        let journal = Arc::new(Journal::default());
        let dispatcher = builder()
            .runtime_as(vector.host_ref.0, Arc::new(by_name))
            .observer(Arc::clone(&journal))
            .build()
            .unwrap();
        vector.store_images(&dispatcher);
        assert_eq!(store_fixture(&dispatcher, name), vector.root.0);

        let fold = vector.images["fold-wasm"].0;
        let invocation = Invocation::new(fold)
            .args(vector.args(&dispatcher))
            .salt(vector.salt.clone())
            .std(vector.std.0);
        let completion = dispatcher.run(invocation).await.unwrap();
        assert_eq!(completion.request, vector.top_request.0, "{name}");
        assert_eq!(completion.outcome, ObjectRef::blob(vector.result.1.0), "{name}");
        let issued: BTreeSet<_> =
            journal.started.lock().unwrap().iter().map(|(request, _)| *request).collect();
        let expected: BTreeSet<_> = vector.runs.iter().map(|run| run.request.0).collect();
        assert_eq!(issued, expected, "{name}");
        for run in &vector.runs {
            let memoized = store.look_up(run.request.0).unwrap().map(|outcome| outcome.id);
            assert_eq!(memoized, Some(run.result.1.0), "{name}");
        }
    }
    engine.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_and_distinct_runs_match_the_vectors() {
    let Some(engine) = engine().await else { return };
    for (mode, vectors) in [
        (Mode::Serving, &VECTORS[..]),
        (Mode::Recycled, &VECTORS[..]),
        (Mode::Parked, &["odd"]),
        (Mode::Fresh, &["odd"]),
    ] {
        for name in vectors {
            let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(mode));
            let vector = Vector::read(name);
            let root = ObjectRef::tree(store_fixture(&fixture.dispatcher, name));
            let visitors = [("post", "file-count.docker")];
            assert_eq!(
                fixture.fold("fold.docker", root, &visitors).await,
                vector.result_text,
                "{mode:?} {name}"
            );
            assert_eq!(fixture.runs(), vector.distinct_runs, "{mode:?} {name}");
            let before = fixture.dispatcher.stats();
            fixture.fold("fold.docker", root, &visitors).await;
            let done = fixture.dispatcher.stats() - before;
            assert_eq!(
                (done.runs, done.hits, done.joins),
                (0, 1, 0),
                "{name}: a repeated fold is one hit"
            );
        }
    }
    engine.close().unwrap();
}

/// A suspended frame keeps its container, and takes none of those that its nested runs need.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_24_levels_completes_with_a_pool_of_one() {
    let Some(engine) = engine().await else { return };
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().parked(1));
    let root = ObjectRef::tree(store_fixture(&fixture.dispatcher, "deep"));
    assert_eq!(fixture.fold("fold.docker", root, &[("post", "file-count.docker")]).await, "24\n");
    engine.close().unwrap();
}

/// The chain has more levels than one container may have processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_too_deep_for_one_serving_container_uses_several() {
    let Some(engine) = engine().await else { return };
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(Mode::Serving));
    let root = ObjectRef::tree(store_chain(&fixture.dispatcher, 600));
    assert_eq!(fixture.fold("fold.docker", root, &[("post", "file-count")]).await, "1\n");
    engine.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folds_in_all_languages_issue_the_same_visitor_requests() {
    let Some(engine) = engine().await else { return };
    let folds: &[&str] = if manifold_testing::HAS_V8 {
        &["fold", "fold.ts", "fold.docker"]
    } else {
        &["fold", "fold.docker"]
    };
    for name in VECTORS {
        for visitor in ["file-count", "file-count.docker"] {
            let fixture =
                ContainerFixture::new(&engine, DockerRuntime::builder().mode(Mode::Serving));
            let root = ObjectRef::tree(store_fixture(&fixture.dispatcher, name));
            let post = fixture.image(visitor);
            let mut first = None;
            for fold in folds {
                let text = fixture.fold(fold, root, &[("post", visitor)]).await;
                let wanted = fixture.requests_for(&post);
                let known = first.get_or_insert_with(|| (text.clone(), wanted.clone()));
                assert_eq!((text, wanted), *known, "{name}: {fold} over {visitor}");
            }
            // Each fold has its own frames, as many as the others. No visit was run twice.
            let frames: Vec<_> =
                folds.iter().map(|fold| fixture.requests_for(&fixture.image(fold)).len()).collect();
            assert!(frames.windows(2).all(|pair| pair[0] == pair[1]), "{name}: {frames:?}");
            assert_eq!(
                fixture.runs(),
                frames.iter().sum::<usize>() + fixture.requests_for(&post).len(),
                "{name}"
            );
        }
    }
    engine.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_visitors_return_the_same_as_in_wasm() {
    let Some(engine) = engine().await else { return };
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(Mode::Serving));
    let root = ObjectRef::tree(store_fixture(&fixture.dispatcher, "odd"));
    for post in ["line-count", "total-size"] {
        let expected = fixture.fold("fold", root, &[("post", post)]).await;
        let post = format!("{post}.docker");
        assert_eq!(fixture.fold("fold.docker", root, &[("post", &post)]).await, expected, "{post}");
    }
    let expected =
        fixture.fold("fold", root, &[("post", "file-count"), ("pre", "dirs-only")]).await;
    let visitors = [("post", "file-count.docker"), ("pre", "dirs-only.docker")];
    assert_eq!(fixture.fold("fold.docker", root, &visitors).await, expected);
    engine.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_error_of_a_failing_visitor_names_every_frame() {
    let Some(engine) = engine().await else { return };
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(Mode::Serving));
    let root = ObjectRef::tree(store_chain(&fixture.dispatcher, 12));
    let error =
        fixture.try_fold("fold.docker", root, &[("post", "no-such-visitor")]).await.unwrap_err();
    assert!(error.root_cause().to_string().contains("no image of that name"), "{error:?}");
    assert_eq!(error.chain().filter(|error| error.frame().is_some()).count(), 12, "{error:?}");
    let error = fixture.try_fold("fold.docker", root, &[]).await.unwrap_err();
    assert_eq!(error.to_string(), "the argument `post` is missing");
    engine.close().unwrap();
}
