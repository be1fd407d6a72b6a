//! The language: a program is a list of words, and its values are on a stack.
//!
//! | word | what it does |
//! |---|---|
//! | `'text` | pushes the text after the quote |
//! | `@name` | pushes the object in the argument `name` |
//! | `get` | reads a blob |
//! | `put` | stores bytes as a blob |
//! | `=name` | stores a tree with one entry, which names an object |
//! | `run` | runs an image: `@image get @in run` passes it the tree `in` as its arguments |
//! | `dup`, `join` | copies bytes, joins two byte strings |
//! | `upper`, `length` | changes bytes to upper case, counts them |
//! | `zeros` | makes as many zero bytes as the text says |
//! | `log`, `fail` | writes to the log, ends the job as failed |
//! | `again` | continues at the first word |
//!
//! The value on top of the stack at the end is the outcome. Bytes are stored as a blob first.

use std::sync::Arc;

use manifold_runtime_api::abi::{Answer, Operation, Session};
use manifold_runtime_api::{
    Call, EntryMode, Error, Limit, MemoryReservation, ObjectRef, Reason, Result, Stopwatch,
    TreeEntry,
};

/// The version of the language. It goes up with every change that a guest can observe.
pub(crate) const LANGUAGE: u32 = 1;

/// The words without a name in them.
const WORDS: [&str; 11] = [
    "again", "dup", "fail", "get", "join", "length", "log", "put", "run", "upper", "zeros",
];

/// How many words a guest runs before it lets other tasks run. Only then can it be stopped.
const SLICE: u64 = 1000;

/// The memory of a value besides its bytes.
const VALUE_BYTES: u64 = 48;

/// Returns whether the language has a word.
pub(crate) fn is_word(word: &str) -> bool {
    WORDS.contains(&word) || word.starts_with(['\'', '@', '='])
}

enum Value {
    Bytes(Vec<u8>),
    Object(ObjectRef),
}

/// Runs one guest.
pub(crate) struct Machine<'a> {
    session: &'a Session,
    stack: Vec<Value>,
    memory: u64,
    reservation: MemoryReservation,
    fuel: u64,
    watch: Stopwatch,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(session: &'a Session) -> Self {
        let job = session.job();
        let reservation = MemoryReservation::new(Arc::clone(&job.meter));
        let watch = Stopwatch::new(&job.limits);
        Self {
            session,
            stack: Vec::new(),
            memory: 0,
            reservation,
            fuel: 0,
            watch,
        }
    }

    /// Runs a program to its end.
    pub(crate) async fn run(mut self, program: &str) -> Result<()> {
        self.watch.start();
        let mut words = program.split_whitespace();
        while let Some(word) = words.next() {
            self.count().await?;
            if word == "again" {
                words = program.split_whitespace();
            } else {
                self.step(word).await?;
            }
        }
        let outcome = match self.stack.pop() {
            Some(Value::Object(object)) => object,
            Some(Value::Bytes(bytes)) => self.put(bytes).await?,
            // The session ends a job without an outcome as failed.
            None => return Ok(()),
        };
        self.ask(Operation::Out(outcome)).await.map(drop)
    }

    /// Counts a word, and stops the guest if it has used more than it may.
    async fn count(&mut self) -> Result<()> {
        let job = self.session.job();
        self.fuel += 1;
        if let Some(units) = job.limits.fuel.filter(|bound| self.fuel > *bound) {
            return Err(Limit::Fuel { units }.into());
        }
        job.meter.burn(1)?;
        self.watch.check()?;
        if self.fuel.is_multiple_of(SLICE) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn step(&mut self, word: &str) -> Result<()> {
        let result = match word {
            "get" => {
                let blob = self.object()?;
                Value::Bytes(self.get(blob).await?)
            }
            "put" => {
                let bytes = self.bytes()?;
                Value::Object(self.put(bytes).await?)
            }
            "run" => {
                let (args, image) = (self.object()?, self.text()?);
                Value::Object(self.run_image(image, args).await?)
            }
            "dup" => {
                let bytes = self.bytes()?;
                self.push(Value::Bytes(bytes.clone()))?;
                Value::Bytes(bytes)
            }
            "join" => {
                let (end, start) = (self.bytes()?, self.bytes()?);
                Value::Bytes([start, end].concat())
            }
            "upper" => Value::Bytes(self.bytes()?.to_ascii_uppercase()),
            "length" => Value::Bytes(self.bytes()?.len().to_string().into_bytes()),
            "zeros" => {
                let text = self.text()?;
                let count = text
                    .parse()
                    .map_err(|_| trap(format!("`{text}` is not a number")))?;
                // Before the memory is allocated.
                self.check_memory(self.memory.saturating_add(count))?;
                Value::Bytes(vec![0; usize::try_from(count).unwrap_or(usize::MAX)])
            }
            "log" => {
                let message = self.text()?;
                return self.ask(Operation::Log(message)).await.map(drop);
            }
            "fail" => {
                let message = self.text()?;
                return self.ask(Operation::Fail(message)).await.map(drop);
            }
            _ => match word.split_at(1) {
                ("'", text) => Value::Bytes(text.into()),
                ("@", name) => Value::Object(self.argument(name).await?),
                (_, name) => {
                    let object = self.object()?;
                    Value::Object(self.put_tree(name, object).await?)
                }
            },
        };
        self.push(result)
    }

    async fn argument(&mut self, name: &str) -> Result<ObjectRef> {
        let args = self.session.job().args;
        let Answer::Tree(tree) = self.ask(Operation::Tree(args)).await? else {
            return unexpected();
        };
        let object = tree.get(name).and_then(|entry| {
            Some(ObjectRef {
                kind: entry.mode.object_kind()?,
                id: entry.id,
            })
        });
        object.ok_or_else(|| Error::guest_failed(format!("there is no argument `{name}`")))
    }

    async fn get(&mut self, blob: ObjectRef) -> Result<Vec<u8>> {
        match self.ask(Operation::Get(blob.id)).await? {
            Answer::Blob(content) => Ok(content.to_vec()),
            _ => unexpected(),
        }
    }

    async fn put(&mut self, bytes: Vec<u8>) -> Result<ObjectRef> {
        match self.ask(Operation::PutBlob(bytes.into())).await? {
            Answer::Stored(id) => Ok(ObjectRef::blob(id)),
            _ => unexpected(),
        }
    }

    async fn put_tree(&mut self, name: &str, object: ObjectRef) -> Result<ObjectRef> {
        let entry = TreeEntry::new(name, EntryMode::plain(object.kind), object.id);
        match self.ask(Operation::PutTree(vec![entry])).await? {
            Answer::Stored(id) => Ok(ObjectRef::tree(id)),
            _ => unexpected(),
        }
    }

    async fn run_image(&mut self, image: String, args: ObjectRef) -> Result<ObjectRef> {
        match self
            .ask(Operation::Run(Call {
                image,
                args: args.id,
            }))
            .await?
        {
            Answer::Outcome(outcome) => Ok(outcome),
            _ => unexpected(),
        }
    }

    /// Sends a request to the host. The guest does not compute while it waits for the response.
    async fn ask(&mut self, operation: Operation) -> Result<Answer> {
        let bytes = self.session.job().limits.guest_request_bytes;
        // `Session::operate` checks the size of a response, but cannot know that of a request.
        let requested = match &operation {
            Operation::PutBlob(content) => content.len(),
            Operation::Run(call) => call.image.len(),
            Operation::Log(text) | Operation::Fail(text) => text.len(),
            _ => 0,
        };
        if requested as u64 > bytes {
            return Err(Limit::GuestRequest { bytes }.into());
        }
        self.watch.stop();
        let answer = self.session.operate(operation).await;
        self.watch.start();
        if self.session.has_ended() {
            // `Session::finish` replaces this error by the one that ended the job.
            return Err(trap("the job has ended"));
        }
        // No word catches an error, so the guest fails. The session adds the host's error as the
        // cause.
        answer.map_err(|error| Error::guest_failed(error.to_string()))
    }

    fn push(&mut self, value: Value) -> Result<()> {
        self.reserve(self.memory.saturating_add(size(&value)))?;
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value> {
        let value = self.stack.pop().ok_or_else(|| trap("the stack is empty"))?;
        self.reserve(self.memory - size(&value))?;
        Ok(value)
    }

    /// Charges `memory` bytes in all: to the frame, and to the budget of the root call.
    fn reserve(&mut self, memory: u64) -> Result<()> {
        self.check_memory(memory)?;
        self.reservation.set(memory)?;
        self.memory = memory;
        Ok(())
    }

    fn check_memory(&self, memory: u64) -> Result<(), Limit> {
        let bytes = self.session.job().limits.memory_bytes;
        if memory > bytes {
            Err(Limit::Memory { bytes })
        } else {
            Ok(())
        }
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        match self.pop()? {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Object(_) => Err(trap("expected bytes, found an object")),
        }
    }

    fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes()?).map_err(|_| trap("expected text, found other bytes"))
    }

    fn object(&mut self) -> Result<ObjectRef> {
        match self.pop()? {
            Value::Object(object) => Ok(object),
            Value::Bytes(_) => Err(trap("expected an object, found bytes")),
        }
    }
}

fn size(value: &Value) -> u64 {
    VALUE_BYTES
        + match value {
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::Object(_) => 0,
        }
}

fn trap(trap: impl Into<String>) -> Error {
    Error::new(Reason::Trapped { trap: trap.into() })
}

fn unexpected<T>() -> Result<T> {
    Err(Error::runtime(
        "the host returned the answer of another operation",
    ))
}
