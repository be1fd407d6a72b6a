//! The guests that come with Manifold, and the tree that names them.

use manifold_dispatcher::{Dispatcher, ObjectSource};
use manifold_runtime_api::{
    EntryMode, Error, Module, Object, ObjectId, ObjectKind, Result, TreeEntry,
};

macro_rules! source {
    ($file:literal) => {
        include_str!(concat!("../../fold-guests/typescript/", $file))
    };
}

/// The wasm guests' names and code, as the set-up built them. Empty when the set-up had not run before this was compiled.
pub static GUESTS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/guests.rs"));

/// The same guests in TypeScript: their names, and the files of each by path.
pub static TYPESCRIPT_GUESTS: &[(&str, &[(&str, &str)])] = &[
    ("dirs-only.ts", &[("main.ts", source!("dirs-only.ts")), SDK]),
    ("file-count.ts", &[("main.ts", source!("file-count.ts")), SDK, VISITOR]),
    ("fold.ts", &[("main.ts", source!("fold.ts")), SDK]),
    ("line-count.ts", &[("main.ts", source!("line-count.ts")), SDK, VISITOR]),
    ("total-size.ts", &[("main.ts", source!("total-size.ts")), SDK, VISITOR]),
];

const SDK: (&str, &str) = ("sdk.ts", source!("sdk.ts"));
const VISITOR: (&str, &str) = ("visitor.ts", source!("visitor.ts"));

/// The same guests as Rust programs for containers: their names, the programs' ids, and the programs. Empty when the set-up had not
/// run before this was compiled, or cannot build them on this system.
pub static CONTAINER_GUESTS: &[(&str, &str, &[u8])] =
    include!(concat!(env!("OUT_DIR"), "/container_guests.rs"));

/// The configuration of the container guests' images.
const CONFIG: &str = "{\"config\":{\"Entrypoint\":[\"/guest\"]}}\n";

/// The programs of the container guests, as a source of objects: they are large, and only read when one is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct ContainerPrograms;

impl ObjectSource for ContainerPrograms {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        Ok(program(id).map(Object::blob))
    }

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        Ok(program(id).map(|_| ObjectKind::Blob))
    }
}

fn program(id: ObjectId) -> Option<&'static [u8]> {
    CONTAINER_GUESTS
        .iter()
        .find(|(_, hex, _)| ObjectId::from_hex(hex) == Ok(id))
        .map(|(_, _, program)| *program)
}

/// The host image hashes of the runtimes that the guests are for. Guests of a runtime that is not there are left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hosts {
    /// The wasm runtime's.
    pub wasm: Option<ObjectId>,
    /// The V8 runtime's.
    pub typescript: Option<ObjectId>,
    /// The container runtime's. The dispatcher needs [`ContainerPrograms`] among its sources.
    pub container: Option<ObjectId>,
    /// That of the container runtime whose containers serve many jobs, with the same condition.
    pub serving: Option<ObjectId>,
}

/// Stores every guest as an image, and the tree that names them: the standard tree, in which `/cas/std/<name>` finds them.
/// Answers the tree's id.
///
/// # Errors
/// `RuntimeFailed` when this program was built without the wasm guests that it is asked for; what the store answers.
pub fn install(dispatcher: &Dispatcher, hosts: Hosts) -> Result<ObjectId> {
    let mut entries = Vec::new();
    if let Some(host) = hosts.wasm {
        if GUESTS.is_empty() {
            return Err(Error::runtime(
                "this program was built without guests; run `cargo xtask setup` and build it again",
            ));
        }
        for (name, code) in GUESTS {
            let module = Module { kind: ObjectKind::Blob, id: dispatcher.put_blob(*code)? };
            let image = dispatcher.put_image(host, module)?;
            entries.push(TreeEntry::new(*name, EntryMode::Tree, image));
            if *name == "fold" {
                // Under this name the fold of the original system looks itself up.
                entries.push(TreeEntry::new("fold-wasm", EntryMode::Tree, image));
            }
        }
    }
    if let Some(host) = hosts.typescript {
        for (name, files) in TYPESCRIPT_GUESTS {
            let module = Module { kind: ObjectKind::Tree, id: put_files(dispatcher, files)? };
            entries.push(TreeEntry::new(
                *name,
                EntryMode::Tree,
                dispatcher.put_image(host, module)?,
            ));
        }
    }
    let containers = [("docker", hosts.container), ("serving", hosts.serving)];
    let containers: Vec<_> =
        containers.into_iter().filter_map(|(kind, host)| Some((kind, host?))).collect();
    if !containers.is_empty() {
        let config = dispatcher.put_blob(CONFIG)?;
        for (name, hex, _) in CONTAINER_GUESTS {
            let program = ObjectId::from_hex(hex).map_err(Error::runtime)?;
            let module =
                Module { kind: ObjectKind::Tree, id: put_container(dispatcher, config, program)? };
            for (kind, host) in &containers {
                let image = dispatcher.put_image(*host, module)?;
                entries.push(TreeEntry::new(format!("{name}.{kind}"), EntryMode::Tree, image));
            }
        }
    }
    dispatcher.put_tree(entries)
}

/// Stores a container image of one program, which is stored already, and its configuration.
fn put_container(dispatcher: &Dispatcher, config: ObjectId, program: ObjectId) -> Result<ObjectId> {
    let layer = dispatcher.put_tree([TreeEntry::new("guest", EntryMode::Executable, program)])?;
    dispatcher.put_tree([
        TreeEntry::new("config.json", EntryMode::Blob, config),
        TreeEntry::new("layer00", EntryMode::Tree, layer),
    ])
}

fn put_files(
    dispatcher: &Dispatcher,
    files: &'static [(&'static str, &'static str)],
) -> Result<ObjectId> {
    let entries = files.iter().map(|(path, text)| {
        Ok(TreeEntry::new(*path, EntryMode::Blob, dispatcher.put_blob(text.as_bytes())?))
    });
    dispatcher.put_tree(entries.collect::<Result<Vec<_>>>()?)
}
