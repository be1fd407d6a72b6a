#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)
)]

mod conversation;
mod engine;
mod error;
mod image;
mod isolation;
mod owner;
mod pool;
mod retry;
mod runtime;
mod serving;
mod spec;
mod wire;

pub use engine::{ContainerEngine, EngineOptions};
pub use error::{EngineError, Step};
pub use isolation::{Isolation, Seccomp};
pub use runtime::{DockerRuntime, DockerRuntimeBuilder, Mode};
