//! Errors of calls to the container engine, and their mapping to errors of jobs.

use std::fmt;
use std::time::Duration;

use manifold_runtime_api::{Error, ImageProblem, Reason, Status};

/// An operation of the engine, named in an [`EngineError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Connecting to the engine and reading its version.
    Connect,
    /// Loading an image.
    Load,
    /// Inspecting an image.
    InspectImage,
    /// Saving an image as an archive.
    Save,
    /// Listing images.
    ListImages,
    /// Removing an image.
    RemoveImage,
    /// Making an image that carries the first process of containers, for an engine that does not see
    /// the files of this machine.
    AddInit,
    /// Creating a container.
    Create,
    /// Attaching to a container's standard streams.
    Attach,
    /// Starting a container.
    Start,
    /// Waiting for a container to end.
    Wait,
    /// Inspecting a container.
    Inspect,
    /// Removing a container.
    Remove,
    /// Listing containers.
    List,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Load => "load an image",
            Self::InspectImage => "inspect an image",
            Self::Save => "save an image",
            Self::ListImages => "list images",
            Self::RemoveImage => "remove an image",
            Self::AddInit => "add the init to an image",
            Self::Create => "create a container",
            Self::Attach => "attach to a container",
            Self::Start => "start a container",
            Self::Wait => "wait for a container",
            Self::Inspect => "inspect a container",
            Self::Remove => "remove a container",
            Self::List => "list containers",
        })
    }
}

/// Why an operation of the container engine failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The engine cannot be reached, or the connection to it broke.
    #[error("cannot reach the container engine at {endpoint} to {step}: {problem}; is it running?")]
    Unreachable {
        /// Address of the engine.
        endpoint: String,
        /// The operation that failed.
        step: Step,
        /// The error of the connection, with its causes.
        problem: String,
    },
    /// The engine cannot be used from here, and that does not change by itself.
    #[error("cannot use the container engine at {endpoint}: {problem}")]
    Unusable {
        /// Address of the engine.
        endpoint: String,
        /// Why it cannot be used.
        problem: String,
    },
    /// The engine did not respond in time.
    #[error("the container engine at {endpoint} did not {step} within {deadline:?}")]
    TimedOut {
        /// Address of the engine.
        endpoint: String,
        /// The operation that failed.
        step: Step,
        /// Time after which the operation was given up.
        deadline: Duration,
    },
    /// The engine responded with an error.
    #[error("the container engine refused to {step} ({code}): {message}")]
    Refused {
        /// The operation that failed.
        step: Step,
        /// HTTP status of the response.
        code: u16,
        /// The engine's error message.
        message: String,
    },
    /// The process has as many containers as
    /// [`EngineOptions::containers`](crate::EngineOptions::containers) allows.
    #[error("this process already has {count} containers, the maximum at one time")]
    TooMany {
        /// Number of containers that exist.
        count: usize,
    },
    /// A serving container ended, or takes no further jobs.
    #[error("the container of {image} {problem}")]
    NotServing {
        /// The container's image.
        image: String,
        /// What the container did instead, as the predicate of a sentence.
        problem: String,
        /// Whether another container may succeed.
        status: Status,
    },
    /// A serving container runs, but does not connect to its socket to ask for a job.
    #[error(
        "the container of {image} did not connect to its socket within {patience:?}; is it made \
         for many jobs?"
    )]
    NotConnecting {
        /// The container's image.
        image: String,
        /// Time that the container was given to connect.
        patience: Duration,
    },
    /// This process has closed its connection to the engine, see
    /// [`ContainerEngine::close`](crate::ContainerEngine::close).
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
                message: format!("cannot parse its response: {message}"),
            },
            error => Self::Unreachable {
                endpoint: endpoint.to_owned(),
                step,
                problem: with_causes(&error),
            },
        }
    }

    /// Returns whether trying again may succeed.
    pub fn status(&self) -> Status {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::TooMany { .. }
            // The machine may have been busy.
            | Self::NotConnecting { .. } => Status::Transient,
            // Engines report everything that is wrong with an image with the same HTTP status.
            Self::Refused { step: Step::Load, message, .. }
                if !message.contains("no space left") =>
            {
                Status::Permanent
            }
            Self::NotServing { status, .. } => *status,
            // Podman prepares a container when a client attaches to it, so `Attach` can fail like
            // `Start`.
            Self::Refused { step: Step::Attach | Step::Start, message, .. }
                if is_about_the_image(message) =>
            {
                Status::Permanent
            }
            // Another program has removed the container in the meantime.
            Self::Refused { step: Step::Attach | Step::Start, code: 404 | 409, .. } => {
                Status::Transient
            }
            Self::Refused { code, .. } if *code >= 500 => Status::Transient,
            Self::Refused { .. } | Self::Unusable { .. } | Self::Closed => Status::Permanent,
        }
    }

    /// Returns whether a container was refused because the engine has no file where one of this
    /// machine should be mounted.
    pub(crate) fn is_about_a_mount(&self) -> bool {
        let Self::Refused { step: Step::Create | Step::Attach | Step::Start, message, .. } = self
        else {
            return false;
        };
        // Docker, Podman.
        message.contains("bind source path does not exist") || message.contains("statfs ")
    }

    /// Converts to the error of a job that uses `image`.
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

/// Returns whether an error message says that an image's program does not exist or cannot be run.
///
/// Engines report this with status 400, 404 or 500 and the message of their container runtime, so
/// only the message tells.
fn is_about_the_image(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let about_a_program =
        ["executable file", "exec: \"", "exec format"].iter().any(|words| message.contains(words));
    about_a_program
        && ["no such file", "not found", "permission denied", "exec format"]
            .iter()
            .any(|words| message.contains(words))
}

/// Formats an error followed by its causes, without repeating text.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
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
