//! Container images: of the engine by digest, and trees in the store.

use manifold_runtime_api::{EntryMode, Error, ImageProblem, ObjectRef, Reason, Status};
use manifold_runtime_docker::DockerRuntime;
use manifold_testing::containers::{ContainerFixture, engine};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_run_by_digest_and_tags_are_refused() {
    let Some(engine) = engine().await else { return };
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().parked(1));
    // An image that was loaded from the store has a digest in the engine, by which it can be named.
    let image = fixture.program("strange", &["probe"]);
    fixture.run(&image, &[("do", "log")]).await.unwrap();
    let node = fixture.dispatcher.read_tree(image.parse().unwrap()).unwrap();
    let name = format!("manifold-image:{}", node.get("module").unwrap().id);
    let digest = engine.digest(&name).await.unwrap();
    let reference = format!("docker://{digest}");
    assert_eq!(fixture.run(&reference, &[("do", "log")]).await.unwrap(), "logged");
    // It can also be named as a module of the docker runtime.
    let text = fixture.dispatcher.put_blob(reference.clone()).unwrap();
    let module = ObjectRef::blob(text);
    let image = fixture.dispatcher.put_image(fixture.host, module).unwrap().to_string();
    assert_eq!(fixture.run(&image, &[("do", "log")]).await.unwrap(), "logged");

    let problem = |error: Error| match error.root_cause().reason() {
        Reason::BadImage { problem, .. } => problem.clone(),
        other => panic!("{other}"),
    };
    let error = fixture.run(&format!("docker://{name}"), &[]).await.unwrap_err();
    assert!(matches!(problem(error), ImageProblem::MovingTag));
    let error = fixture.run(&format!("docker://sha256:{}", "0".repeat(64)), &[]).await.unwrap_err();
    assert!(matches!(problem(error), ImageProblem::NotInEngine { .. }));
    engine.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_can_be_a_tree_in_the_store() {
    let Some(engine) = engine().await else { return };
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().parked(1));
    let blob = |text: &str| fixture.dispatcher.put_blob(text.to_owned()).unwrap();
    let node =
        fixture.dispatcher.read_tree(fixture.program("strange", &[]).parse().unwrap()).unwrap();
    let layers = fixture.dispatcher.read_tree(node.get("module").unwrap().id).unwrap();
    let layer = fixture.dispatcher.read_tree(layers.get("layer00").unwrap().id).unwrap();
    let program = layer.get("guest").unwrap().id;
    let image =
        |id| fixture.dispatcher.put_image(fixture.host, ObjectRef::tree(id)).unwrap().to_string();

    // A root file system with a symbolic link and long names.
    let long = "n".repeat(200);
    let etc = fixture.tree(&[(&long, EntryMode::Blob, blob("long\n"))]);
    let etc = fixture.tree(&[(&long, EntryMode::Tree, etc), ("here", EntryMode::Blob, blob(""))]);
    let root = fixture.tree(&[
        ("guest", EntryMode::Executable, program),
        ("etc", EntryMode::Tree, etc),
        ("link", EntryMode::Symlink, blob(&format!("etc/{long}/{long}"))),
    ]);
    assert_eq!(
        fixture.run(&image(root), &[("do", "exists"), ("path", "/link")]).await.unwrap(),
        "true"
    );

    // Layers, of which later ones overlay earlier ones, and a whiteout, which removes a file.
    let config = blob(
        "{\"config\":{\"Entrypoint\":[\"/bin/guest\"],\"Env\":[\"GREETING=hello\"],\"WorkingDir\":\"/bin\"}}",
    );
    let bin = fixture.tree(&[("guest", EntryMode::Executable, program)]);
    let lower =
        fixture.tree(&[("bin", EntryMode::Tree, bin), ("gone", EntryMode::Blob, blob("x"))]);
    let upper = fixture
        .tree(&[(".wh.gone", EntryMode::Blob, blob("")), ("new", EntryMode::Blob, blob("y"))]);
    let layered = image(fixture.tree(&[
        ("config.json", EntryMode::Blob, config),
        ("layer00", EntryMode::Tree, lower),
        ("layer01", EntryMode::Tree, upper),
    ]));
    assert_eq!(fixture.run(&layered, &[("do", "exists"), ("path", "/new")]).await.unwrap(), "true");
    assert_eq!(
        fixture.run(&layered, &[("do", "exists"), ("path", "/gone")]).await.unwrap(),
        "false"
    );
    assert!(
        fixture.run(&layered, &[("do", "environment")]).await.unwrap().contains("GREETING=hello")
    );

    let foreign = blob("{\"architecture\":7,\"config\":{}}");
    for (name, tree, words) in [
        (
            "no architecture",
            fixture.tree(&[("config.json", EntryMode::Blob, foreign)]),
            "is not a string",
        ),
        (
            "no object",
            fixture.tree(&[("config.json", EntryMode::Blob, blob("[]"))]),
            "is not an object",
        ),
        (
            "no JSON",
            fixture.tree(&[("config.json", EntryMode::Blob, blob("{"))]),
            "config.json: EOF",
        ),
        (
            "other entries",
            fixture.tree(&[
                ("config.json", EntryMode::Blob, config),
                ("layer0", EntryMode::Tree, lower),
            ]),
            "layer<NN>",
        ),
    ] {
        let error = fixture.run(&image(tree), &[]).await.unwrap_err();
        assert!(
            matches!(error.reason(), Reason::BadModule { problem, .. } if problem.contains(words)),
            "{name}: {error:?}"
        );
    }
    // The image contains no program.
    let error = fixture
        .run(&image(fixture.tree(&[("x", EntryMode::Blob, blob("x"))])), &[])
        .await
        .unwrap_err();
    assert_eq!(
        (error.status(), error.kind().as_str()),
        (Status::Permanent, "runtime"),
        "{error:?}"
    );
    engine.close().unwrap();
}
