//! The first process of the containers that have one job at a time, and the connection to it.
//!
//! `container-init` starts the image's program for each job and cleans up after it. It is built by
//! the set-up of the repository, is part of this crate's package, and is mounted in containers. If the
//! engine does not see the files of this machine, images carry it.

mod carried;
mod frame;
mod link;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

pub(crate) use carried::image_with_init;
pub(crate) use link::{Ended, Link, Recycled};

/// The program, for this machine's processor. `None` if the set-up has not built it.
const PROGRAM: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/init.rs"));

/// Where it is in a container.
pub(crate) const PATH: &str = "/run/manifold/init";

/// Returns the program.
fn program() -> io::Result<&'static [u8]> {
    PROGRAM.ok_or_else(|| {
        io::Error::other(
            "this build has no `container-init` for this processor; in a checkout on Linux, run \
             `cargo xtask setup` and build it again",
        )
    })
}

/// Where the init of a container comes from.
pub(crate) enum Place {
    /// The file at this path of this machine is mounted.
    Mounted(String),
    /// The image of this name has it.
    Image(Arc<str>),
}

/// The program in a file of this machine, from which it is mounted.
pub(crate) struct InitFile {
    path: PathBuf,
    _directory: TempDir,
}

impl InitFile {
    pub(crate) fn write() -> io::Result<Self> {
        let program = program()?;
        // Other users cannot enter the directory. The engine mounts the file itself.
        let directory = tempfile::Builder::new().prefix("manifold-").tempdir()?;
        let path = directory.path().join("init");
        fs::write(&path, program)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o555))?;
        Ok(Self { path, _directory: directory })
    }

    pub(crate) fn path(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }
}
