//! Sizes and parts of blobs, without reading the rest where the source can tell.

use std::process::Command;

use manifold_dispatcher::api::{Object, ObjectId, Reason};
use manifold_dispatcher::native::NativeRuntime;
use manifold_dispatcher::{
    DirectoryObjects, Dispatcher, DurableStore, GitObjects, Invocation, MemoryStore, ObjectSource,
    Store,
};

const SIZES: [usize; 6] = [0, 1, 100, 5_000, 70_000, 1 << 20];

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index * 7 % 251) as u8).collect()
}

fn check(source: &dyn ObjectSource) {
    for size in SIZES {
        let object = Object::blob(content(size));
        let id = object.id();
        assert_eq!(source.size(id).unwrap(), Some(size as u64));
        for (start, end) in [(0, 0), (0, 10), (3, 7), (90, 200), (0, u64::MAX), (u64::MAX, 0)] {
            let part = source.read_range(id, start..end).unwrap().unwrap();
            assert_eq!(part, object.range(start..end), "{size}: {start}..{end}");
        }
    }
    let missing = Object::blob("not there").id();
    assert_eq!(source.size(missing).unwrap(), None);
    assert_eq!(source.read_range(missing, 0..1).unwrap(), None);
}

#[test]
fn stores_and_sources_tell_the_size_of_what_they_have() {
    let place = tempfile::tempdir().unwrap();
    let memory = MemoryStore::new();
    let durable = DurableStore::open(place.path().join("store")).unwrap();
    let files = place.path().join("files");
    std::fs::create_dir(&files).unwrap();
    for size in SIZES {
        memory.write(Object::blob(content(size))).unwrap();
        durable.write(Object::blob(content(size))).unwrap();
        std::fs::write(files.join(size.to_string()), content(size)).unwrap();
    }
    check(&memory);
    check(&durable);
    durable.flush().unwrap();
    drop(durable);
    check(&DurableStore::open(place.path().join("store")).unwrap());
    check(&DirectoryObjects::scan(&files).unwrap());
}

#[test]
fn a_repository_tells_sizes_of_loose_and_packed_objects_and_of_deltas() {
    let place = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(["-c", "user.name=n", "-c", "user.email=e@x", "-c", "gc.auto=0"])
            .args(arguments)
            .current_dir(place.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    git(&["init", "--quiet"]);
    for size in SIZES {
        std::fs::write(place.path().join(size.to_string()), content(size)).unwrap();
    }
    // Versions of a file that are stored as deltas.
    let mut text = content(200_000);
    for version in 0..5u8 {
        text.splice(1000..1000, [version; 500]);
        std::fs::write(place.path().join("versions"), &text).unwrap();
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", "m"]);
    }
    let check_all = || {
        let source = GitObjects::open(place.path()).unwrap();
        check(&source);
        let list = git(&["cat-file", "--batch-check", "--batch-all-objects"]);
        let mut blobs = 0;
        for line in list.lines() {
            let [id, kind, size] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let id: ObjectId = id.parse().unwrap();
            if kind == "blob" || kind == "tree" {
                assert_eq!(source.size(id).unwrap(), Some(size.parse().unwrap()), "{line}");
                blobs += 1;
            } else {
                let error = source.size(id).unwrap_err();
                assert!(matches!(error.reason(), Reason::WrongKind { .. }), "{error:?}");
            }
        }
        assert!(blobs > 10);
    };
    check_all();
    git(&["repack", "-adfq", "--depth=50", "--window=50"]);
    check_all();
}

#[tokio::test]
async fn a_guest_asks_for_the_size_of_a_file_that_is_then_never_read() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("file"), content(5_000)).unwrap();
    let directory = DirectoryObjects::scan(place.path()).unwrap();
    let root = directory.root();
    let dispatcher = Dispatcher::builder().source(directory).build().unwrap();
    let guests = NativeRuntime::builder("sizes", "1")
        .guest("size", |guest| async move {
            let tree = guest.required("in").await?.id;
            let file = guest.host().tree(tree).await?.get("file").unwrap().id;
            guest.blob(guest.host().size(file).await?.to_string()).await
        })
        .build()
        .unwrap();
    let host = dispatcher.add_runtime(guests).unwrap();
    let image = dispatcher.install(host, "size").unwrap();
    // Reading the file would notice that it has changed.
    std::fs::write(place.path().join("file"), "other").unwrap();
    let completion = dispatcher.run(Invocation::new(image).arg("in", root)).await.unwrap();
    assert_eq!(completion.text().unwrap(), "5000");
}
