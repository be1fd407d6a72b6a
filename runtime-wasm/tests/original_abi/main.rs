//! A guest compiled for the original ABI runs unchanged: it uses std, `wasm32-wasip1` and
//! handwritten JSON, without the SDK.

mod wasi;

use std::sync::{Arc, Mutex};

use manifold_dispatcher::{Dispatcher, Event, Invocation, Observer};
use manifold_runtime_api::{
    EntryMode, ObjectId, ObjectKind, ObjectRef, Reason, Runtime, TreeEntry,
};
use manifold_runtime_wasm::WasmRuntime;
use manifold_testing::built;

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Logged { message, .. } = event {
            self.0.lock().unwrap().push((*message).to_owned());
        }
    }
}

fn code() -> Vec<u8> {
    std::fs::read(built("wasip1-guest.wasm")).expect("the guests are built by `cargo xtask setup`")
}

struct Stage {
    dispatcher: Dispatcher,
    log: Arc<Log>,
    image: ObjectId,
}

fn stage() -> Stage {
    let log = Arc::new(Log::default());
    let runtime = WasmRuntime::new().unwrap();
    let wasm = runtime.host_image().id();
    let dispatcher =
        Dispatcher::builder().runtime(runtime).observer(Arc::clone(&log)).build().unwrap();
    let module = ObjectRef::blob(dispatcher.put_blob(code()).unwrap());
    let image = dispatcher.put_image(wasm, module).unwrap();
    Stage { dispatcher, log, image }
}

#[tokio::test]
async fn the_guest_runs_and_its_standard_output_is_the_log() {
    let Stage { dispatcher, log, image } = stage();
    let blob = dispatcher.put_blob("x").unwrap();
    let three = ["a", "b", "c"].map(|name| TreeEntry::new(name, EntryMode::Blob, blob));
    let three = dispatcher.put_tree(three).unwrap();
    let args = dispatcher.put_tree([TreeEntry::new("in", EntryMode::Tree, three)]).unwrap();
    let completion = dispatcher.run(Invocation::new(image).args(args)).await.unwrap();
    assert_eq!(completion.outcome, ObjectRef::blob(ObjectId::of(ObjectKind::Blob, b"3\n")));
    assert_eq!(*log.0.lock().unwrap(), ["hello from wasip1, 0 variables in the environment"]);
}

#[tokio::test]
async fn a_panic_is_logged_and_is_a_typed_error() {
    let Stage { dispatcher, log, image } = stage();
    let empty = dispatcher.put_tree([]).unwrap();
    let args = dispatcher
        .put_tree([
            TreeEntry::new("in", EntryMode::Tree, empty),
            TreeEntry::new("panic", EntryMode::Tree, empty),
        ])
        .unwrap();
    let error = dispatcher.run(Invocation::new(image).args(args)).await.unwrap_err();
    assert!(
        matches!(error.reason(), Reason::Trapped { .. } | Reason::GuestFailed { .. }),
        "{error:?}"
    );
    let log = log.0.lock().unwrap().join("\n");
    assert!(log.contains("asked to panic"), "{log}");
}

/// Checks the imports of the module, so that the other tests keep testing the original ABI.
#[test]
fn the_module_imports_only_the_original_abi() {
    let module = wasmtime::Module::from_binary(&wasmtime::Engine::default(), &code()).unwrap();
    let mut imports: Vec<_> =
        module.imports().map(|import| format!("{}.{}", import.module(), import.name())).collect();
    imports.sort();
    let expected = [
        "caos_abi_v1.call",
        "caos_abi_v1.read",
        "wasi_snapshot_preview1.environ_get",
        "wasi_snapshot_preview1.environ_sizes_get",
        "wasi_snapshot_preview1.fd_write",
        "wasi_snapshot_preview1.proc_exit",
    ];
    assert_eq!(imports, expected);
}
