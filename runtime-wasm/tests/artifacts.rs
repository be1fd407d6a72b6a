//! Compiled modules on disk.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use manifold_dispatcher::native::argument;
use manifold_dispatcher::{Budget, Dispatcher, Invocation};
use manifold_runtime_api::{EntryMode, ObjectRef, Runtime, TreeEntry};
use manifold_runtime_wasm::WasmRuntime;
use manifold_standard_guests as guests;
use tempfile::TempDir;

/// Counts the files of a tree with a runtime of its own, as another process would.
async fn fold(place: &TempDir, budget: Budget) {
    let runtime = WasmRuntime::builder().artifacts_in(place.path().join("cache")).build().unwrap();
    let host = runtime.host_image().id();
    let dispatcher = Dispatcher::builder().runtime(runtime).build().unwrap();
    let std = guests::install_for(&dispatcher, guests::Hosts::default().wasm(host)).unwrap();
    let blob = dispatcher.put_blob("content\n").unwrap();
    let tree = dispatcher.put_tree([TreeEntry::new("file", EntryMode::Blob, blob)]).unwrap();
    let post = ObjectRef::blob(dispatcher.put_blob("/cas/std/file-count").unwrap());
    let args = [argument("in", ObjectRef::tree(tree)), argument("post", post)];
    let image = dispatcher.read_tree(std).unwrap().get("fold").unwrap().id;
    let invocation = Invocation::new(image).args(dispatcher.put_tree(args).unwrap()).std(std);
    let completion = dispatcher.run(invocation.budget(budget)).await.unwrap();
    assert_eq!(dispatcher.read(completion.outcome.id).unwrap().content, "1\n");
}

/// Returns the inode of each file. A file that is written again has another one.
fn files(place: &TempDir) -> BTreeMap<PathBuf, u64> {
    let entries = fs::read_dir(place.path().join("cache")).unwrap();
    let entries = entries.map(|entry| entry.unwrap());
    entries.map(|entry| (entry.path(), entry.metadata().unwrap().ino())).collect()
}

#[tokio::test]
async fn a_module_is_compiled_once() {
    let place = TempDir::new().unwrap();
    fold(&place, Budget::default()).await;
    let first = files(&place);
    assert_eq!(first.len(), 2, "{first:?}");
    fold(&place, Budget::default()).await;
    assert_eq!(files(&place), first);
    // Code that counts fuel is other code.
    for _ in 0..2 {
        fold(&place, Budget::default().fuel(1 << 40)).await;
        assert_eq!(files(&place).len(), 4);
    }
}

#[tokio::test]
async fn artifacts_that_cannot_be_trusted_are_made_again() {
    let place = TempDir::new().unwrap();
    fold(&place, Budget::default()).await;
    let sound = files(&place);
    let path = sound.keys().next().unwrap();
    let bytes = fs::read(path).unwrap();
    let write = |bytes: &[u8], mode| {
        // A new file, so that the inode is not that of the one that was there.
        let other = place.path().join("other");
        fs::write(&other, bytes).unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(other, path).unwrap();
        files(&place)[path]
    };
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    for (other, mode) in
        [(&damaged[..], 0o600), (&bytes[..100], 0o600), (&[], 0o600), (&bytes, 0o666)]
    {
        let before = write(other, mode);
        fold(&place, Budget::default()).await;
        assert_ne!(files(&place)[path], before);
        assert_eq!(fs::read(path).unwrap().len(), bytes.len());
    }
    // One that is sound is not replaced.
    let before = write(&bytes, 0o600);
    fold(&place, Budget::default()).await;
    assert_eq!(files(&place)[path], before);
}

/// An artifact for another processor has a valid checksum, and wasmtime refuses it.
#[tokio::test]
async fn artifacts_for_other_settings_are_made_again() {
    let place = TempDir::new().unwrap();
    fold(&place, Budget::default()).await;
    let cache =
        manifold_cached_files::CachedFiles::new(place.path().join("cache"), "module-1", 1 << 30);
    let first = files(&place);
    let path = first.keys().next().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap().split_once("module-1-").unwrap().1;
    let mut artifact = cache.read(name).unwrap();
    // The target is in a section of the file.
    let target = format!("{}-unknown-linux", std::env::consts::ARCH);
    let at = artifact.windows(target.len()).position(|window| window == target.as_bytes());
    artifact[at.unwrap()] ^= 1;
    for foreign in [&artifact[..], b"not an artifact"] {
        cache.write(name, &[foreign]);
        fold(&place, Budget::default()).await;
        assert_ne!(cache.read(name).unwrap(), foreign);
    }
}

/// The image of its memory would have megabytes, though the module has some hundred bytes.
#[tokio::test]
async fn a_module_with_data_far_apart_is_small() {
    let place = TempDir::new().unwrap();
    let runtime = WasmRuntime::builder().artifacts_in(place.path().join("cache")).build().unwrap();
    let host = runtime.host_image().id();
    let dispatcher = Dispatcher::builder().runtime(runtime).build().unwrap();
    let empty = dispatcher.put_tree([]).unwrap();
    let module = format!(
        r#"(module
            (import "caos_abi_v1" "call" (func $call (param i32 i32) (result i32)))
            (memory (export "memory") 250)
            (data (i32.const 0) "{{\22op\22:\22out\22,\22kind\22:\22tree\22,\22hash\22:\22{empty}\22}}")
            (data (i32.const 16000000) "x")
            (func (export "caos_run")
                (if (i32.eq (i32.load8_u (i32.const 16000000)) (i32.const 120))
                    (then (drop (call $call (i32.const 0) (i32.const 76)))))))"#
    );
    let module = ObjectRef::blob(dispatcher.put_blob(wat::parse_str(module).unwrap()).unwrap());
    let image = dispatcher.put_image(host, module).unwrap();
    let completion = dispatcher.run(Invocation::new(image).args(empty)).await.unwrap();
    assert_eq!(completion.outcome.id, empty, "the data is in place");
    let artifact = fs::metadata(files(&place).keys().next().unwrap()).unwrap();
    assert!(artifact.len() < 1 << 20, "{} bytes", artifact.len());
}
