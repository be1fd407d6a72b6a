//! Writes a report of the benchmarks' results:
//! `report CRITERION_DIRECTORY SCALE_FILE CORES_FILE WAITS_FILE OUTPUT_DIRECTORY [README]`.
//!
//! `cargo xtask bench` runs this program. It writes `report.md` and `report.html`, which are
//! self-contained, to `OUTPUT_DIRECTORY`. In the README, it replaces the text between two comments
//! by the short form of the report.

mod html;
mod machine;
mod markdown;
mod measured;
mod readme;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use measured::Results;

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [criterion, scale, cores, waits, output, readme @ ..] = arguments else {
        let usage = "usage: report CRITERION_DIRECTORY SCALE_FILE CORES_FILE WAITS_FILE \
                     OUTPUT_DIRECTORY [README]";
        return Err(usage.into());
    };
    let results = Results {
        machine: machine::describe(),
        groups: measured::groups(Path::new(criterion))?,
        cores: measured::lines(Path::new(cores))?,
        waits: measured::lines(Path::new(waits))?,
        scales: measured::lines(Path::new(scale))?,
    };
    let output = Path::new(output);
    fs::create_dir_all(output)?;
    fs::write(output.join("report.md"), markdown::report(&results))?;
    fs::write(output.join("report.html"), html::report(&results))?;
    if let [readme] = readme {
        let text = readme::with_short_form(&fs::read_to_string(readme)?, &results)?;
        fs::write(readme, text)?;
    }
    eprintln!("wrote report.html and report.md to {}", output.display());
    Ok(())
}

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
