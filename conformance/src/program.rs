//! [`Program`]: the guests that the checks of a runtime run.

use std::fmt;

/// A guest that the checks of a runtime run. The fixture supplies a module for each.
///
/// An *argument* is the entry of the job's arguments tree with that name. A *text argument* is a
/// blob of UTF-8 text without a line break at its end. Entries of trees that a program stores have
/// the mode `100644` for a blob and `40000` for a tree.
///
/// Where nothing else is said, a program fails if an argument is missing or has another form, and
/// if an operation of its host fails: it lets the failure end the job, in the way that is usual in
/// its language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    /// The outcome is the object in the argument `in`, a blob or a tree.
    Echo,
    /// Reads the blob `in`, and stores a blob that contains its content twice in a row. Reads that
    /// blob back, and stores what it has read again. The outcome is a tree with one entry, `twice`,
    /// which names the blob that was stored last.
    Put,
    /// Reads the tree `in`. The outcome is a blob with the names of its entries in the tree's
    /// order, each followed by a line feed.
    List,
    /// Reads the blob `in`. The outcome is a blob with its length in decimal.
    Measure,
    /// Asks for the size of the blob `in`, and for its bytes in the range 1 to 3, without reading
    /// all of it. The outcome is a blob: the size in decimal, a line feed, and these bytes.
    Part,
    /// Takes the text argument `depth`, a decimal number. If it is 0, the outcome is the blob `0`.
    /// Otherwise runs the job's own image with `depth` reduced by 1. The outcome is that of the
    /// run.
    Recurse,
    /// The outcome is a blob with three parts of the job and a line feed between them: the image
    /// reference, the salt, and the id of the tree of named images in hexadecimal digits, or
    /// nothing if there is none.
    Describe,
    /// Runs the image that the text argument `image` names once for each entry of the tree `in`,
    /// with a single call of `run_many`, in the tree's order. The arguments of each run are a tree
    /// with one entry, `in`, which names the entry's object. The outcome is a tree of the outcomes,
    /// each under the name of its entry. Fails if one of the runs fails.
    FanOut,
    /// Runs the image that the text argument `image` names. The arguments of the run are the tree
    /// `in`. The outcome is that of the run. If the run fails, the failure ends the job.
    Relay,
    /// As [`Program::Relay`], but the program catches the failure of the run, and the outcome is
    /// then the blob `caught`.
    Catch,
    /// Allocates as many bytes as the text argument `bytes` says in decimal, and writes to all of
    /// them. Then does the same as [`Program::Relay`], and keeps the memory until the run has
    /// ended.
    Hold,
    /// Fails with the text argument `message` as its own message.
    Fail,
    /// Crashes: a panic, a trap, an exception that is not caught.
    Crash,
    /// Ends without an outcome.
    Silent,
    /// Reads the tree of its arguments. Then computes without end, without an operation of its
    /// host.
    Spin,
    /// As [`Program::Spin`], inside of whatever catches every failure in the language. The outcome
    /// is the blob `caught` if something was caught.
    SpinAndCatch,
    /// Allocates memory without end, writes to it, and keeps all of it.
    Hog,
    /// As [`Program::Hog`], inside of whatever catches every failure in the language, including a
    /// failed allocation. Drops the memory and names the blob `caught` as its outcome if something
    /// was caught.
    HogAndCatch,
    /// Stores a blob of as many zero bytes as the text argument `bytes` says in decimal. The blob
    /// is the outcome.
    Flood,
    /// Writes the content of the text argument `in` to the log, as one message. The outcome is the
    /// object in the argument `in`.
    Log,
    /// The outcome is a blob with everything that the guest can find out and that is not in its
    /// job: the time, random numbers, environment variables, the name of the machine, addresses of
    /// objects in memory, the iteration order of the language's hash maps, and so on.
    Probe,
    /// Increments a global variable of the program, which is initially 0. The outcome is a blob
    /// with its value in decimal.
    Remember,
}

impl Program {
    /// All programs.
    pub const ALL: [Self; 22] = [
        Self::Echo,
        Self::Put,
        Self::List,
        Self::Measure,
        Self::Part,
        Self::Recurse,
        Self::Describe,
        Self::FanOut,
        Self::Relay,
        Self::Catch,
        Self::Hold,
        Self::Fail,
        Self::Crash,
        Self::Silent,
        Self::Spin,
        Self::SpinAndCatch,
        Self::Hog,
        Self::HogAndCatch,
        Self::Flood,
        Self::Log,
        Self::Probe,
        Self::Remember,
    ];

    /// Returns the name of the program in lower case, with hyphens between words. A fixture can
    /// name its files after it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Put => "put",
            Self::List => "list",
            Self::Measure => "measure",
            Self::Part => "part",
            Self::Recurse => "recurse",
            Self::Describe => "describe",
            Self::FanOut => "fan-out",
            Self::Relay => "relay",
            Self::Catch => "catch",
            Self::Hold => "hold",
            Self::Fail => "fail",
            Self::Crash => "crash",
            Self::Silent => "silent",
            Self::Spin => "spin",
            Self::SpinAndCatch => "spin-and-catch",
            Self::Hog => "hog",
            Self::HogAndCatch => "hog-and-catch",
            Self::Flood => "flood",
            Self::Log => "log",
            Self::Probe => "probe",
            Self::Remember => "remember",
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
