/// How far a long piece of work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is counted, in words for a person.
    pub what: &'static str,
    /// How many are done.
    pub done: u64,
    /// How many there are.
    pub total: u64,
}

impl Progress {
    /// `done` of `total`.
    pub const fn new(what: &'static str, done: u64, total: u64) -> Self {
        Self { what, done, total }
    }
}
