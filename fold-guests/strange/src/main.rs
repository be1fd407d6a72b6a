//! A container program that misbehaves, for tests. Its first argument selects the misbehavior.

mod dump;
mod leave;

use std::io::{self, BufRead, Write};
use std::process::{self, Command};
use std::time::Duration;
use std::{env, fs, thread};

use manifold_guest::{Error, Job, Result, get, log, run};

fn main() {
    match env::args().nth(1).unwrap_or_default().as_str() {
        "garbage" => say("this is not JSON\n"),
        "gigabyte" => loop {
            say(&"x".repeat(1 << 20));
        },
        "half-line" => say("{\"op\":\"jo"),
        "nothing" => {}
        "status-3" => process::exit(3),
        "killed-by-itself" => process::abort(),
        "forks" => leave::fork_forever(),
        "never-ends" => loop {
            thread::sleep(Duration::from_secs(1));
        },
        "ignores-stdin" => loop {
            say("{\"op\":\"job\"}\n");
        },
        "noise" => {
            for _ in 0..4096 {
                eprintln!("{}", "noise ".repeat(1000));
            }
            manifold_guest::run_process(|| manifold_guest::run_job(answer));
        }
        "out-and-garbage" => {
            manifold_guest::run_process(|| manifold_guest::run_job(answer));
            say("garbage after the outcome");
        }
        "out-and-stay" => {
            manifold_guest::run_process(|| manifold_guest::run_job(answer));
            loop {
                thread::park();
            }
        }
        "memory" => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(vec![1u8; 1 << 20]);
            }
        }
        "dies-waiting" => {
            let _ = exchange("{\"op\":\"job\"}\n");
            process::exit(0);
        }
        "slow-start" => {
            thread::sleep(Duration::from_secs(2));
            manifold_guest::run_process(|| manifold_guest::run_job(probe));
        }
        _ => manifold_guest::run_process(|| manifold_guest::run_job(probe)),
    }
}

fn say(text: &str) {
    // The reader has closed the pipe: there is nothing left to do.
    if io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()).is_err() {
        process::exit(0);
    }
}

fn exchange(request: &str) -> String {
    say(request);
    let mut response = String::new();
    let _ = io::stdin().lock().read_line(&mut response);
    response
}

fn answer(_: &Job) -> Result<String> {
    Ok("an answer".to_owned())
}

/// Performs the action that the argument `do` names, and returns its result as text.
fn probe(job: &Job) -> Result<String> {
    let argument = |name: &str| -> Result<String> {
        String::from_utf8(get(&job.required(name)?.id)?)
            .map_err(|_| Error::new(format!("the argument `{name}` is not valid UTF-8")))
    };
    let outcome = |result: io::Result<String>| {
        result.unwrap_or_else(|error| format!("error: {:?}", error.kind()))
    };
    Ok(match argument("do")?.as_str() {
        "status" => outcome(fs::read_to_string("/proc/self/status")),
        "limits" => outcome(fs::read_to_string("/proc/self/limits")),
        "mounts" => outcome(fs::read_to_string("/proc/self/mounts")),
        "environment" => env::vars().map(|(name, value)| format!("{name}={value}\n")).collect(),
        "network" => outcome(fs::read_to_string("/proc/net/dev")),
        "write" => outcome(fs::write(argument("path")?, "scratch").map(|()| "written".to_owned())),
        "exists" => fs::exists(argument("path")?).is_ok_and(|exists| exists).to_string(),
        "fill" => {
            let big = vec![0u8; 1 << 20];
            let mut file = fs::File::create(argument("path")?)
                .map_err(|error| Error::new(error.to_string()))?;
            let fits = (0..4096).take_while(|_| file.write_all(&big).is_ok()).count();
            format!("{fits} MiB")
        }
        "fork-bomb" => {
            let mut children = Vec::new();
            while let Ok(child) = Command::new("/proc/self/exe").arg("never-ends").spawn() {
                children.push(child);
                if children.len() > 10_000 {
                    break;
                }
            }
            format!("{} children", children.len())
        }
        "dump" => dump::everything(),
        "leave" => leave::something(&argument("what")?),
        "panic" => panic!("as asked"),
        "clock" => {
            log("it reads the clock");
            format!("{:?}", std::time::SystemTime::now())
        }
        "spin" => loop {
            std::hint::spin_loop();
        },
        "log" => {
            log("through the ABI");
            eprintln!("through standard error");
            "logged".to_owned()
        }
        "exit" => process::exit(7),
        "sleep" => {
            thread::sleep(Duration::from_millis(argument("ms")?.parse().unwrap_or(0)));
            "slept".to_owned()
        }
        "nest" => {
            let nested = run(&argument("image")?, &job.required("args")?.id)?;
            String::from_utf8_lossy(&get(&nested.id)?).into_owned()
        }
        "nest-and-leave" => {
            thread::spawn(|| {
                thread::sleep(Duration::from_millis(300));
                process::exit(0);
            });
            run(&argument("image")?, &job.required("args")?.id)?;
            "stayed".to_owned()
        }
        other => return Err(Error::new(format!("unknown action `{other}`"))),
    })
}
