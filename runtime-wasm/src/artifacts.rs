//! [`Artifacts`]: compiled modules on disk, so that each is compiled once on a machine.
#![expect(unsafe_code, reason = "machine code is loaded from files")]

use std::path::PathBuf;

use manifold_cached_files::CachedFiles;
use manifold_runtime_api::{HostImage, ObjectId};
use wasmtime::{Engine, Module};

use crate::engines::{Placement, Target};

/// The compiled modules in a directory.
pub(crate) struct Artifacts {
    files: CachedFiles,
    /// The id of the host image, which has the version of wasmtime and the settings that affect
    /// outcomes.
    host: ObjectId,
}

impl Artifacts {
    pub(crate) fn new(directory: PathBuf, host: &HostImage) -> Self {
        const MAX_BYTES: u64 = 256 << 20;
        Self { files: CachedFiles::new(directory, "module-1", MAX_BYTES), host: host.id() }
    }

    fn name(&self, module: ObjectId, target: Target) -> String {
        let placement = match target.placement {
            Placement::Pool => "pool",
            Placement::Heap => "heap",
        };
        let metered = if target.metered { "-metered" } else { "" };
        format!("{module}-{}-{placement}{metered}", self.host)
    }

    /// Loads a module. Returns `None` if it is not there, damaged, another user's, or compiled for
    /// another processor or other settings.
    pub(crate) fn load(&self, engine: &Engine, module: ObjectId, target: Target) -> Option<Module> {
        let artifact = self.files.read(&self.name(module, target))?;
        // SAFETY: the code is what `save` wrote. Only this user can write the file, and its checksum
        // matches. wasmtime checks that it was compiled by the same version for the same settings
        // and a processor with the same features.
        match unsafe { Module::deserialize(engine, &artifact) } {
            Ok(module) => Some(module),
            Err(error) => {
                tracing::debug!("module {module} is compiled again: {error:#}");
                None
            }
        }
    }

    /// Saves a module. If that is not possible, it is compiled again next time.
    pub(crate) fn save(&self, compiled: &Module, module: ObjectId, target: Target) {
        match compiled.serialize() {
            Ok(artifact) => self.files.write(&self.name(module, target), &[&artifact]),
            Err(error) => tracing::debug!("module {module} cannot be saved: {error:#}"),
        }
    }
}
