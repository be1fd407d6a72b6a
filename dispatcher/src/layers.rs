//! Wrappers that each add one behavior to a source, a store or a runtime.
//!
//! Layers nest: `Measured::new(Verified::new(store))` is also a store.
//!
//! | layer | around a source or store | around a runtime |
//! |---|---|---|
//! | [`Verified`] | returns an error for an object whose content does not match its id | |
//! | [`Measured`] | counts operations, bytes and time | counts jobs and their time |
//! | [`Delayed`] | delays every operation | delays every job |
//! | [`Overlaid`] | puts a writable store over a read-only one | |
//! | [`Faulty`] | loses objects, fails operations, fails after writing | fails jobs |

mod delayed;
mod faulty;
mod measured;
mod overlaid;
mod verified;

pub use delayed::Delayed;
pub use faulty::{Faults, Faulty};
pub use measured::{Measured, Measures};
pub use overlaid::Overlaid;
pub use verified::Verified;
