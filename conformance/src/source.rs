//! The checks of an [`ObjectSource`], and the [`SourceFixture`] that they need.

mod checks;

use std::sync::Arc;
use std::time::Duration;

use manifold_dispatcher::ObjectSource;
use manifold_runtime_api::{Object, ObjectId};

use crate::behavior;
use crate::check::{Check, conclude};

/// Supplies a source to the checks of [`source_checks`]. Only the first two methods are required.
pub trait SourceFixture: Send + Sync + 'static {
    /// Returns the source. It may be the same one each time.
    fn source(&self) -> Arc<dyn ObjectSource>;

    /// Returns objects that the source has: best some blobs and some trees, empty and large ones
    /// among them.
    fn objects(&self) -> Vec<Object>;

    /// Returns the id of an object that the source has and that is neither a blob nor a tree, such
    /// as a commit. Default: `None`, which skips the check.
    fn object_of_another_kind(&self) -> Option<ObjectId> {
        None
    }

    /// Returns why the check called `check` does not apply to this source. It is then reported as
    /// skipped for this reason. Default: `None`, for every check.
    fn skip_reason(&self, check: &str) -> Option<String> {
        let _ = check;
        None
    }

    /// Returns the unit of the time that a check may take: twenty times this. Default: 30 s.
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

macro_rules! list {
    ({} $($module:ident::$name:ident: $behavior:ident,)*) => {
        vec![$(Check {
            name: stringify!($name),
            behavior: behavior::$behavior,
            run: |fixture: Arc<dyn SourceFixture>| {
                conclude(async move { $module::$name(&*fixture) })
            },
            skip_reason: |fixture: &dyn SourceFixture, name: &str| fixture.skip_reason(name),
            patience: |fixture: &dyn SourceFixture| fixture.patience(),
        }),*]
    };
}

/// Returns the checks of a source, in the order in which they are best read.
pub fn source_checks() -> Vec<Check<dyn SourceFixture>> {
    crate::__source_checks!([list])
}
