//! [`TierOptions`]: how the calls of a dispatcher use a shared cache.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{CacheError, check_name};

/// Is told what went wrong, and what the tier still does with its cache.
type Listener = Arc<dyn Fn(&CacheError, Use) + Send + Sync>;

/// How the calls of a dispatcher use a shared cache.
#[derive(Clone)]
#[must_use]
pub struct TierOptions {
    pub(super) name: Option<String>,
    pub(super) head_start: Duration,
    pub(super) look_up_within: Duration,
    pub(super) fetch_within: Duration,
    pub(super) on_problem: Listener,
}

/// What a tier still does with its cache after a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Use {
    /// It is not used any more.
    Ended,
    /// It is read, and nothing is sent.
    ReadOnly,
    /// It is used without the ref.
    WithoutRef,
}

impl fmt::Debug for TierOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TierOptions").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Default for TierOptions {
    fn default() -> Self {
        Self {
            name: None,
            head_start: Duration::from_secs(2),
            look_up_within: Duration::from_secs(10),
            fetch_within: Duration::from_secs(60),
            on_problem: Arc::new(|error, _| tracing::warn!("{}", error.in_a_line())),
        }
    }
}

impl TierOptions {
    /// Begins with the outcomes that the ref `name` has, and lets it have those of the calls.
    ///
    /// # Errors
    /// [`CacheError::RefName`] if no ref can have that name.
    pub fn name(mut self, name: &str) -> Result<Self, CacheError> {
        self.name = Some(check_name(name)?.to_owned());
        Ok(self)
    }

    /// Sets how long a call waits for the cache before it is run beside the look-up. Default: 2 seconds.
    pub fn head_start(mut self, time: Duration) -> Self {
        self.head_start = time;
        self
    }

    /// Sets how long the cache may take for a connection, and for the look-up of a call. Default: 10
    /// seconds.
    pub fn look_up_within(mut self, time: Duration) -> Self {
        self.look_up_within = time;
        self
    }

    /// Sets how long the cache may take for the outcomes of a ref. Default: 60 seconds.
    pub fn fetch_within(mut self, time: Duration) -> Self {
        self.fetch_within = time;
        self
    }

    /// Sets what is called when the cache fails or refuses something, with what the tier still does with
    /// it. It is called at most once. Default: an event of `tracing`.
    pub fn on_problem(mut self, handle: impl Fn(&CacheError, Use) + Send + Sync + 'static) -> Self {
        self.on_problem = Arc::new(handle);
        self
    }
}
