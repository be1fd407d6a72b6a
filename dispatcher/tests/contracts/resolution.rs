//! Resolving image references to requests: named images, curry nodes and hosts.

use manifold_dispatcher::api::{
    CurryNode, EntryMode, Error, ErrorKind, HostRef, ImageProblem, ObjectId, ObjectKind, ObjectRef,
    Reason, Runtime, RuntimeNode, TreeEntry,
};
use manifold_dispatcher::native::NativeRuntime;
use manifold_dispatcher::{Completion, Invocation};
use manifold_testing::Fixture;

/// A dispatcher with the guests `show`, which returns its arguments as `name=text` in git's order,
/// and `careless`, which runs the image in its argument `image` with the id in its argument `args`.
fn fixture() -> Fixture {
    let runtime = NativeRuntime::builder("native", "1")
        .guest("show", |guest| async move {
            let mut shown = Vec::new();
            for entry in guest.args().await?.entries() {
                let text = guest.host().get(entry.id).await?;
                shown.push(format!("{}={}", entry.name, String::from_utf8_lossy(&text)));
            }
            guest.blob(shown.join(" ")).await
        })
        .guest("careless", |guest| async move {
            let args =
                guest.text("args").await?.parse().map_err(|_| Error::guest_failed("not an id"))?;
            guest.run(&guest.text("image").await?, args).await
        })
        .build()
        .unwrap();
    Fixture::new(runtime)
}

fn curry(fixture: &Fixture, base: &str, texts: &[(&str, &str)]) -> String {
    let node = CurryNode { base: base.to_owned(), args: fixture.args(texts) };
    fixture.dispatcher.put_node(node.encode().unwrap()).unwrap().to_string()
}

/// Stores a tree of named images: an id becomes a tree entry, any other reference a blob.
fn std(fixture: &Fixture, images: &[(&str, &str)]) -> ObjectId {
    let entry = |(name, reference): &(&str, &str)| match ObjectId::from_hex(reference) {
        Ok(node) => TreeEntry::new(*name, EntryMode::Tree, node),
        Err(_) => TreeEntry::new(
            *name,
            EntryMode::Blob,
            fixture.dispatcher.put_blob((*reference).to_owned()).unwrap(),
        ),
    };
    fixture.dispatcher.put_tree(images.iter().map(entry)).unwrap()
}

async fn run(
    fixture: &Fixture,
    image: &str,
    texts: &[(&str, &str)],
    std: Option<ObjectId>,
) -> Result<Completion, Error> {
    let mut invocation = Invocation::new(image).args(fixture.args(texts));
    invocation.std = std;
    fixture.dispatcher.run(invocation).await
}

fn problem(result: Result<Completion, Error>) -> ImageProblem {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request, "{error:?}");
    match error.reason() {
        Reason::BadImage { problem, .. } => problem.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_calls_own_arguments_override_bound_ones_and_curry_nodes_nest() {
    let fixture = fixture();
    let show = fixture.image("show");
    let inner = curry(&fixture, &show, &[("a", "inner"), ("b", "inner"), ("c", "inner")]);
    let outer = curry(&fixture, &inner, &[("b", "outer"), ("c", "outer")]);
    let completion = run(&fixture, &outer, &[("c", "own"), ("d", "own")], None).await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "a=inner b=outer c=own d=own");

    let same = [("a", "inner"), ("b", "outer"), ("c", "own"), ("d", "own")];
    let direct = run(&fixture, &show, &same, None).await.unwrap();
    assert_eq!(
        direct.request, completion.request,
        "a curried call and the equivalent direct call are the same request"
    );
    assert!(direct.from_memo);
}

#[tokio::test]
async fn the_key_never_depends_on_a_name() {
    let fixture = fixture();
    let show = fixture.image("show");
    let std = std(
        &fixture,
        &[
            ("show", &show),
            ("alias", "/cas/std/show\n"),
            ("bound", &curry(&fixture, " /cas/std/show\r\n", &[])),
        ],
    );
    let by_id = run(&fixture, &show, &[("x", "1")], Some(std)).await.unwrap();
    for name in ["/cas/std/show", "/cas/std/alias", "/cas/std/bound"] {
        let by_name = run(&fixture, name, &[("x", "1")], Some(std)).await.unwrap();
        assert_eq!(by_name.request, by_id.request, "{name}");
    }
    assert_eq!(fixture.runs(), 1);
    let upper = run(&fixture, &show.to_uppercase(), &[("x", "1")], Some(std)).await.unwrap();
    assert_eq!(upper.request, by_id.request);
}

#[tokio::test]
async fn salt_and_std_change_the_key() {
    let fixture = fixture();
    let (show, args) = (fixture.image("show"), fixture.args(&[]));
    let plain = fixture.dispatcher.run(Invocation::new(&show).args(args)).await.unwrap();
    let salted = fixture.dispatcher.run(Invocation::new(&show).args(args).salt("s")).await.unwrap();
    let named = fixture
        .dispatcher
        .run(Invocation::new(&show).args(args).std(std(&fixture, &[])))
        .await
        .unwrap();
    assert_eq!(fixture.runs(), 3);
    assert!(
        plain.request != salted.request
            && salted.request != named.request
            && plain.request != named.request
    );
    assert_eq!(
        fixture.dispatcher.read_tree(salted.request).unwrap().len(),
        4,
        "the request's tree is in the store"
    );
}

#[tokio::test]
async fn circular_and_too_deep_references_are_errors() {
    let fixture = fixture();
    let node = curry(&fixture, "/cas/std/me", &[]);
    let std = std(&fixture, &[("me", &node), ("ping", "/cas/std/pong"), ("pong", "/cas/std/ping")]);
    for name in ["/cas/std/me", &node, "/cas/std/ping"] {
        let problem = problem(run(&fixture, name, &[], Some(std)).await);
        assert!(matches!(problem, ImageProblem::ReachesItself { .. }), "{name}: {problem:?}");
    }
    let long =
        (0..1000).fold(fixture.image("show"), |base, _| curry(&fixture, &base, &[("n", &base)]));
    assert!(matches!(problem(run(&fixture, &long, &[], None).await), ImageProblem::TooDeep));
}

#[tokio::test]
async fn an_unknown_host_is_an_error_that_lists_the_known_hosts() {
    let fixture = fixture();
    let module = ObjectRef::blob(fixture.dispatcher.put_blob("show").unwrap());
    let unknown = ObjectId::of(ObjectKind::Blob, b"another host");
    let image = fixture.dispatcher.put_image(unknown, module).unwrap().to_string();
    let ImageProblem::UnknownHost { host, known } = problem(run(&fixture, &image, &[], None).await)
    else {
        panic!("a different problem")
    };
    assert_eq!(host, unknown.to_string());
    let native = NativeRuntime::builder("native", "1").build().unwrap().host_image().id();
    assert_eq!(known, [format!("{native} (native)")]);
    assert!(fixture.dispatcher.read_tree(native).is_ok(), "the host image is in the store");

    let digest = format!("docker://worker@sha256:{}", "0".repeat(64));
    for reference in [digest.as_str(), "docker://worker:latest"] {
        let container = RuntimeNode { host: HostRef::parse(reference).unwrap(), module };
        let hosted = fixture.dispatcher.put_node(container.encode().unwrap()).unwrap().to_string();
        for image in [hosted.as_str(), reference] {
            let problem = problem(run(&fixture, image, &[], None).await);
            let is_tag = reference != digest;
            assert_eq!(matches!(problem, ImageProblem::MovingTag), is_tag, "{image}: {problem}");
            assert_eq!(
                matches!(problem, ImageProblem::NoContainers),
                !is_tag,
                "{image}: {problem}"
            );
        }
    }
}

#[tokio::test]
async fn an_invalid_image_is_an_error_with_the_cause() {
    let fixture = fixture();
    let blob = fixture.dispatcher.put_blob("a blob").unwrap();
    let tree = |entries: &[(&str, EntryMode, ObjectId)]| {
        let entries = entries.iter().map(|(name, mode, id)| TreeEntry::new(*name, *mode, *id));
        fixture.dispatcher.put_tree(entries).unwrap().to_string()
    };
    let (file, folder) = (EntryMode::Blob, EntryMode::Tree);
    let empty = ObjectId::empty_tree();
    let cases = [
        (blob.to_string(), "it is a blob"),
        (tree(&[]), "neither"),
        (tree(&[(".caos-runtime", file, blob)]), "no entry `module`"),
        (tree(&[(".caos-runtime", folder, empty), ("module", file, blob)]), "is a tree"),
        (tree(&[(".caos-runtime", file, blob), ("module", file, blob)]), "its marker \"a blob\""),
        (
            tree(&[(".caos-runtime", file, blob), ("module", file, blob), ("x", file, blob)]),
            "3 entries",
        ),
        (tree(&[(".caos-curry", file, blob), ("base", file, blob)]), "no entry `args`"),
        (
            tree(&[(".caos-curry", file, blob), ("base", file, blob), ("args", folder, empty)]),
            "hexadecimal digits",
        ),
    ];
    for (image, words) in cases {
        let ImageProblem::NotAnImage { problem, .. } =
            problem(run(&fixture, &image, &[], None).await)
        else {
            panic!("{words}: a different problem")
        };
        assert!(problem.contains(words), "{problem:?} does not contain {words:?}");
    }
    let std = std(&fixture, &[("there", &fixture.image("show"))]);
    for (image, std, words) in [
        ("", None, "expected"),
        ("/cas/std/", None, "expected"),
        ("/cas/std/a/b", None, "expected"),
        ("/cas/std/x", None, "`std` is empty"),
        ("/cas/std/x", Some(std), "available images: there"),
        (&"a".repeat(64), None, "SHA-256"),
        ("\u{a0}4b825dc642cb6eb9a060e54bf8d69288fbee4904", None, "expected"),
    ] {
        let problem = problem(run(&fixture, image, &[], std).await).to_string();
        assert!(problem.contains(words), "{image}: {problem:?} does not contain {words:?}");
    }
    let missing = run(&fixture, &"ab".repeat(20), &[], None).await.unwrap_err();
    assert!(matches!(missing.reason(), Reason::MissingObject { .. }));
}

#[tokio::test]
async fn arguments_that_are_missing_or_not_a_tree_are_an_error() {
    let fixture = fixture();
    let show = fixture.image("show");
    let blob = fixture.dispatcher.put_blob("x").unwrap();
    let error = fixture.dispatcher.run(Invocation::new(&show).args(blob)).await.unwrap_err();
    assert!(matches!(error.reason(), Reason::WrongKind { .. }));
    let missing = ObjectId::of(ObjectKind::Tree, b"gone");
    let error = fixture.dispatcher.run(Invocation::new(&show).args(missing)).await.unwrap_err();
    assert!(matches!(error.reason(), Reason::MissingObject { .. }));
    // The same holds for a nested run's arguments, even if its guest does not read them.
    let nested = fixture.image("careless");
    for (args, kind) in [(blob, "blob"), (missing, "missing")] {
        let invocation = Invocation::new(&nested)
            .args(fixture.args(&[("image", &show), ("args", &args.to_string())]));
        let error = fixture.dispatcher.run(invocation).await.unwrap_err();
        assert!(
            matches!(error.reason(), Reason::MissingObject { .. } | Reason::WrongKind { .. }),
            "{kind}: {error:?}"
        );
    }

    let dangling =
        fixture.dispatcher.put_tree([TreeEntry::new("x", EntryMode::Blob, missing)]).unwrap_err();
    assert!(matches!(dangling.reason(), Reason::MissingObject { .. }));
    let mislabelled =
        fixture.dispatcher.put_tree([TreeEntry::new("x", EntryMode::Tree, blob)]).unwrap_err();
    assert!(matches!(mislabelled.reason(), Reason::WrongKind { .. }));
}

#[test]
fn a_run_without_a_tokio_runtime_is_an_error() {
    let fixture = fixture();
    let invocation = Invocation::new(fixture.image("show")).args(fixture.args(&[]));
    let run = std::pin::pin!(fixture.dispatcher.run(invocation));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(result) = run.poll(&mut context) else {
        panic!("the run is pending")
    };
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Runtime);
}

#[test]
fn two_runtimes_with_the_same_host_image_are_rejected() {
    let runtime = || std::sync::Arc::new(NativeRuntime::builder("twin", "1").build().unwrap());
    let built =
        manifold_dispatcher::Dispatcher::builder().runtime(runtime()).runtime(runtime()).build();
    assert!(built.err().is_some_and(|error| error.to_string().contains("twin")));
}

#[tokio::test]
async fn arguments_bound_in_several_steps_give_the_same_image_as_in_one() {
    let fixture = fixture();
    let (dispatcher, show) = (&fixture.dispatcher, fixture.image("show"));
    let bind = |image: &str, texts: &[(&str, &str)]| {
        dispatcher.curry(image, None, fixture.args(texts)).unwrap().to_string()
    };
    let inner = bind(&show, &[("a", "inner"), ("b", "inner")]);
    assert_eq!(inner, curry(&fixture, &show, &[("a", "inner"), ("b", "inner")]));
    let outer = bind(&inner, &[("b", "outer"), ("c", "outer")]);
    let at_once = [("a", "inner"), ("b", "outer"), ("c", "outer")];
    assert_eq!(outer, bind(&show, &at_once));
    assert_eq!(bind(&outer, &[]), outer);
    // Nodes that nest are flattened as well.
    let nested = curry(&fixture, &curry(&fixture, &show, &[("a", "inner")]), &[("b", "outer")]);
    assert_eq!(bind(&nested, &[("c", "outer")]), outer);
    let completion = run(&fixture, &outer, &[("c", "own")], None).await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "a=inner b=outer c=own");

    let named = std(&fixture, &[("shown", &show)]);
    let by_name = dispatcher.curry("/cas/std/shown", Some(named), fixture.args(&at_once)).unwrap();
    assert_eq!(by_name.to_string(), outer);
    let missing = dispatcher.curry("/cas/std/x", Some(named), fixture.args(&[])).unwrap_err();
    assert!(missing.to_string().contains("/cas/std/x"), "{missing}");
    let blob = dispatcher.put_blob("text").unwrap();
    assert_eq!(dispatcher.curry(&show, None, blob).unwrap_err().kind(), ErrorKind::Request);
}
