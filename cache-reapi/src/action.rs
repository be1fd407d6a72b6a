//! The action under which a server keeps what belongs to a request or a ref.
//!
//! It is a function of the request's id, or of the name, alone:
//!
//! - `Command`: the arguments `manifold`, `request` and the id in hexadecimal, or `manifold`, `ref` and
//!   the name. It has no other field.
//! - `Action`: the digest of the command, the digest of the empty directory as input root, and the salt
//!   `manifold cache 1`.
//!
//! Both are uploaded, so that tools which show a cache can show them. Nothing ever executes them.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use prost::Message;

use crate::backend::Key;
use crate::digest::Digest;

const SALT: &[u8] = b"manifold cache 1";

/// An action with its command, encoded.
pub(crate) struct Action {
    pub(crate) digest: Digest,
    pub(crate) action: Vec<u8>,
    pub(crate) command: Vec<u8>,
}

impl Action {
    pub(crate) fn of(key: &Key) -> Self {
        match key {
            Key::Request(id) => Self::new("request", id.to_string()),
            Key::Ref(name) => Self::new("ref", name.clone()),
        }
    }

    fn new(kind: &str, name: String) -> Self {
        let arguments = vec!["manifold".to_owned(), kind.to_owned(), name];
        let command = reapi::Command { arguments, ..reapi::Command::default() }.encode_to_vec();
        // The encoding of the empty directory is empty.
        let action = reapi::Action {
            command_digest: Some(Digest::of(&command).to_reapi()),
            input_root_digest: Some(Digest::of(b"").to_reapi()),
            salt: SALT.to_vec(),
            ..reapi::Action::default()
        };
        let action = action.encode_to_vec();
        Self { digest: Digest::of(&action), action, command }
    }

    /// Returns the blobs that a server should have beside a result.
    pub(crate) fn blobs(self) -> [Vec<u8>; 3] {
        [self.command, self.action, Vec::new()]
    }
}
