//! `manifold completions` and `manifold man`: files for shells and for `man`.

use std::fs;

use clap::CommandFactory;

use crate::args::{Arguments, Completions, Man};
use crate::error::CliError;
use crate::report;

/// Prints the completions of the command for a shell.
pub(crate) fn completions(completions: &Completions) -> Result<(), CliError> {
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut command, name, &mut script);
    report::print(&script)
}

/// Prints the manual page of the command, or writes one for it and each of its subcommands.
pub(crate) fn man(man: &Man) -> Result<(), CliError> {
    let command = Arguments::command();
    match &man.directory {
        Some(directory) => fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(command, directory))
            .map_err(|source| CliError::Unwritable { path: directory.clone(), source }),
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page).map_err(|source| {
                CliError::Unwritable { path: "the manual page".into(), source }
            })?;
            report::print(&page)
        }
    }
}
