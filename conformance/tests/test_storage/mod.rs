//! A store with a collection and a source, for tests, and the ways in which they can violate their
//! contracts.
#![allow(dead_code, unused_imports, reason = "not every test uses all of the stores and sources")]

mod source;
mod store;

pub(crate) use source::{SourceFlaw, TestSource};
pub(crate) use store::{StoreFlaw, TestStores};
