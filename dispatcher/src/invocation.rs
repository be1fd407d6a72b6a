//! [`Invocation`]: the description of a root call.

use std::hash::Hash;

use manifold_runtime_api::bstr::BString;
use manifold_runtime_api::{Limits, ObjectId, Result};
use quick_cache::Equivalent;

use crate::budget::Budget;
use crate::input::{self, Input};
use crate::objects::Objects;

/// A root call: an image, its arguments, and the settings that all nested runs inherit.
///
/// ```
/// use std::time::Duration;
///
/// use manifold_dispatcher::{Budget, Input, Invocation, Policy};
/// # let image = manifold_dispatcher::api::ObjectId::empty_tree();
///
/// let invocation = Invocation::new(image)
///     .arg("in", Input::file("notes.txt"))
///     .arg("language", "en")
///     .budget(Budget::default().deadline(Duration::from_secs(10)))
///     .policy(Policy::Recompute);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Invocation {
    /// The reference of the image to run.
    pub image: String,
    /// The id of an arguments tree, to which [`Invocation::arg`] adds arguments. Default: the empty
    /// tree.
    pub args: ObjectId,
    /// The arguments that [`Invocation::arg`] has added.
    named: Vec<(BString, Input)>,
    /// Text that changes the key of every request of this call and has no other effect. Default:
    /// empty.
    pub salt: String,
    /// The id of the tree of named images. Default: none.
    pub std: Option<ObjectId>,
    /// How the call uses the memo. Default: [`Policy::Reuse`].
    pub policy: Policy,
    /// Whether the outcome is pinned under the request's id. Default: `true`. The outcome of a call
    /// with [`Policy::DoNotCache`] is never pinned. Neither is an outcome that is not memoized
    /// because a failure that its request does not decide influenced it.
    pub pin: bool,
    /// The budget of the call. The dispatcher's own budget applies as well. Default: only the
    /// dispatcher's.
    pub budget: Option<Budget>,
    /// The limits of each frame of the call. The dispatcher's own limits apply as well. Default:
    /// only the dispatcher's.
    pub limits: Option<Limits>,
    /// Whether the [`Completion`](crate::Completion) has the memo entries of the call's runs, so that
    /// they can be given to another store. Default: `false`.
    pub collects: bool,
}

/// How a call uses the memo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Policy {
    /// Return a memoized outcome, or share a run in progress, or run the request. A success is
    /// memoized.
    #[default]
    Reuse,
    /// Run the request for this caller alone. The outcome is neither shared nor memoized. Nested
    /// runs use the memo.
    DoNotCache,
    /// Run the request even if its outcome is memoized. The run is shared, and its success replaces
    /// the memo entry. Nested runs use the memo.
    Recompute,
    /// Like [`Policy::Recompute`], for the request and all runs nested in it. Each request is run
    /// once for this call, even if another call is running it.
    RecomputeAll,
}

impl Invocation {
    /// Creates an invocation that runs `image` without arguments and with the default settings.
    /// `image` is an image reference: an id that [`Dispatcher::install`](crate::Dispatcher::install)
    /// returned, `/cas/std/<name>`, or `docker://…`.
    pub fn new(image: impl ToString) -> Self {
        Self {
            image: image.to_string(),
            args: ObjectId::empty_tree(),
            named: Vec::new(),
            salt: String::new(),
            std: None,
            policy: Policy::Reuse,
            pin: true,
            budget: None,
            limits: None,
            collects: false,
        }
    }

    /// Adds an argument. It replaces one of the same name, also in the tree of
    /// [`Invocation::args`].
    #[must_use]
    pub fn arg(mut self, name: impl Into<BString>, value: impl Into<Input>) -> Self {
        let name = name.into();
        self.named.retain(|(other, _)| *other != name);
        self.named.push((name, value.into()));
        self
    }

    /// Sets the arguments tree.
    #[must_use]
    pub fn args(mut self, args: ObjectId) -> Self {
        self.args = args;
        self
    }

    /// Sets the salt.
    #[must_use]
    pub fn salt(mut self, salt: impl Into<String>) -> Self {
        self.salt = salt.into();
        self
    }

    /// Sets the tree of named images.
    #[must_use]
    pub fn std(mut self, std: ObjectId) -> Self {
        self.std = Some(std);
        self
    }

    /// Sets how the call uses the memo.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Does not pin the outcome. The next collection may remove it.
    #[must_use]
    pub fn unpinned(mut self) -> Self {
        self.pin = false;
        self
    }

    /// Sets the budget of the call.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Sets the limits of each frame of the call.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Collects the memo entries of the call's runs ([`Completion::entries`](crate::Completion::entries)).
    #[must_use]
    pub fn collecting(mut self) -> Self {
        self.collects = true;
        self
    }

    /// Stores the named arguments, so that `args` is the tree of all arguments.
    pub(crate) fn with_stored_args(mut self, objects: &Objects) -> Result<Self> {
        if !self.named.is_empty() {
            self.args = input::put_tree(objects, objects.tree(self.args)?, &self.named)?.id;
            self.named.clear();
        }
        Ok(self)
    }

    /// Returns the key of the call. Named arguments must have been stored.
    pub(crate) fn raw_key(&self) -> RawKey<'_> {
        RawKey { image: &self.image, args: self.args, salt: &self.salt, std: self.std }
    }
}

/// The parts of a root call that determine its request, before names are resolved.
#[derive(Hash)]
pub(crate) struct RawKey<'a> {
    image: &'a str,
    args: ObjectId,
    salt: &'a str,
    std: Option<ObjectId>,
}

/// A [`RawKey`] that owns its strings.
#[derive(Clone, Hash, PartialEq, Eq)]
pub(crate) struct OwnedRawKey {
    image: Box<str>,
    args: ObjectId,
    salt: Box<str>,
    std: Option<ObjectId>,
}

impl RawKey<'_> {
    pub(crate) fn to_owned(&self) -> OwnedRawKey {
        OwnedRawKey {
            image: self.image.into(),
            args: self.args,
            salt: self.salt.into(),
            std: self.std,
        }
    }
}

impl Equivalent<OwnedRawKey> for RawKey<'_> {
    fn equivalent(&self, key: &OwnedRawKey) -> bool {
        *self.image == *key.image
            && self.args == key.args
            && *self.salt == *key.salt
            && self.std == key.std
    }
}
