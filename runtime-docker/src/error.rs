//! What can go wrong between this process and the engine.

use std::fmt;
use std::time::Duration;

use manifold_runtime_api::{Error, ImageProblem, Reason, Status};

/// What was asked of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Finding the engine and asking who it is.
    Connect,
    /// Loading an image.
    Load,
    /// Looking at an image.
    InspectImage,
    /// Creating a container.
    Create,
    /// Attaching to its standard streams.
    Attach,
    /// Starting it.
    Start,
    /// Waiting for its end.
    Wait,
    /// Looking at it.
    Inspect,
    /// Removing it.
    Remove,
    /// Listing containers.
    List,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Load => "load an image",
            Self::InspectImage => "look at an image",
            Self::Create => "create a container",
            Self::Attach => "attach to a container",
            Self::Start => "start a container",
            Self::Wait => "wait for a container",
            Self::Inspect => "look at a container",
            Self::Remove => "remove a container",
            Self::List => "list containers",
        })
    }
}

/// Why the engine did not do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// There is no engine to talk to, or it went away.
    #[error(
        "the container engine at {endpoint} cannot be reached to {step}: {problem}; is it running?"
    )]
    Unreachable {
        /// Where it was looked for.
        endpoint: String,
        /// What it was to do.
        step: Step,
        /// What happened.
        problem: String,
    },
    /// It did not answer in time.
    #[error("the container engine at {endpoint} did not {step} within {deadline:?}")]
    TimedOut {
        /// Where it is.
        endpoint: String,
        /// What it was to do.
        step: Step,
        /// How long it was given.
        deadline: Duration,
    },
    /// It refused.
    #[error("the container engine refused to {step} ({code}): {message}")]
    Refused {
        /// What it was to do.
        step: Step,
        /// The HTTP status.
        code: u16,
        /// Its own words.
        message: String,
    },
    /// There are as many containers as this process may have.
    #[error("this process has {count} containers, and may not have more at one time")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A container that was to serve jobs does not.
    #[error("the container of {image} {problem}")]
    NotServing {
        /// The image.
        image: String,
        /// What it did instead.
        problem: String,
        /// Whether another one may.
        status: Status,
    },
    /// A container that was to serve jobs goes on, and does not ask for any.
    #[error(
        "the container of {image} did not connect to its socket within {patience:?}; is it made for many jobs?"
    )]
    NotConnecting {
        /// The image.
        image: String,
        /// How long it was given.
        patience: Duration,
    },
    /// It has been closed by this process.
    #[error("this process has closed its connection to the container engine")]
    Closed,
}

impl EngineError {
    pub(crate) fn new(endpoint: &str, step: Step, error: bollard::errors::Error) -> Self {
        use bollard::errors::Error as Bollard;
        match error {
            Bollard::DockerResponseServerError { status_code, message } => {
                Self::Refused { step, code: status_code, message }
            }
            Bollard::DockerStreamError { error } => {
                Self::Refused { step, code: 500, message: error }
            }
            Bollard::JsonDataError { message, .. } => Self::Refused {
                step,
                code: 200,
                message: format!("its answer is not understood: {message}"),
            },
            error => Self::Unreachable {
                endpoint: endpoint.to_owned(),
                step,
                problem: with_causes(&error),
            },
        }
    }

    /// Whether trying again may help.
    pub fn status(&self) -> Status {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::TooMany { .. }
            // The machine may have been busy.
            | Self::NotConnecting { .. } => Status::Transient,
            // Engines have one status for everything that is wrong with an image.
            Self::Refused { step: Step::Load, message, .. } if !message.contains("no space left") => Status::Permanent,
            Self::NotServing { status, .. } => *status,
            // Podman prepares a container when it is attached to.
            Self::Refused { step: Step::Attach | Step::Start, message, .. } if is_about_the_image(message) => {
                Status::Permanent
            }
            // Somebody else has removed it in the meantime.
            Self::Refused { step: Step::Attach | Step::Start, code: 404 | 409, .. } => Status::Transient,
            Self::Refused { code, .. } if *code >= 500 => Status::Transient,
            Self::Refused { .. } | Self::Closed => Status::Permanent,
        }
    }

    /// As the error of a job of `image`.
    pub(crate) fn of_job(self, image: &str) -> Error {
        match self {
            Self::Refused { step: Step::Create | Step::InspectImage, code: 404, message } => {
                Error::new(Reason::BadImage {
                    reference: image.to_owned(),
                    problem: ImageProblem::NotInEngine { problem: message },
                })
            }
            other => other.into(),
        }
    }
}

/// Engines answer 400, 404 or 500 when an image's program is not there or cannot be run, in the words of their runtimes.
fn is_about_the_image(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let about_a_program =
        ["executable file", "exec: \"", "exec format"].iter().any(|words| message.contains(words));
    about_a_program
        && ["no such file", "not found", "permission denied", "exec format"]
            .iter()
            .any(|words| message.contains(words))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        Self::new(Reason::RuntimeFailed { problem: error.to_string(), status: error.status() })
    }
}
