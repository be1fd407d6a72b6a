#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)
)]

pub mod abi;
mod entry_mode;
mod entry_name;
mod error;
mod error_kind;
mod git_attributes_name;
mod host;
mod host_image;
mod image;
mod image_problem;
mod limits;
mod meter;
mod object;
mod reason;
mod report;
mod request;
mod runtime;
mod stopwatch;
mod test_host;
mod tree;

pub use entry_mode::EntryMode;
pub use entry_name::NameProblem;
pub use error::{Error, Frame, Result};
pub use error_kind::{ErrorKind, Status};
pub use host::{Call, Host};
pub use host_image::{HostImage, HostImageBuilder};
pub use image::{
    CURRY_MARKER, Code, CurryNode, DockerReference, EncodedNode, HostRef, ImageRef, NodeShape,
    RUNTIME_MARKER, RuntimeNode,
};
pub use image_problem::{ImageProblem, MAX_IMAGE_DEPTH};
pub use limits::Limits;
pub use meter::{MemoryReservation, Meter};
pub use object::{IdError, Object, ObjectId, ObjectKind, ObjectRef};
pub use reason::{Limit, Reason};
pub use report::{JobPhase, Report};
pub use request::{Request, RequestScope};
pub use runtime::{Capabilities, Job, Runtime};
pub use stopwatch::Stopwatch;
pub use test_host::TestHost;
pub use tree::{Tree, TreeEntry, TreeError};

// Re-exported for implementers, because public traits and signatures use them.
pub use async_trait::async_trait;
pub use {bstr, bytes};
