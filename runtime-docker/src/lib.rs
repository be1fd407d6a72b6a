#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)
)]

mod containers;
mod conversation;
mod engine;
mod images;
mod init;
mod job;
mod limits;
mod pool;
mod prepare;
mod runtime;
mod serving;
mod spec;
mod wire;
mod worker;

pub use containers::Mode;
pub use engine::{ContainerEngine, EngineError, EngineOptions, Step};
pub use images::{ImportError, ImportOptions, ImportProgress, check_image, is_image};
pub use limits::{Isolation, Seccomp};
pub use runtime::{DockerRuntime, DockerRuntimeBuilder};
