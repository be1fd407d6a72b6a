//! Servers that want a password, credentials or TLS.

use std::sync::Arc;

use manifold_dispatcher::{Dispatcher, MemoryStore};
use manifold_nodes::{Node, NodeError, NodeOptions};
use manifold_testing::accounts::Accounts;
use manifold_testing::certificates::Certificates;
use manifold_testing::nats::Nats;

use crate::machine::Machine;

async fn join(options: NodeOptions) -> Result<Node, NodeError> {
    let dispatcher = Dispatcher::builder().build().unwrap();
    Node::join(dispatcher, Arc::new(MemoryStore::new()), &options).await
}

/// Joins with one node that gives runs away and one that takes them over, and shares a call.
async fn share(options: NodeOptions) {
    let (origin, helper) =
        (Machine::join(options.clone(), false).await, Machine::join(options, true).await);
    origin.has_peers(1).await;
    let completion = origin.run(origin.all("leaf", 40, 100)).await.unwrap();
    assert_eq!(completion.text().unwrap(), "780");
    assert!(helper.fixture.runs() > 0);
    origin.node.leave().await;
    helper.node.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_with_users_wants_a_password() {
    let Some(server) = Nats::with_user("builder", "secret words") else { return };
    let host = server.address().replace("nats://", "");
    for wrong in [format!("nats://{host}"), format!("nats://builder:wrong@{host}")] {
        let error = join(NodeOptions::new(wrong)).await.unwrap_err();
        assert!(matches!(error, NodeError::Connect { .. }), "{error:?}");
        assert!(error.to_string().contains(&host) && !error.to_string().contains("wrong"));
    }
    share(NodeOptions::new(format!("nats://builder:secret%20words@{host}"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_with_accounts_wants_credentials() {
    let (accounts, others) = (Accounts::new(), Accounts::new());
    let Some(server) = Nats::with_accounts(&accounts) else { return };
    let options = || NodeOptions::new(server.address());
    for wrong in [options(), options().credentials(Some(others.credentials()))] {
        let error = join(wrong).await.unwrap_err();
        assert!(matches!(error, NodeError::Connect { .. }), "{error:?}");
    }
    share(options().credentials(Some(accounts.credentials()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_is_reached_through_tls() {
    let certificates = Certificates::new();
    let Some(server) = Nats::start_secure(&certificates) else { return };
    let options = || NodeOptions::new(server.address());
    // Its authority is not one that the system trusts.
    let error = join(options()).await.unwrap_err();
    assert!(matches!(error, NodeError::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains(&server.address()), "{error}");
    share(options().authority(Some(certificates.file("authority.pem")))).await;
}
