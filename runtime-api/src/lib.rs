#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)
)]

pub mod abi;
mod entry_name;
mod error;
mod git_attributes_name;
mod host;
mod host_image;
mod image;
mod limits;
mod meter;
mod object;
mod reason;
mod request;
mod runtime;
mod stopwatch;
mod test_host;
mod tree;

pub use entry_name::NameProblem;
pub use error::{Error, ErrorKind, Frame, Result, Status};
pub use host::{Call, Host};
pub use host_image::{HostImage, HostImageBuilder};
pub use image::{
    CURRY_MARKER, Code, CurryNode, DockerReference, EncodedNode, HostRef, ImageProblem, ImageRef,
    MAX_IMAGE_DEPTH, NodeShape, RUNTIME_MARKER, RuntimeNode,
};
pub use limits::Limits;
pub use meter::{MemoryReservation, Meter};
pub use object::{IdError, Object, ObjectId, ObjectKind, ObjectRef};
pub use reason::{Limit, Reason};
pub use request::{Request, RequestScope};
pub use runtime::{Capabilities, Job, Runtime};
pub use stopwatch::Stopwatch;
pub use test_host::TestHost;
pub use tree::{EntryMode, Tree, TreeEntry, TreeError};

// Re-exported for implementers, because public traits and signatures use them.
pub use async_trait::async_trait;
pub use {bstr, bytes};

#[doc(hidden)]
pub type Outcome = ObjectRef;
#[doc(hidden)]
pub type Module = ObjectRef;
