//! Images and a real engine: what it saves is imported, what is exported it loads, and images stack
//! on those that it has.

use std::fs;
use std::sync::Arc;

use bollard::Docker;
use bollard::query_parameters::{ImportImageOptionsBuilder, RemoveImageOptions};
use futures_util::TryStreamExt;
use manifold_dispatcher::{MemoryStore, ObjectSource, Store};
use manifold_runtime_api::bytes::Bytes;
use manifold_runtime_api::{EntryMode, Object, ObjectId, ObjectRef, Tree, TreeEntry};
use manifold_runtime_docker::{ContainerEngine, DockerRuntime, Mode};
use manifold_testing::built;
use manifold_testing::containers::{ContainerFixture, docker, engine};
use tar::EntryType;

use crate::{Entry, Image, content, entry, file, import};

/// An image whose program does what its argument `do` names, in two layers.
fn strange() -> Image {
    let program = fs::read(built("strange.linux")).unwrap();
    let mut image = Image::new(&[
        &[
            Entry { mode: 0o755, ..entry("guest", EntryType::Regular, program) },
            file("first", "1"),
            Entry { mode: 0o600, uid: 7, mtime: 1_000_000_000, ..file("second", "2") },
            entry("link", EntryType::Link, "second"),
        ],
        &[file(".wh.first", ""), Entry { mode: 0o2750, gid: 9, ..crate::directory("third") }],
    ]);
    image.config = serde_json::json!({ "Entrypoint": ["/guest", "probe"], "User": "1" });
    image
}

async fn load(docker: &Docker, archive: Vec<u8>) {
    let options = ImportImageOptionsBuilder::new().quiet(true).build();
    let archive = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(archive))]);
    let mut loading = Box::pin(docker.import_image_stream(options, archive, None));
    while let Some(progress) = loading.try_next().await.unwrap() {
        assert!(progress.error_detail.is_none(), "{progress:?}");
    }
}

async fn save(docker: &Docker, name: &str) -> Vec<u8> {
    docker.export_image(name).map_ok(|piece| piece.to_vec()).try_concat().await.unwrap()
}

async fn layers(docker: &Docker, name: &str) -> Vec<String> {
    docker.inspect_image(name).await.unwrap().root_fs.unwrap().layers.unwrap()
}

/// Exports an image with the help of `engine`.
async fn export(engine: &ContainerEngine, store: &MemoryStore, id: ObjectId, tag: &str) -> Vec<u8> {
    let read = |id, kind| content(store, id, kind);
    engine.export_image(id, Some(tag), &read, Vec::new()).await.unwrap()
}

#[tokio::test]
async fn an_engine_loads_what_is_exported_and_saves_what_is_imported() {
    let Some(engine) = engine().await else { return };
    let (docker, store, image) = (docker(), MemoryStore::new(), strange());
    let [before, after] = ["before", "after"].map(|name| format!("manifold-test-{name}:1"));
    load(&docker, image.saved(&[&before])).await;
    let id = import(&store, &save(&docker, &before).await).unwrap();
    assert_eq!(import(&store, &image.saved(&[])).unwrap(), id);
    load(&docker, export(&engine, &store, id, &after).await).await;
    assert_eq!(import(&store, &save(&docker, &after).await).unwrap(), id);
    let config = docker.inspect_image(&after).await.unwrap().config.unwrap();
    assert_eq!(config.user.as_deref(), Some("1"));
    for name in [before, after] {
        docker.remove_image(&name, None::<RemoveImageOptions>, None).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_run_stack_on_others_and_are_removed_when_nothing_uses_them() {
    let Some(engine) = engine().await else { return };
    let (docker, store) = (docker(), Arc::new(MemoryStore::new()));
    let id = import(&store, &strange().saved(&[])).unwrap();
    let name = "manifold-test-base:1";
    load(&docker, strange().saved(&[name])).await;
    let digest = engine.digest(name).await.unwrap();

    // Both add a file, delete one, and inherit the program.
    let blob = |text: &str| store.write(Object::blob(text.to_owned())).unwrap();
    let tree = |entries: &[(&str, EntryMode, ObjectId)]| {
        let entries = entries.iter().map(|(name, mode, id)| TreeEntry::new(*name, *mode, *id));
        store.write(Tree::new(entries).unwrap().to_object()).unwrap()
    };
    let layer =
        tree(&[(".wh.second", EntryMode::Blob, blob("")), ("fourth", EntryMode::Blob, blob("4"))]);
    let on = |base: &str| {
        tree(&[("base", EntryMode::Blob, blob(base)), ("layer00", EntryMode::Tree, layer)])
    };
    let (on_tree, on_digest) = (on(&format!("{id}\n")), on(&format!("docker://{digest}")));

    let sources: Vec<Arc<dyn ObjectSource>> = vec![Arc::clone(&store) as _];
    let builder = DockerRuntime::builder().mode(Mode::Fresh);
    let fixture = ContainerFixture::with_sources(&engine, builder, sources);
    let image = |tree| {
        fixture.dispatcher.put_image(fixture.host, ObjectRef::tree(tree)).unwrap().to_string()
    };
    for (tree, paths) in [
        (id, "second link third"),
        (on_tree, "link third fourth"),
        (on_digest, "link third fourth"),
    ] {
        let mut found = Vec::new();
        for path in ["first", "second", "link", "third", "fourth"] {
            let args = [("do", "exists"), ("path", &format!("/{path}"))];
            if fixture.run(&image(tree), &args).await.unwrap() == "true" {
                found.push(path);
            }
        }
        assert_eq!(found.join(" "), paths, "{tree}");
    }
    let loaded = |tree: ObjectId| format!("manifold-image:{tree}");
    let below = layers(&docker, &loaded(id)).await;
    let above = layers(&docker, &loaded(on_tree)).await;
    assert_eq!((&above[..2], above.len()), (&below[..], 3), "the engine shares layers");
    let below = layers(&docker, name).await;
    let above = layers(&docker, &loaded(on_digest)).await;
    assert_eq!((&above[..2], above.len()), (&below[..], 3));

    let missing = on(&format!("docker://sha256:{}", "0".repeat(64)));
    let error = fixture.run(&image(missing), &[("do", "log")]).await.unwrap_err().to_string();
    assert!(error.contains(&"0".repeat(64)), "{error}");

    // What is kept stays, and so do images that others have loaded.
    let own = [id, on_tree, on_digest];
    let removed = engine.remove_images(|tree| tree == id || !own.contains(&tree)).await.unwrap();
    assert_eq!(removed.len(), 2, "{removed:?}");
    assert!(docker.inspect_image(&loaded(on_tree)).await.is_err());
    assert!(docker.inspect_image(&loaded(id)).await.is_ok());
    let removed = engine.remove_images(|tree| !own.contains(&tree)).await.unwrap();
    assert_eq!(removed, [id]);
    assert!(docker.inspect_image(name).await.is_ok());
    // The image is loaded again when it is needed.
    let args = [("do", "exists"), ("path", "/link"), ("again", "")];
    assert_eq!(fixture.run(&image(id), &args).await.unwrap(), "true");
    docker.remove_image(name, None::<RemoveImageOptions>, None).await.unwrap();
}
