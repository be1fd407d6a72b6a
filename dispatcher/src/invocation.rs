use std::hash::Hash;

use manifold_runtime_api::{Limits, ObjectId, Outcome};
use quick_cache::Equivalent;

use crate::budget::Budget;

/// A call from outside: an image, its arguments, and what the whole tree of nested runs inherits.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Invocation {
    /// The image reference.
    pub image: String,
    /// The arguments tree.
    pub args: ObjectId,
    /// Opaque text that changes every key under this call and nothing else. Default: empty.
    pub salt: String,
    /// The tree of named images. Default: none.
    pub std: Option<ObjectId>,
    /// What the memo is used for. Default: [`Policy::Reuse`].
    pub policy: Policy,
    /// Whether the outcome is pinned under the request's id. Default: it is, unless the policy is [`Policy::DoNotCache`]. An
    /// outcome that is not remembered, as a breach or a clock had a part in it, is not pinned either.
    pub pin: bool,
    /// What the call may use up, within the dispatcher's own budget. Default: the dispatcher's.
    pub budget: Option<Budget>,
    /// What each frame may use up, within the dispatcher's own limits. Default: the dispatcher's.
    pub limits: Option<Limits>,
}

/// What a call uses the memo for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Policy {
    /// An outcome that is remembered is the answer, a run under way is shared, and a success is remembered.
    #[default]
    Reuse,
    /// The request is run for this caller alone, and its outcome is neither shared nor remembered. Nested runs use the memo.
    DoNotCache,
    /// The request is run though its outcome may be remembered. The run is shared, and its success replaces what was
    /// remembered. Nested runs use the memo.
    Recompute,
    /// As [`Policy::Recompute`], for the request and all that it leads to: each is run once for this call, also where another
    /// call is running it.
    RecomputeAll,
}

impl Invocation {
    /// Runs `image` on `args`.
    pub fn new(image: impl ToString, args: ObjectId) -> Self {
        Self {
            image: image.to_string(),
            args,
            salt: String::new(),
            std: None,
            policy: Policy::Reuse,
            pin: true,
            budget: None,
            limits: None,
        }
    }

    /// With a salt.
    #[must_use]
    pub fn salt(mut self, salt: impl Into<String>) -> Self {
        self.salt = salt.into();
        self
    }

    /// With a tree of named images.
    #[must_use]
    pub fn std(mut self, std: ObjectId) -> Self {
        self.std = Some(std);
        self
    }

    /// With another policy.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Without a pin: nothing protects the outcome from the next collection.
    #[must_use]
    pub fn unpinned(mut self) -> Self {
        self.pin = false;
        self
    }

    /// With a budget of its own.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// With limits of its own.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    pub(crate) fn spelling(&self) -> Spelling<'_> {
        Spelling { image: &self.image, args: self.args, salt: &self.salt, std: self.std }
    }
}

/// What a call from outside answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Completion {
    /// The id of the request that the call came down to. The request itself is in the store, unless a collection took it away.
    pub request: ObjectId,
    /// The outcome.
    pub outcome: Outcome,
    /// Whether the outcome was remembered, and nothing was run.
    pub remembered: bool,
}

/// What decides a call's key, before names are resolved.
#[derive(Hash)]
pub(crate) struct Spelling<'a> {
    image: &'a str,
    args: ObjectId,
    salt: &'a str,
    std: Option<ObjectId>,
}

/// A [`Spelling`] that owns its texts.
#[derive(Clone, Hash, PartialEq, Eq)]
pub(crate) struct OwnedSpelling {
    image: Box<str>,
    args: ObjectId,
    salt: Box<str>,
    std: Option<ObjectId>,
}

impl Spelling<'_> {
    pub(crate) fn to_owned(&self) -> OwnedSpelling {
        OwnedSpelling {
            image: self.image.into(),
            args: self.args,
            salt: self.salt.into(),
            std: self.std,
        }
    }
}

impl Equivalent<OwnedSpelling> for Spelling<'_> {
    fn equivalent(&self, key: &OwnedSpelling) -> bool {
        *self.image == *key.image
            && self.args == key.args
            && *self.salt == *key.salt
            && self.std == key.std
    }
}
