//! Compares ways to store what a fold writes: for each frame an object of 75 bytes and a memo entry
//! of 41 bytes, under random ids, committed durably every 20,000 frames.
//!
//! `cargo run --release --manifest-path benches/stores/Cargo.toml -- [FRAMES [DIRECTORY]]` prints the
//! time of each store, the bytes that the process gave to the file system, and the size on disk.
//! Git's fast-import stores the objects only, in one pack.

use std::error::Error;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use manifold_dispatcher::api::{Object, ObjectId, ObjectRef};
use manifold_dispatcher::{DurableStore, Store};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// How many frames are committed together.
const BATCH: usize = 20_000;

/// What a frame stores.
struct Frame {
    content: Vec<u8>,
    object: ObjectId,
    request: ObjectId,
}

fn frames(count: usize) -> Vec<Frame> {
    let frame = |number: usize| {
        let content = format!("{:075}", number * 7919).into_bytes();
        let object = Object::blob(content.clone()).id();
        let request = Object::blob(format!("request {number}")).id();
        Frame { content, object, request }
    };
    (0..count).map(frame).collect()
}

fn entry(frame: &Frame) -> Vec<u8> {
    [&[1][..], frame.object.as_bytes(), &[0; 20]].concat()
}

fn redb_tables(directory: &Path, frames: &[Frame]) -> Result {
    const OBJECTS: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("objects");
    const MEMO: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("memo");
    let database = redb::Database::create(directory.join("redb"))?;
    for batch in frames.chunks(BATCH) {
        let transaction = database.begin_write()?;
        {
            let (mut objects, mut memo) =
                (transaction.open_table(OBJECTS)?, transaction.open_table(MEMO)?);
            for frame in batch {
                objects.insert(frame.object.as_bytes(), &*frame.content)?;
                memo.insert(frame.request.as_bytes(), &*entry(frame))?;
            }
        }
        transaction.commit()?;
    }
    Ok(())
}

fn lmdb(directory: &Path, frames: &[Frame]) -> Result {
    use heed::types::Bytes;
    let mut options = heed::EnvOpenOptions::new();
    options.map_size(16 << 30).max_dbs(2);
    // SAFETY: nothing else has this new directory open.
    let environment = unsafe { options.open(directory)? };
    let mut transaction = environment.write_txn()?;
    let objects: heed::Database<Bytes, Bytes> =
        environment.create_database(&mut transaction, Some("objects"))?;
    let memo: heed::Database<Bytes, Bytes> =
        environment.create_database(&mut transaction, Some("memo"))?;
    transaction.commit()?;
    for batch in frames.chunks(BATCH) {
        let mut transaction = environment.write_txn()?;
        for frame in batch {
            objects.put(&mut transaction, frame.object.as_bytes(), &frame.content)?;
            memo.put(&mut transaction, frame.request.as_bytes(), &entry(frame))?;
        }
        transaction.commit()?;
    }
    Ok(())
}

fn fjall(directory: &Path, frames: &[Frame]) -> Result {
    let keyspace = fjall::Config::new(directory).open()?;
    let objects = keyspace.open_partition("objects", Default::default())?;
    let memo = keyspace.open_partition("memo", Default::default())?;
    for frames in frames.chunks(BATCH) {
        let mut batch = keyspace.batch();
        for frame in frames {
            batch.insert(&objects, frame.object.as_bytes(), &*frame.content);
            batch.insert(&memo, frame.request.as_bytes(), entry(frame));
        }
        batch.commit()?;
        keyspace.persist(fjall::PersistMode::SyncData)?;
    }
    Ok(())
}

fn git_fast_import(directory: &Path, frames: &[Frame]) -> Result {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(directory).args(arguments);
        git
    };
    if !git(&["init", "--quiet", "--bare"]).status()?.success() {
        return Err("git init failed".into());
    }
    let mut import = git(&["fast-import", "--quiet", "--depth=0"]).stdin(Stdio::piped()).spawn()?;
    let mut input = BufWriter::new(import.stdin.take().ok_or("no input")?);
    for frame in frames {
        write!(input, "blob\ndata {}\n", frame.content.len())?;
        input.write_all(&frame.content)?;
        input.write_all(b"\n")?;
    }
    drop(input);
    if import.wait()?.success() { Ok(()) } else { Err("git fast-import failed".into()) }
}

fn manifold(directory: &Path, frames: &[Frame]) -> Result {
    let store = DurableStore::open(directory)?;
    for batch in frames.chunks(BATCH) {
        for frame in batch {
            let id = store.write(Object::blob(frame.content.clone()))?;
            store.record(frame.request, ObjectRef::blob(id))?;
        }
        store.flush()?;
    }
    Ok(())
}

/// Returns how many bytes this process and its children have given to the file system.
fn written() -> Result<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("no write_bytes in /proc/self/io")?.parse()?)
}

fn size(directory: &Path) -> Result<u64> {
    let output = Command::new("du").args(["-s", "--block-size=1"]).arg(directory).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().ok_or("du printed nothing")?.parse()?)
}

fn main() -> Result {
    type Run = fn(&Path, &[Frame]) -> Result;
    const STORES: [(&str, Run); 5] = [
        ("manifold", manifold),
        ("redb, two tables", redb_tables),
        ("LMDB", lmdb),
        ("fjall", fjall),
        ("git fast-import", git_fast_import),
    ];
    let mut arguments = std::env::args().skip(1);
    let count = arguments.next().map_or(Ok(300_000), |count| count.parse())?;
    let root = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let frames = frames(count);
    println!("{count} frames | seconds | bytes written a frame | bytes on disk a frame");
    for (name, run) in STORES {
        let directory = root.join(format!("manifold-stores-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let (start, before) = (Instant::now(), written()?);
        let result = run(&directory, &frames);
        let (seconds, bytes) = (start.elapsed().as_secs_f64(), written()? - before);
        let kept = size(&directory)?;
        fs::remove_dir_all(&directory)?;
        result?;
        let of_frame = |bytes: u64| bytes / count as u64;
        println!("{name} | {seconds:.2} | {} | {}", of_frame(bytes), of_frame(kept));
    }
    Ok(())
}
