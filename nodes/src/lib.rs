#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod away;
mod bus;
mod claim;
mod cycle;
mod error;
mod give;
mod inputs;
mod long_runs;
mod memo;
mod message;
mod node;
mod objects;
mod options;
mod policy;
#[cfg(test)]
mod simulation;
mod take;

pub use error::NodeError;
pub use inputs::Inputs;
pub use node::Node;
pub use options::NodeOptions;
