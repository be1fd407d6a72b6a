//! The runtime of memoized functions.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use ciborium::Value;
use manifold_runtime_api::{
    Capabilities, Error, Host, HostImage, Job, ObjectId, ObjectRef, Result, Runtime, async_trait,
};
use parking_lot::RwLock;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::core::Core;

/// The name of the only argument: the encoded arguments of the function.
pub(super) const ARGUMENTS: &str = "arguments";

type Answer = Pin<Box<dyn Future<Output = Result<Bytes>> + Send>>;
type Boxed = Arc<dyn Fn(Bytes) -> Answer + Send + Sync>;

tokio::task_local! {
    /// The frame that the current function runs in, and the dispatcher it belongs to.
    static CURRENT: Current;
}

/// The frame of a function that is being run.
pub(super) struct Current {
    core: Weak<Core>,
    host: Arc<dyn Host>,
}

impl Current {
    /// Returns the host of the function that makes this call, if it is a function of `core`.
    pub(super) fn of(core: &Arc<Core>) -> Option<Arc<dyn Host>> {
        CURRENT
            .try_with(|current| {
                let same = std::ptr::eq(current.core.as_ptr(), Arc::as_ptr(core));
                same.then(|| Arc::clone(&current.host))
            })
            .ok()
            .flatten()
    }
}

/// Runs the functions of one dispatcher. A module is the blob that [`module`] makes.
pub(crate) struct FunctionRuntime {
    host_image: HostImage,
    core: Weak<Core>,
    functions: RwLock<HashMap<ObjectId, Boxed>>,
}

impl FunctionRuntime {
    pub(super) fn new(core: Weak<Core>) -> Result<Self> {
        // The key of a function must not depend on the other functions of the program.
        let host_image =
            HostImage::new("functions").with("encoding", "cbor").with("version", "1").seal()?;
        Ok(Self { host_image, core, functions: RwLock::default() })
    }

    pub(super) fn id(&self) -> ObjectId {
        self.host_image.id()
    }

    pub(super) fn add(
        &self,
        module: ObjectId,
        name: &str,
        function: impl Fn(Bytes) -> Answer + Send + Sync + 'static,
    ) -> Result<()> {
        let mut functions = self.functions.write();
        if functions.contains_key(&module) {
            let problem = format!(
                "the function `{name}` is defined twice with one version; keep the first \
                 `Function` and clone it, or give the second one another name or version"
            );
            return Err(Error::runtime(problem));
        }
        functions.insert(module, Arc::new(function));
        Ok(())
    }
}

/// Returns the module of a function: its name and version as a CBOR array.
pub(super) fn module(name: &str, version: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing two texts to a vector cannot fail.
    let _ = ciborium::into_writer(&[name, version], &mut bytes);
    bytes
}

/// Encodes a value as CBOR, with the entries of each map in the order of their encoded keys, so
/// that equal values have equal encodings.
pub(super) fn encode(value: &impl Serialize) -> Result<Bytes> {
    let failed = |problem: &dyn std::fmt::Display| {
        Error::guest_failed(format!("a value cannot be encoded as CBOR: {problem}"))
    };
    let mut value = Value::serialized(value).map_err(|problem| failed(&problem))?;
    sort_maps(&mut value);
    let mut bytes = Vec::new();
    ciborium::into_writer(&value, &mut bytes).map_err(|problem| failed(&problem))?;
    Ok(bytes.into())
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    ciborium::from_reader(bytes).map_err(|problem| {
        Error::guest_failed(format!(
            "a value of a function is not what its type says: {problem}; change the function's \
             version when its types change"
        ))
    })
}

fn sort_maps(value: &mut Value) {
    match value {
        Value::Map(entries) => {
            for (key, value) in entries.iter_mut() {
                sort_maps(key);
                sort_maps(value);
            }
            entries.sort_by_cached_key(|(key, _)| {
                let mut bytes = Vec::new();
                // Writing to a vector cannot fail.
                let _ = ciborium::into_writer(key, &mut bytes);
                bytes
            });
        }
        Value::Array(values) => values.iter_mut().for_each(sort_maps),
        Value::Tag(_, value) => sort_maps(value),
        _ => {}
    }
}

#[async_trait]
impl Runtime for FunctionRuntime {
    fn host_image(&self) -> &HostImage {
        &self.host_image
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::blob_modules().and_computes_only_when_polled()
    }

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        let module = job.code.own_module()?.id;
        let function = self.functions.read().get(&module).cloned().ok_or_else(|| {
            // Another process may have it, so this failure is not the guest's.
            Error::runtime("this process has no function with this name and version")
        })?;
        let args = host.tree(job.args).await?;
        let arguments = args
            .get(ARGUMENTS)
            .ok_or_else(|| Error::guest_failed(format!("the argument `{ARGUMENTS}` is missing")))?;
        let arguments = host.get(arguments.id).await?;
        let current = Current { core: Weak::clone(&self.core), host: Arc::clone(&host) };
        let result = CURRENT.scope(current, async { function(arguments).await }).await?;
        Ok(ObjectRef::blob(host.put_blob(result).await?))
    }
}
