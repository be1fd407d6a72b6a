//! The sentences of the contracts that the checks are about, without links and code marks.
//! `tests/contracts.rs` compares them with the documentation of the traits.

// The documentation of `Runtime`, `Capabilities`, `HostImage`, `Job`, `Limits`, `Meter` and `Host`.

pub(crate) const HOST_IMAGE: &str =
    "Returns the host image that identifies this runtime. Every call returns the same one.";
pub(crate) const CAPABILITIES: &str =
    "Returns what this runtime supports. Every call returns the same value.";
pub(crate) const SAME_HOST_IMAGE: &str =
    "Two runtimes with the same host image hash must produce the same outcomes.";
pub(crate) const PURE: &str =
    "What a guest observes depends only on its Job and on the results of its Host calls.";
pub(crate) const WAITING: &str = "Any number of jobs may run concurrently. A job that waits for \
    its host holds no OS thread and no slot that another job needs, so a guest may call itself to \
    any depth.";
pub(crate) const DROPPING: &str = "Dropping the future that run returns stops the guest.";
pub(crate) const HOSTILE: &str =
    "A hostile guest causes an error. It can neither terminate nor block the process.";
pub(crate) const SUPPORT: &str = "The kinds of jobs that a runtime supports.";
pub(crate) const PREPARE: &str = "Prepares code so that a later run starts faster";
pub(crate) const BAD_MODULE: &str =
    "Reason::BadModule if the module cannot be loaded, so that no job could run it.";
pub(crate) const MODULE_ERROR: &str = "The error that host returns if the module cannot be read.";
pub(crate) const JOB: &str = "Runs one job and returns its outcome.";
pub(crate) const STORED: &str = "An object that one method stored can be read by all others.";
pub(crate) const TREE: &str = "Reads the tree id.";
pub(crate) const RANGE: &str = "Reads the bytes in range of the blob id. The part of range beyond \
    the end of the blob is ignored, so the result can be shorter than range, or empty.";
pub(crate) const NESTED_RUN: &str =
    "Runs an image and returns its outcome, from the memo if the request was run before.";
pub(crate) const RUN_MANY: &str =
    "Runs many images, a bounded number at a time, and returns the results in the order of calls.";
pub(crate) const LOG: &str = "Writes a message to the job's log.";
pub(crate) const LIMITS: &str =
    "Bounds on one frame. Exceeding one ends the frame with Reason::LimitBreached.";
pub(crate) const LIMITS_CHANGE_NOTHING: &str = "A limit never changes a memoized outcome";
pub(crate) const COMPUTE_TIME: &str =
    "Time spent computing. Waiting for nested runs does not count.";
pub(crate) const LOG_LIMIT: &str = "Size of the log that is kept of one job, in bytes. The rest \
    is dropped, and a last line in the log says so.";
pub(crate) const FUEL: &str =
    "Whether the runtime measures fuel: it enforces Limits::fuel and calls Meter::burn.";
pub(crate) const METER: &str = "A runtime charges the meter in addition to enforcing the frame's \
    own Limits. If the meter returns an error, the runtime stops the guest.";
pub(crate) const RESERVATION: &str = "The memory that one guest holds of a Meter's budget. \
    Dropping the reservation returns all of it.";
pub(crate) const GUEST_FAILED: &str = "The guest ended its job with an error message.";
pub(crate) const HOST_ERRORS: &str = "If any other operation fails, the guest receives the error \
    and continues. If the job fails later, the last such error becomes its cause, so that a \
    guest's panic does not hide the reason.";

// The documentation of `ObjectSource` and `Store`.

pub(crate) const SOURCE_ID: &str = "An object that is read by an id always has that id.";
pub(crate) const ANY_THREAD: &str = "Methods may block for as long as a disk access takes, and \
    may be called from any thread.";
pub(crate) const UNKNOWN: &str = "Reads an object. Returns None if the source does not have it.";
pub(crate) const OTHER_KIND: &str =
    "Reason::WrongKind if id names an object that is neither a blob nor a tree.";
pub(crate) const SOURCE_KIND: &str =
    "Returns the kind of an object, or None if the source does not have the object.";
pub(crate) const SOURCE_SIZE: &str = "Returns the length of an object's content in bytes, or None \
    if the source does not have the object.";
pub(crate) const SOURCE_RANGE: &str = "Reads the bytes in range of an object's content. The part \
    of range beyond the end is ignored.";
pub(crate) const STORE_RANGE: &str = SOURCE_RANGE;
pub(crate) const WRITTEN: &str = "After write returns an id, read finds the object under that id.";
pub(crate) const WRITTEN_TWICE: &str =
    "Stores an object and returns its id. Has no effect if the object is already there.";
pub(crate) const OBJECTS_FIRST: &str = "When record or pin returns, all objects written before \
    are at least as durable as the entry or pin.";
pub(crate) const PIN_REACHES: &str =
    "No eviction or collection removes an object that a pin reaches.";
pub(crate) const LOOK_UP: &str = "Looks up the memoized outcome of request.";
pub(crate) const RECORD: &str =
    "Records the outcome of request in the memo. Replaces an earlier entry.";
pub(crate) const RUN: &str = "Replaces an earlier record of a run of this request.";
pub(crate) const PIN: &str = "Pins the outcome of request. Replaces an earlier pin of the request.";
pub(crate) const UNPIN: &str = "Removes a pin. Returns whether the request was pinned.";
pub(crate) const PINNED: &str =
    "Returns the pinned outcome of request, or None if the request is not pinned.";
pub(crate) const PINS: &str = "Returns all pins, in no particular order.";
pub(crate) const KEEPS_EVERYTHING: &str = "Returns whether only the embedder removes objects from \
    this store, and no other process or collection does.";
pub(crate) const FLUSH: &str =
    "Makes everything that was written so far durable, as far as the store supports it.";
