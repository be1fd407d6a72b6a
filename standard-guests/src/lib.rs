#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod install;
mod native;

use std::collections::HashMap;
use std::sync::LazyLock;

use manifold_dispatcher::ObjectSource;
use manifold_runtime_api::{Object, ObjectId, ObjectKind, Result};

pub use install::{Hosts, install, install_for};
pub use native::native_guests;

/// The wasm guests: name, object id and code. Empty if `cargo xtask setup` had not run when this
/// crate was compiled.
pub static WASM_GUESTS: &[(&str, &str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/wasm.rs"));

/// The files of the TypeScript guests: name without `.ts`, and text. Each guest is one file and
/// what it imports. Empty if `cargo xtask setup` had not run when this crate was compiled.
pub static TYPESCRIPT_FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/typescript.rs"));

/// The container guests, which are Rust programs: name, object id and program. Empty in the
/// published package, if `cargo xtask setup` had not run when this crate was compiled, and on
/// systems for which it cannot build them.
pub static CONTAINER_GUESTS: &[(&str, &str, &[u8])] =
    include!(concat!(env!("OUT_DIR"), "/containers.rs"));

/// A source of the wasm and the container guests. They are large, and are read only when one is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmbeddedGuests;

impl ObjectSource for EmbeddedGuests {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        Ok(code(id).map(Object::blob))
    }

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        Ok(code(id).map(|_| ObjectKind::Blob))
    }

    fn size(&self, id: ObjectId) -> Result<Option<u64>> {
        Ok(code(id).map(|code| code.len() as u64))
    }
}

fn code(id: ObjectId) -> Option<&'static [u8]> {
    static BY_ID: LazyLock<HashMap<ObjectId, &[u8]>> = LazyLock::new(|| {
        let guests = WASM_GUESTS.iter().chain(CONTAINER_GUESTS);
        guests.filter_map(|(_, hex, code)| Some((ObjectId::from_hex(hex).ok()?, *code))).collect()
    });
    BY_ID.get(&id).copied()
}
