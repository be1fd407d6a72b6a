//! An observer sees an end for each start, and a start for each end.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use manifold_dispatcher::api::{Error, ObjectId};
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{Budget, Dispatcher, Event, Invocation, Policy};

/// How many runs of each request have started and not ended.
#[derive(Debug, Default)]
struct Open(Mutex<HashMap<ObjectId, i64>>);

impl Open {
    fn on(&self, event: &Event<'_>) {
        let (request, change) = match event {
            Event::Started { request, .. } => (*request, 1),
            Event::Settled { request, .. } => (*request, -1),
            _ => return,
        };
        let mut open = self.0.lock().unwrap();
        let count = open.entry(request).or_default();
        *count += change;
        assert!((0..=1).contains(count), "{event:?}");
    }

    fn count(&self) -> i64 {
        self.0.lock().unwrap().values().sum()
    }
}

fn runtime() -> NativeRuntime {
    NativeRuntime::builder("guests", "1")
        .guest("answer", |guest| async move { guest.blob("42").await })
        .guest("fail", |_| async { Err(Error::guest_failed("on purpose")) })
        .guest("panic", |_| async { panic!("on purpose") })
        .guest("hang", |_| pending())
        .guest("call", |guest| async move {
            let image = guest.text("image").await?;
            let args = guest.put_tree([]).await?;
            guest.run(&image, args).await
        })
        .build()
        .unwrap()
}

#[tokio::test]
async fn every_start_has_one_end() {
    let open = Arc::new(Open::default());
    let observed = Arc::clone(&open);
    let dispatcher =
        Dispatcher::builder().on_event(move |event| observed.on(event)).build().unwrap();
    let host = dispatcher.add_runtime(runtime()).unwrap();
    let image = |name: &str| dispatcher.install(host, name).unwrap().to_string();
    let calling = |name: &str| {
        Invocation::new(image("call")).arg("image", image(name)).policy(Policy::Recompute)
    };
    for name in ["answer", "fail", "panic"] {
        let _ = dispatcher.run(calling(name)).await;
        let _ = dispatcher.run(calling(name)).await;
    }
    // A deadline, and a caller that stops waiting.
    let budget = Budget::new().deadline(Duration::from_millis(20));
    dispatcher.run(calling("hang").budget(budget)).await.unwrap_err();
    let hanging = dispatcher.run(calling("hang"));
    assert!(tokio::time::timeout(Duration::from_millis(20), hanging).await.is_err());
    // A budget that the nested run exceeds.
    dispatcher.run(calling("answer").budget(Budget::new().runs(1)).salt("a")).await.unwrap_err();
    dispatcher.run(calling("answer").budget(Budget::new().depth(0)).salt("b")).await.unwrap_err();

    for _ in 0..500 {
        if open.count() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(open.count(), 0, "{open:?}");
    let stats = dispatcher.stats();
    assert!(stats.failures > 0 && stats.failures <= stats.runs, "{stats:?}");
}

#[tokio::test]
async fn runtimes_and_sources_join_a_live_dispatcher() {
    let dispatcher = Dispatcher::builder().build().unwrap();
    let host = manifold_dispatcher::api::Runtime::host_image(&runtime()).id();
    let image = dispatcher.install(host, "answer").unwrap();
    let error = dispatcher.run(Invocation::new(image)).await.unwrap_err();
    assert!(error.to_string().contains(&host.to_string()), "{error:?}");
    assert_eq!(dispatcher.add_runtime(runtime()).unwrap(), host);
    assert_eq!(dispatcher.run(Invocation::new(image)).await.unwrap().text().unwrap(), "42");
    let error = dispatcher.add_runtime(runtime()).unwrap_err();
    assert!(error.to_string().contains("registered"), "{error:?}");
    assert_eq!(dispatcher.runtimes().len(), 1);

    let elsewhere = manifold_dispatcher::MemoryStore::new();
    let id = manifold_dispatcher::Store::write(
        &elsewhere,
        manifold_dispatcher::api::Object::blob("from another place"),
    )
    .unwrap();
    dispatcher.read(id).unwrap_err();
    dispatcher.add_source(elsewhere);
    assert_eq!(dispatcher.read(id).unwrap().content, "from another place");
}

#[tokio::test]
async fn arguments_are_text_bytes_files_trees_and_objects() {
    use manifold_dispatcher::Input;
    let echo = NativeRuntime::builder("echo", "1")
        .guest("args", |guest| async move {
            Ok(manifold_dispatcher::api::ObjectRef::tree(guest.job().args))
        })
        .build()
        .unwrap();
    let dispatcher = Dispatcher::builder().build().unwrap();
    let host = dispatcher.add_runtime(echo).unwrap();
    let image = dispatcher.install(host, "args").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "in a file").unwrap();
    let stored = dispatcher.put(Input::tree([("x", "nested".into())])).unwrap();
    let base = dispatcher.put_tree([argument("base", stored), argument("text", stored)]).unwrap();
    let completion = dispatcher
        .run(
            Invocation::new(image)
                .args(base)
                .arg("text", "replaced")
                .arg("text", "some text")
                .arg("bytes", vec![0, 255])
                .arg("file", Input::file(file.path()))
                .arg("object", stored)
                .arg("id", stored.id),
        )
        .await
        .unwrap();
    let entries = completion.entries().unwrap();
    let names: Vec<_> = entries.iter().map(|entry| entry.name.to_string()).collect();
    assert_eq!(names, ["base", "bytes", "file", "id", "object", "text"]);
    let content = |name: &str| {
        let entry = entries.iter().find(|entry| entry.name == name).unwrap();
        dispatcher.read(entry.id).unwrap().content
    };
    assert_eq!(content("text"), "some text");
    assert_eq!(content("bytes"), &[0, 255][..]);
    assert_eq!(content("file"), "in a file");
    completion.text().unwrap_err();

    let missing = Invocation::new(image).arg("file", Input::file("/does/not/exist"));
    let error = dispatcher.run(missing).await.unwrap_err();
    assert!(error.to_string().contains("/does/not/exist"), "{error:?}");
}
