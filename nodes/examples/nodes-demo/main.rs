//! Three nodes and a NATS server on this machine: how a call spreads, and what happens when something is
//! killed. Prints a table, and writes it with a picture of who ran what to a page.
//!
//! `cargo xtask nodes-demo` installs the server and runs this. The guests sleep, as if each file took
//! two milliseconds, so that three nodes are faster although they share the cores of one machine.

mod machine;
mod page;
mod scene;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use manifold_testing::nats::Nats;

use crate::page::Page;
use crate::scene::Scene;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["helper", address, trace] => machine::help(address, trace.as_ref()).await,
        [output] => demonstrate(output.into()).await,
        _ => Err("usage: nodes-demo DIRECTORY".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nodes-demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demonstrate(output: PathBuf) -> Result<(), Failure> {
    let Some(mut server) = Nats::start() else { return Err("the NATS server is missing".into()) };
    std::fs::create_dir_all(&output)?;
    let scene = Scene::new(&output);
    let mut page = Page::default();
    scene.alone(&mut page).await?;
    scene.three_nodes(&mut page, &server).await?;
    scene.a_node_is_killed(&mut page, &server).await?;
    scene.a_node_is_stopped(&mut page, &server).await?;
    scene.the_server_is_away(&mut page, &mut server).await?;
    scene.two_ask_at_once(&mut page, &server).await?;
    scene.nobody_helps(&mut page, &server).await?;
    print!("{}", page.table());
    let file = output.join("nodes.html");
    std::fs::write(&file, page.html())?;
    println!("\nwritten to {}", file.display());
    match page.broken() {
        0 => Ok(()),
        broken => Err(format!("{broken} of the promises do not hold").into()),
    }
}
