//! The keys and accounts of a NATS server whose users show a file with credentials: JSON Web Tokens that
//! are signed with nkeys (<https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt>).

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

/// An operator with an account for users and one for the server itself.
#[derive(Debug)]
pub struct Accounts {
    place: TempDir,
    config: String,
}

impl Accounts {
    /// Creates them, and the credentials of a user.
    pub fn new() -> Self {
        let operator = KeyPair::new_operator();
        let all = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1,
            "consumer": -1,
        });
        let account_of = |limits: &Value| {
            let account = KeyPair::new_account();
            let about = json!({ "type": "account", "version": 2, "limits": limits });
            let token = token(&operator, &account, about);
            (account, token)
        };
        let (users, users_token) = account_of(&all);
        // The server's own account cannot have storage.
        let mut own = all.clone();
        for storage in ["mem_storage", "disk_storage", "streams", "consumer"] {
            own[storage] = json!(0);
        }
        let (system, system_token) = account_of(&own);
        let about = json!({ "type": "operator", "version": 2 });
        let operator_token = token(&operator, &operator, about);
        let config = format!(
            "operator: {operator_token}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{ {users}: {users_token}, {system}: {system_token} }}\n",
            users = users.public_key(),
            system = system.public_key(),
        );
        let user = KeyPair::new_user();
        let about = json!({
            "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {},
        });
        let credentials = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            token(&users, &user, about),
            user.seed().unwrap()
        );
        let place = TempDir::new().unwrap();
        fs::write(place.path().join("user.creds"), credentials).unwrap();
        Self { place, config }
    }

    /// Returns the file with the credentials of the user.
    pub fn credentials(&self) -> PathBuf {
        self.place.path().join("user.creds")
    }

    /// Returns what the configuration of the server has.
    pub(crate) fn config(&self) -> &str {
        &self.config
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns a token in which `issuer` says something about `subject`.
fn token(issuer: &KeyPair, subject: &KeyPair, about: Value) -> String {
    let claims = json!({
        "jti": subject.public_key(), "iat": 1_700_000_000, "iss": issuer.public_key(),
        "name": "test", "sub": subject.public_key(), "nats": about,
    });
    let head = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let encode = |part: Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
    let text = format!("{}.{}", encode(head), encode(claims));
    let signature = issuer.sign(text.as_bytes()).unwrap();
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}
