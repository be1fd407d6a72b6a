//! Ordinary async Rust functions, memoized by name, version and arguments.

mod runtime;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use manifold_runtime_api::{Call, Error, ObjectId, ObjectRef, Reason, Result, Tree};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::dispatcher::Dispatcher;
use crate::invocation::Invocation;
use crate::native::argument;
pub(crate) use runtime::FunctionRuntime;
use runtime::{ARGUMENTS, Current, decode, encode};

/// A memoized function of this process: [`Dispatcher::function`] and [`Dispatcher::try_function`]
/// make one.
///
/// Cloning is cheap, and clones share everything.
pub struct Function<A, T, E = std::convert::Infallible> {
    dispatcher: Dispatcher,
    name: Arc<str>,
    image: ObjectId,
    pins: bool,
    signature: PhantomData<fn(A) -> Result<T, E>>,
}

/// Why a call of a [`Function`] failed.
pub enum CallError<E> {
    /// The function returned this error. Callers that share one execution share the value.
    Function(Arc<E>),
    /// The dispatcher could not run the function, or the function panicked.
    Dispatch(Error),
}

impl Dispatcher {
    /// Makes `function` a memoized function.
    ///
    /// The key is made of `name`, `version` and the arguments, so the result is found again by
    /// every process that uses the same store, however the program was changed otherwise. Change
    /// `version` when the function's results change.
    ///
    /// # Behavior
    /// - The function is run at most once at a time for the same arguments. Callers that ask
    ///   meanwhile wait for that run.
    /// - Arguments and results are encoded as CBOR with sorted maps. Arguments of several values
    ///   are a tuple.
    /// - A call from inside of another function of this dispatcher is a nested run: it shares the
    ///   budget of the root call, is cancelled with it, and a cycle is an error. A task that the
    ///   function spawns makes root calls.
    /// - While the function awaits something, it holds no run permit.
    /// - The dispatcher keeps the function. If it captures another [`Function`] or a clone of the
    ///   dispatcher, the dispatcher is never dropped, so call [`Dispatcher::flush`] before the program
    ///   ends.
    ///
    /// # Errors
    /// [`Reason::RuntimeFailed`] if this dispatcher has a function with the same name and version;
    /// [`Reason::StoreFailed`] if the store fails.
    ///
    /// ```
    /// use manifold_dispatcher::Dispatcher;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let dispatcher = Dispatcher::builder().build()?;
    /// let words = dispatcher.function("words", 1, |text: String| async move {
    ///     text.split_whitespace().count()
    /// })?;
    /// assert_eq!(words.call("to be or not".to_owned()).await?, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn function<A, T, F, R>(
        &self,
        name: &str,
        version: impl fmt::Display,
        function: F,
    ) -> Result<Function<A, T>>
    where
        A: Serialize + DeserializeOwned + Send + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
        F: Fn(A) -> R + Send + Sync + 'static,
        R: Future<Output = T> + Send + 'static,
    {
        self.try_function(name, version, move |arguments| {
            let result = function(arguments);
            async move { Ok(result.await) }
        })
    }

    /// Makes `function`, which can fail, a memoized function. Like [`Dispatcher::function`]
    /// otherwise.
    ///
    /// # Behavior
    /// - An error is not memoized. It reaches every waiting caller as [`CallError::Function`] with
    ///   the value itself.
    /// - Nothing says that the arguments alone decide such an error. So a function that gets an
    ///   error from a nested call and succeeds all the same is not memoized either.
    ///
    /// # Errors
    /// As [`Dispatcher::function`].
    ///
    /// ```
    /// use manifold_dispatcher::{CallError, Dispatcher};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let dispatcher = Dispatcher::builder().build()?;
    /// let parse = dispatcher.try_function("parse", 1, |text: String| async move {
    ///     text.parse::<u32>()
    /// })?;
    /// assert_eq!(parse.call("12".to_owned()).await?, 12);
    /// match parse.call("twelve".to_owned()).await {
    ///     Err(CallError::Function(error)) => assert_eq!(error.to_string(), "invalid digit found in string"),
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn try_function<A, T, E, F, R>(
        &self,
        name: &str,
        version: impl fmt::Display,
        function: F,
    ) -> Result<Function<A, T, E>>
    where
        A: Serialize + DeserializeOwned + Send + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
        E: StdError + Send + Sync + 'static,
        F: Fn(A) -> R + Send + Sync + 'static,
        R: Future<Output = Result<T, E>> + Send + 'static,
    {
        let runtime = self.function_runtime()?;
        let module = self.put_blob(runtime::module(name, &version.to_string()))?;
        let function = Arc::new(function);
        runtime.add(module, name, move |arguments| {
            let function = Arc::clone(&function);
            let arguments = decode(&arguments);
            Box::pin(async move {
                let result = function(arguments?).await;
                encode(&result.map_err(|error| {
                    let message = error.to_string();
                    Error::new(Reason::FunctionFailed { message }).with_value(Arc::new(error))
                })?)
            })
        })?;
        let image = self.put_image(runtime.id(), ObjectRef::blob(module))?;
        let name = name.into();
        Ok(Function { dispatcher: self.clone(), name, image, pins: true, signature: PhantomData })
    }
}

impl<A, T, E> Function<A, T, E>
where
    A: Serialize,
    T: DeserializeOwned,
    E: Send + Sync + 'static,
{
    /// Returns the memoized result for `arguments`, or runs the function.
    ///
    /// # Errors
    /// [`CallError::Function`] if the function fails; [`CallError::Dispatch`] if the arguments
    /// cannot be encoded, the function panics, the store fails, or a budget is exceeded.
    pub async fn call(&self, arguments: A) -> Result<T, CallError<E>> {
        let result = match Current::of(&self.dispatcher.core) {
            // The host notes what fails: the outcome of the function around may depend on it.
            Some(host) => {
                let blob = host.put_blob(encode(&arguments)?).await?;
                let args = Tree::new([argument(ARGUMENTS, ObjectRef::blob(blob))]);
                let args = host.put_tree(args.map_err(Error::from)?).await?;
                let outcome = host.run(Call { image: self.image.to_string(), args }).await;
                host.get(outcome.map_err(CallError::from_run)?.id).await?
            }
            None => {
                let mut invocation = Invocation::new(self.image).args(self.arguments(&arguments)?);
                invocation.pin = self.pins;
                let completion = self.dispatcher.run(invocation).await;
                let outcome = completion.map_err(CallError::from_run)?.outcome;
                self.dispatcher.read(outcome.id)?.content
            }
        };
        decode(&result).map_err(CallError::Dispatch)
    }

    /// Returns the invocation that [`Function::call`] runs, for a call with its own budget, policy
    /// or limits.
    ///
    /// # Errors
    /// As [`Function::call`], without running anything.
    pub fn invocation(&self, arguments: &A) -> Result<Invocation> {
        let mut invocation = Invocation::new(self.image).args(self.arguments(arguments)?);
        invocation.pin = self.pins;
        Ok(invocation)
    }

    /// Does not pin results. The next collection may remove them, and they are computed again then.
    #[must_use]
    pub fn unpinned(mut self) -> Self {
        self.pins = false;
        self
    }

    fn arguments(&self, arguments: &A) -> Result<ObjectId> {
        let blob = self.dispatcher.put_blob(encode(arguments)?)?;
        self.dispatcher.put_tree([argument(ARGUMENTS, ObjectRef::blob(blob))])
    }
}

impl<E: Send + Sync + 'static> CallError<E> {
    fn from_run(error: Error) -> Self {
        match error.value::<E>() {
            Some(value) => Self::Function(value),
            None => Self::Dispatch(error),
        }
    }
}

impl<E> From<Error> for CallError<E> {
    fn from(error: Error) -> Self {
        Self::Dispatch(error)
    }
}

impl<E: fmt::Debug> fmt::Debug for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(error) => f.debug_tuple("Function").field(error).finish(),
            Self::Dispatch(error) => f.debug_tuple("Dispatch").field(error).finish(),
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(error) => error.fmt(f),
            Self::Dispatch(error) => error.fmt(f),
        }
    }
}

impl<E: StdError + 'static> StdError for CallError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Function(error) => error.source(),
            Self::Dispatch(error) => error.source(),
        }
    }
}

impl<A, T, E> Clone for Function<A, T, E> {
    fn clone(&self) -> Self {
        Self {
            dispatcher: self.dispatcher.clone(),
            name: Arc::clone(&self.name),
            image: self.image,
            pins: self.pins,
            signature: PhantomData,
        }
    }
}

impl<A, T, E> fmt::Debug for Function<A, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function")
            .field("name", &self.name)
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

impl Dispatcher {
    fn function_runtime(&self) -> Result<Arc<FunctionRuntime>> {
        let mut slot = self.core.functions.lock();
        if let Some(runtime) = &*slot {
            return Ok(Arc::clone(runtime));
        }
        let runtime = Arc::new(FunctionRuntime::new(Arc::downgrade(&self.core))?);
        self.add_runtime(Arc::clone(&runtime))?;
        *slot = Some(Arc::clone(&runtime));
        Ok(runtime)
    }
}
