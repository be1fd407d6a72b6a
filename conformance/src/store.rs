//! The checks of a [`Store`], and the [`StoreFixture`] that they need.

mod durability;
mod memo;
mod objects;
mod pins;

use std::sync::Arc;
use std::time::Duration;

use manifold_dispatcher::Store;
use manifold_runtime_api::{Object, ObjectId};

use crate::behavior;
use crate::check::{Check, Step, conclude, ensure};
use crate::content::{Known, samples, succeeds};

/// Supplies stores to the checks of [`store_checks`]. Only the first method is required.
pub trait StoreFixture: Send + Sync + 'static {
    /// Creates a store that contains nothing. Each call returns another one.
    fn store(&self) -> Arc<dyn Store>;

    /// Closes `store` and opens another one on the same data, as a process does that starts later.
    /// `store` is the only reference to it. Returns `None` if the data does not outlive the store,
    /// which skips the checks of durability. Default: `None`.
    fn reopen(&self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        let _ = store;
        None
    }

    /// Removes everything from `store` that its contract allows it to remove, by eviction or
    /// collection. Returns `false` if the store has neither, which skips the checks of pins that
    /// need it. Default: `false`.
    fn collect(&self, store: &Arc<dyn Store>) -> bool {
        let _ = store;
        false
    }

    /// Returns why the check called `check` does not apply to this store. It is then reported as
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
            run: |fixture: Arc<dyn StoreFixture>| {
                conclude(async move { $module::$name(&*fixture) })
            },
            skip_reason: |fixture: &dyn StoreFixture, name: &str| fixture.skip_reason(name),
            patience: |fixture: &dyn StoreFixture| fixture.patience(),
        }),*]
    };
}

/// Returns the checks of a store, in the order in which they are best read.
pub fn store_checks() -> Vec<Check<dyn StoreFixture>> {
    crate::__store_checks!([list])
}

/// Writes an object, whose id has to be returned.
fn write(store: &dyn Store, known: &Known) -> Step {
    let id = succeeds(&format!("`write` of {known}"), store.write(known.object.clone()))?;
    ensure(id == known.id, format!("`write` to return the id of {known}"), || id.to_string())
}

/// Writes all [`samples`], and returns them.
fn write_samples(store: &dyn Store) -> Step<Vec<Known>> {
    let samples = samples()?;
    samples.iter().try_for_each(|known| write(store, known))?;
    Ok(samples)
}

/// Returns the id of the request with this number.
fn request(number: usize) -> ObjectId {
    Object::blob(format!("request {number}")).id()
}
