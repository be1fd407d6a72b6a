//! The commits of a repository, compared with `git rev-list`, and many root calls.

use std::fs;
use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use manifold_dispatcher::api::{Error, ObjectId, Reason};
use manifold_dispatcher::{Dispatcher, GitObjects, History};
use tempfile::TempDir;

struct Repository(TempDir);

impl Repository {
    fn new() -> Self {
        let repository = Self(TempDir::new().unwrap());
        repository.git(&["init", "--quiet", "--initial-branch=main", "."], 0);
        repository
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs git with a clock that shows `time`.
    fn git(&self, arguments: &[&str], time: i64) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@localhost"])
            .args(arguments)
            .env("GIT_COMMITTER_DATE", format!("@{time} +0100"))
            .env("GIT_AUTHOR_DATE", "@1 +0000")
            .current_dir(self.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, subject: &str, time: i64) {
        self.git(&["commit", "--quiet", "--allow-empty", "--message", subject], time);
    }

    fn id(&self, rev: &str) -> ObjectId {
        self.git(&["rev-parse", rev], 0).parse().unwrap()
    }

    fn objects(&self) -> GitObjects {
        GitObjects::open(self.path()).unwrap()
    }
}

fn ids(history: History<'_>) -> Vec<String> {
    history.map(|commit| commit.unwrap().id.to_string()).collect()
}

/// A history with merges, and commits of equal times and of times that go back.
fn merged() -> Repository {
    let repository = Repository::new();
    for round in 0..6 {
        let time = 1000 + round * 100;
        repository.commit(&format!("main {round}"), time);
        repository.git(&["checkout", "--quiet", "-b", &format!("side-{round}")], 0);
        repository.commit(&format!("side {round}"), time + 150);
        repository.commit(&format!("side {round} again"), time - 300);
        repository.git(&["checkout", "--quiet", "main"], 0);
        repository.commit(&format!("main {round} beside it"), time + 150);
        let merge = ["merge", "--quiet", "--no-ff", "--message", "a merge"];
        repository.git(&[&merge[..], &[&format!("side-{round}")]].concat(), time + 160);
    }
    repository.git(&["tag", "--annotate", "--message", "a tag", "tagged", "main~3"], 5000);
    repository
}

#[test]
fn commits_are_those_of_git_in_its_order() {
    let repository = merged();
    for packed in [false, true] {
        if packed {
            repository.git(&["gc", "--quiet"], 0);
        }
        let objects = repository.objects();
        let listed = |arguments: &[&str]| -> Vec<String> {
            let listed = repository.git(&[&["rev-list"], arguments].concat(), 0);
            listed.lines().map(str::to_owned).collect()
        };
        let main = repository.id("main");
        let history = objects.history([main], []).unwrap();
        assert_eq!(ids(history), listed(&["main"]));
        let history = objects.history([main], []).unwrap().first_parent();
        assert_eq!(ids(history), listed(&["--first-parent", "main"]));
        // The id of the tag object, not of its commit.
        for without in ["tagged", "main~1", "main", "side-2"] {
            let history = objects.history([main], [repository.id(without)]).unwrap();
            assert_eq!(ids(history), listed(&["main", &format!("^{without}")]), "{without}");
        }
        let tips = [repository.id("side-1"), repository.id("side-4"), repository.id("tagged")];
        let history = objects.history(tips, []).unwrap();
        assert_eq!(ids(history), listed(&["side-1", "side-4", "tagged"]));
    }
}

#[test]
fn a_missing_commit_to_leave_out_is_an_error() {
    let repository = merged();
    let absent = ObjectId::from_hex("00000000000000000000000000000000000000ff").unwrap();
    let objects = repository.objects();
    let error = objects.history([repository.id("main")], [absent]).unwrap_err();
    assert_eq!(error.missing_object(), Some(absent));
}

#[test]
fn a_commit_has_its_parts() {
    let repository = Repository::new();
    fs::write(repository.path().join("f"), "f\n").unwrap();
    repository.git(&["add", "f"], 0);
    repository.commit("\nfirst line\nsecond line\n\nand a body", 1_700_000_000);
    repository.commit("next", 5000);
    let commit = repository.objects().commit(repository.id("HEAD~1")).unwrap().unwrap();
    assert_eq!(commit.tree, repository.id("HEAD~1^{tree}"));
    assert_eq!((commit.time, commit.subject.to_string()), (1_700_000_000, "first line".into()));
    assert!(commit.parents.is_empty());
    let next = repository.objects().commit(repository.id("HEAD")).unwrap().unwrap();
    assert_eq!(next.parents, [commit.id]);
    let error = repository.objects().commit(commit.tree).unwrap_err();
    assert!(matches!(error.reason(), Reason::WrongKind { found: "tree", .. }), "{error}");
    assert_eq!(error.to_string(), format!("object {} is a tree, not a commit", commit.tree));
    let absent = ObjectId::from_hex("00000000000000000000000000000000000000ff").unwrap();
    assert_eq!(repository.objects().commit(absent).unwrap(), None);
}

#[test]
fn a_shallow_clone_ends_where_its_commits_end() {
    let repository = merged();
    let place = TempDir::new().unwrap();
    let source = format!("file://{}", repository.path().display());
    let clone = place.path().join("clone").display().to_string();
    repository.git(&["clone", "--quiet", "--bare", "--depth", "3", &source, &clone], 0);
    let objects = GitObjects::open(&clone).unwrap();
    let listed = repository.git(&["-C", &clone, "rev-list", "main"], 0);
    let history = objects.history([repository.id("main")], []).unwrap();
    assert_eq!(ids(history), listed.lines().collect::<Vec<_>>());
}

#[test]
fn a_missing_commit_is_an_error_among_the_others() {
    let repository = Repository::new();
    for number in 0..4 {
        repository.commit(&format!("{number}"), 1000 + number);
    }
    let missing = repository.id("HEAD~2");
    let (directory, file) =
        (missing.to_string()[..2].to_owned(), missing.to_string()[2..].to_owned());
    fs::remove_file(repository.path().join(".git/objects").join(directory).join(file)).unwrap();
    let objects = repository.objects();
    let tip = ObjectId::from_hex(&repository.git(&["rev-parse", "HEAD"], 0)).unwrap();
    let mut history = objects.history([tip], []).unwrap();
    assert!(history.next().unwrap().is_ok() && history.next().unwrap().is_ok());
    let error: Error = history.next().unwrap().unwrap_err();
    assert_eq!(error.missing_object(), Some(missing));
    assert!(history.next().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_return_in_their_order_and_some_at_a_time() {
    let dispatcher = Dispatcher::builder().build().unwrap();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&now), Arc::clone(&most));
    let wait = dispatcher.function("wait", 1, move |number: u64| {
        let (now, most) = counts.clone();
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // The later ones are done earlier.
            tokio::time::sleep(std::time::Duration::from_millis(20 - number % 20)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            number % 7
        }
    });
    let wait = wait.unwrap();
    let calls = (0..60).map(|number| match number {
        13 => Err(Error::guest_failed("no thirteenth")),
        number => wait.invocation(&number),
    });
    let results = pin!(dispatcher.run_each(calls, 5));
    let results: Vec<_> = results.collect().await;
    assert_eq!(results.len(), 60);
    for (number, result) in results.into_iter().enumerate() {
        match result {
            Err(error) => assert_eq!((number, &*error.to_string()), (13, "no thirteenth")),
            Ok(completion) => {
                assert_eq!(completion.bytes().unwrap()[..], [u8::try_from(number % 7).unwrap()]);
            }
        }
    }
    assert!((2..=5).contains(&most.load(Ordering::SeqCst)), "{most:?}");
}

#[tokio::test]
async fn calls_end_when_the_stream_is_dropped() {
    let dispatcher = Dispatcher::builder().build().unwrap();
    let running = Arc::new(());
    let held = Arc::clone(&running);
    let wait = dispatcher.function("wait", 1, move |_: u64| {
        let held = Arc::clone(&held);
        async move {
            let _held = held;
            std::future::pending::<()>().await;
        }
    });
    let wait = wait.unwrap();
    {
        let mut calls = pin!(dispatcher.run_each((0..9).map(|number| wait.invocation(&number)), 3));
        let first = tokio::time::timeout(std::time::Duration::from_millis(50), calls.next()).await;
        assert!(first.is_err());
        assert_eq!(Arc::strong_count(&running), 2 + 3);
    }
    for _ in 0..100 {
        if Arc::strong_count(&running) == 2 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} calls still run", Arc::strong_count(&running) - 2);
}
