//! The host and the job of the ABI's tests.

use manifold_runtime_api::{
    Code, Error, Frame, Job, Object, ObjectId, ObjectKind, ObjectRef, TestHost, Tree,
};

/// Creates a host with the image `same`, which returns its arguments, and the image `other`, which
/// fails.
pub(crate) fn host() -> TestHost {
    let host = TestHost::new()
        .image("same", |call| async move { Ok(ObjectRef::tree(call.args)) })
        .image("other", |call| async move {
            let frame = Frame::new(call.args, call.image, "map");
            Err(Error::guest_failed("no \"luck\" today").in_frame(frame))
        });
    host.put(Tree::empty().to_object());
    host
}

pub(crate) fn job() -> Job {
    let id = |text: &str| ObjectId::of(ObjectKind::Blob, text.as_bytes());
    let code = Code::Module(ObjectRef::blob(id("the module")));
    let args = Object::encoded_tree("").id();
    Job::new(id("the request"), "the image", code, args).salt("some \"salt\"")
}
