use std::sync::Arc;

use parking_lot::Mutex;

use super::operation::{Answer, Operation};
use super::{binary, json};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::object::ObjectId;
use crate::reason::{Limit, Reason};
use crate::request::Outcome;
use crate::runtime::Job;
use crate::tree::{Tree, TreeEntry};

/// One job's conversation with its host.
///
/// # Behavior
/// - A backend whose guests ask for several things at a time may serve them at the same time.
/// - `out` names the outcome; a second `out` fails the job.
/// - `fail`, a breached limit, and a request that is not JSON end the job: [`Session::has_ended`] is true from then on, and the backend stops
///   the guest.
/// - Any other operation that fails is answered with the error, and the guest goes on. If the job fails later, the last such
///   error is given as the cause, so that a guest's panic does not hide why. A guest that traps, exits or names no outcome has the
///   end of its log between, up to 1 KiB.
pub struct Session {
    job: Job,
    host: Arc<dyn Host>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    outcome: Option<Outcome>,
    verdict: Option<Error>,
    last_error: Option<Error>,
    log_bytes_left: u64,
    /// The end of what the guest has logged.
    last_words: String,
    /// Whether it was said that the rest is dropped.
    log_closed: bool,
}

/// How much of a guest's log an error may quote, in bytes.
const LAST_WORDS: usize = 1024;

impl State {
    fn keep_words(&mut self, message: &str) {
        if !self.last_words.is_empty() {
            self.last_words.push('\n');
        }
        self.last_words.push_str(message);
        let excess = self.last_words.len().saturating_sub(LAST_WORDS);
        self.last_words.drain(..self.last_words.ceil_char_boundary(excess));
    }
}

/// How a guest writes its requests and reads its responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// JSON objects, without line ends: `caos_abi_v1`.
    Json,
    /// Bytes that need no parser: `caos_abi_v2`.
    Binary,
}

impl Encoding {
    fn decode(self, request: &[u8]) -> Result<Operation, DecodeError> {
        match self {
            Self::Json => json::decode(request),
            Self::Binary => binary::decode(request),
        }
    }

    fn encode(self, job: &Job, result: Result<&Answer, &Error>) -> Vec<u8> {
        match self {
            Self::Json => json::encode(job, result),
            Self::Binary => binary::encode(job, result),
        }
    }
}

/// The answer to one request, as bytes for the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// In the encoding of the request.
    pub body: Vec<u8>,
}

/// Why a request was not understood.
#[derive(Debug)]
pub(super) enum DecodeError {
    /// It has not the form of a request. The job ends.
    Malformed(String),
    /// It has, but a field is missing or makes no sense. The guest is told.
    Field(String),
}

impl Session {
    /// Begins the conversation of `job`.
    pub fn new(job: Job, host: Arc<dyn Host>) -> Self {
        let state = State { log_bytes_left: job.limits.log_bytes, ..State::default() };
        Self { job, host, state: Mutex::new(state) }
    }

    /// The job that the session is about.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Serves one request.
    pub async fn call(&self, encoding: Encoding, request: &[u8]) -> Reply {
        let limit = self.job.limits.guest_request_bytes;
        let result = if request.len() as u64 > limit {
            Err(self.end(Limit::GuestRequest { bytes: limit }.into()))
        } else {
            match encoding.decode(request) {
                Ok(operation) => self.operate(operation).await,
                Err(DecodeError::Malformed(problem)) => {
                    Err(self
                        .end(Error::abi_violation(format!("a request is malformed: {problem}"))))
                }
                Err(DecodeError::Field(problem)) => Err(self.note(Error::abi_violation(problem))),
            }
        };
        let body = encoding.encode(&self.job, result.as_ref());
        let limit = self.job.limits.response_bytes;
        if body.len() as u64 > limit {
            let error = self.end(Limit::Response { bytes: limit }.into());
            return Reply { body: encoding.encode(&self.job, Err(&error)) };
        }
        Reply { body }
    }

    /// Serves one operation.
    ///
    /// # Errors
    /// What the guest is to be told. The session remembers it.
    pub async fn operate(&self, operation: Operation) -> Result<Answer> {
        let answer = self.perform(operation).await;
        self.told(&answer);
        answer
    }

    /// Remembers what the guest was told: when the job fails later, the last error is given as the cause. For a backend that
    /// performs several operations at a time, and lets the guest know in another order than that in which they are done.
    pub fn told(&self, answer: &Result<Answer>) {
        let error = match answer {
            Ok(Answer::Outcomes(results)) => {
                results.iter().find_map(|result| result.as_ref().err())
            }
            answer => answer.as_ref().err(),
        };
        if let Some(error) = error {
            self.note(error.clone());
        }
    }

    /// Serves one operation, and leaves it to [`Session::told`] to remember the answer.
    ///
    /// # Errors
    /// What the guest is to be told.
    pub async fn perform(&self, operation: Operation) -> Result<Answer> {
        if let Some(verdict) = &self.state.lock().verdict {
            return Err(verdict.clone());
        }
        match operation {
            Operation::Job => Ok(Answer::Job),
            Operation::Tree(id) => self.host.tree(id).await.map(Answer::Tree),
            Operation::Get(id) => self.get(id).await,
            Operation::PutBlob(content) => self.host.put_blob(content).await.map(Answer::Stored),
            Operation::PutTree(entries) => self.put_tree(entries).await,
            Operation::Run(call) => self.host.run(call).await.map(Answer::Outcome),
            Operation::RunMany(calls) => Ok(Answer::Outcomes(self.host.run_many(calls).await)),
            Operation::Out(outcome) => self.out(outcome),
            Operation::Log(message) => {
                self.log(&message);
                Ok(Answer::Done)
            }
            Operation::Fail(message) => {
                self.end(Error::guest_failed(message));
                Ok(Answer::Done)
            }
        }
    }

    /// Takes text for the job's log, from `log` or from the guest's standard error.
    pub fn log(&self, message: &str) {
        let (kept, fits) = {
            let mut state = self.state.lock();
            if state.log_closed {
                return;
            }
            let left = state.log_bytes_left;
            let kept = message.floor_char_boundary(left.try_into().unwrap_or(usize::MAX));
            let fits = kept == message.len() && left > 0;
            state.keep_words(&message[..kept]);
            // An empty line takes room, too.
            state.log_bytes_left = left.saturating_sub((kept as u64).max(1));
            state.log_closed = !fits;
            (kept, fits)
        };
        if fits || kept > 0 {
            self.host.log(&message[..kept]);
        }
        if !fits {
            self.host.log("(the rest of this job's log is dropped: it is over the limit)");
        }
    }

    /// Whether the guest has named an outcome. A backend may take that for the end of the job.
    pub fn has_outcome(&self) -> bool {
        self.state.lock().outcome.is_some()
    }

    /// Whether the job's result is settled, so that the guest must be stopped.
    pub fn has_ended(&self) -> bool {
        self.state.lock().verdict.is_some()
    }

    /// Ends the conversation once the guest has returned (`Ok`), or was stopped by an error.
    ///
    /// # Errors
    /// The guest's own `fail` before anything else; then `stopped`; then a missing outcome.
    pub fn finish(&self, stopped: Result<()>) -> Result<Outcome> {
        let state = std::mem::take(&mut *self.state.lock());
        let result = match (state.verdict, stopped) {
            (Some(verdict), _) => Err(verdict),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => state.outcome.ok_or_else(|| Error::new(Reason::NoOutcome)),
        };
        result.map_err(|error| {
            // A guest that stops without a word has often said why in its log.
            let speechless = matches!(
                error.reason(),
                Reason::Trapped { .. } | Reason::Exited { .. } | Reason::NoOutcome
            );
            let words = Some(state.last_words).filter(|words| speechless && !words.is_empty());
            let words = words.map(|words| Error::guest_failed(format!("it logged last: {words}")));
            match (words, state.last_error) {
                (Some(words), Some(cause)) => error.caused_by(words.caused_by(cause)),
                (None, Some(cause)) | (Some(cause), None) => error.caused_by(cause),
                (None, None) => error,
            }
        })
    }

    async fn get(&self, id: ObjectId) -> Result<Answer> {
        let content = self.host.get(id).await?;
        let limit = self.job.limits.response_bytes;
        if content.len() as u64 > limit {
            return Err(self.end(Limit::Response { bytes: limit }.into()));
        }
        Ok(Answer::Blob(content))
    }

    async fn put_tree(&self, entries: Vec<TreeEntry>) -> Result<Answer> {
        let tree = Tree::new(entries)?;
        self.host.put_tree(tree).await.map(Answer::Stored)
    }

    fn out(&self, outcome: Outcome) -> Result<Answer> {
        let before = self.state.lock().outcome.replace(outcome);
        match before {
            None => Ok(Answer::Done),
            Some(_) => Err(self.end(Error::new(Reason::OutcomeTwice))),
        }
    }

    fn note(&self, error: Error) -> Error {
        let mut state = self.state.lock();
        if state.verdict.is_none() {
            state.last_error = Some(error.clone());
        }
        error
    }

    fn end(&self, error: Error) -> Error {
        self.state.lock().verdict.get_or_insert(error).clone()
    }
}
