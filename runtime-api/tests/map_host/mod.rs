//! A host that keeps objects in a map and knows the outcome of two images.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use manifold_runtime_api::bytes::Bytes;
use manifold_runtime_api::{
    Call, Code, Error, Frame, Host, Job, Limits, Meter, Module, Object, ObjectId, ObjectKind,
    Outcome, Result, Tree, async_trait,
};

#[derive(Default)]
pub(crate) struct MapHost {
    pub(crate) objects: Mutex<HashMap<ObjectId, Object>>,
    pub(crate) log: Mutex<Vec<String>>,
}

impl MapHost {
    pub(crate) fn put(&self, object: Object) -> ObjectId {
        let id = object.id();
        self.objects.lock().unwrap().insert(id, object);
        id
    }

    fn find(&self, id: ObjectId) -> Result<Object> {
        self.objects.lock().unwrap().get(&id).cloned().ok_or_else(|| Error::missing(id))
    }
}

#[async_trait]
impl Host for MapHost {
    async fn tree(&self, id: ObjectId) -> Result<Arc<Tree>> {
        Ok(Arc::new(Tree::decode(&self.find(id)?.content)?))
    }

    async fn get(&self, id: ObjectId) -> Result<Bytes> {
        Ok(self.find(id)?.content)
    }

    async fn put_blob(&self, content: Bytes) -> Result<ObjectId> {
        Ok(self.put(Object::blob(content)))
    }

    async fn put_tree(&self, tree: Tree) -> Result<ObjectId> {
        Ok(self.put(tree.to_object()))
    }

    /// The image `same` answers its arguments, any other one fails in a frame of its own.
    async fn run(&self, call: Call) -> Result<Outcome> {
        if call.image == "same" {
            return Ok(Outcome::tree(call.args));
        }
        let frame = Frame::new(call.args, call.image, "map");
        Err(Error::guest_failed("no \"luck\" today").in_frame(frame))
    }

    async fn run_many(&self, calls: Vec<Call>) -> Vec<Result<Outcome>> {
        let mut results = Vec::new();
        for call in calls {
            results.push(self.run(call).await);
        }
        results
    }

    fn log(&self, message: &str) {
        self.log.lock().unwrap().push(message.to_owned());
    }
}

pub(crate) fn job(host: &MapHost) -> Job {
    Job {
        request: ObjectId::of(ObjectKind::Blob, b"the request"),
        image: "the image".into(),
        code: Code::Module(Module {
            kind: ObjectKind::Blob,
            id: ObjectId::of(ObjectKind::Blob, b"the module"),
        }),
        args: host.put(Tree::empty().to_object()),
        std: None,
        salt: "some \"salt\"".into(),
        limits: Limits::default(),
        meter: Arc::new(Meter::unlimited()),
    }
}
