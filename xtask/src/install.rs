//! Installing what a command needs. Everything that is about to be installed is printed first, in
//! one list.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{Result, is_root, is_runnable, root, run};

/// Whether this process may install anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Installing {
    Allowed,
    /// `--no-install`: what is missing stays missing.
    Forbidden,
}

/// Something that is missing and can be installed.
#[derive(Debug)]
pub(crate) struct Need {
    installer: Installer,
    /// The names of the packages, as the installer takes them.
    packages: Vec<String>,
    /// What the packages are for.
    purpose: &'static str,
}

/// A program that installs packages.
#[derive(Debug)]
enum Installer {
    /// Debian's package manager. Only root can use it.
    AptGet,
    /// Adds a target's standard library to the Rust toolchain.
    Rustup,
    /// Builds a program from crates.io.
    Cargo,
    /// Installs what the `package.json` in a directory lists.
    Npm(PathBuf),
    /// Installs into a Python environment, which is created if it does not exist.
    Pip(PathBuf),
}

impl Need {
    /// Debian packages.
    pub(crate) fn apt_get(packages: &[&str], purpose: &'static str) -> Self {
        Self::new(Installer::AptGet, packages, purpose)
    }

    /// A target of the Rust toolchain.
    pub(crate) fn rustup(target: &str, purpose: &'static str) -> Self {
        Self::new(Installer::Rustup, &[target], purpose)
    }

    /// A program that is a crate.
    pub(crate) fn cargo(package: &str, purpose: &'static str) -> Self {
        Self::new(Installer::Cargo, &[package], purpose)
    }

    /// The packages that `directory/package.json` lists.
    pub(crate) fn npm(directory: PathBuf, packages: &[&str], purpose: &'static str) -> Self {
        Self::new(Installer::Npm(directory), packages, purpose)
    }

    /// A Python package for the environment in `directory`.
    pub(crate) fn pip(directory: PathBuf, package: &str, purpose: &'static str) -> Self {
        Self::new(Installer::Pip(directory), &[package], purpose)
    }

    fn new(installer: Installer, packages: &[&str], purpose: &'static str) -> Self {
        let packages = packages.iter().map(|&package| package.to_owned()).collect();
        Self { installer, packages, purpose }
    }

    /// Says how to install this by hand.
    pub(crate) fn how_to(&self) -> String {
        let packages = self.packages.join(" ");
        match &self.installer {
            Installer::AptGet => format!("To install it: apt-get install {packages}"),
            Installer::Rustup => format!("To install it: rustup target add {packages}"),
            Installer::Cargo => format!("To install it: cargo install --locked {packages}"),
            Installer::Npm(directory) => {
                format!("To install it: npm install --prefix {}", directory.display())
            }
            Installer::Pip(directory) => format!(
                "To install it: python3 -m venv {0} && {0}/bin/pip install {packages}",
                directory.display()
            ),
        }
    }

    /// Returns the line that announces the installation.
    fn announcement(&self) -> String {
        let place = match &self.installer {
            Installer::AptGet => "apt-get",
            Installer::Rustup => "rustup",
            Installer::Cargo => "cargo install",
            Installer::Npm(directory) => &format!("npm, in {}", shown(directory)),
            Installer::Pip(directory) => &format!("pip, in {}", shown(directory)),
        };
        format!("about to install with {place}: {} ({})", self.packages.join(", "), self.purpose)
    }

    /// Returns whether the installer can be used on this machine by this user.
    fn is_installable(&self) -> bool {
        match &self.installer {
            Installer::AptGet => is_root() && is_runnable("apt-get"),
            Installer::Rustup => is_runnable("rustup"),
            Installer::Cargo => true,
            Installer::Npm(_) => is_runnable("npm"),
            Installer::Pip(_) => is_runnable("python3"),
        }
    }

    fn install(&self) -> Result {
        match &self.installer {
            Installer::AptGet => {
                run(apt_get(&["install", "-qq", "-y", "--no-install-recommends"])
                    .args(&self.packages))
            }
            Installer::Rustup => run(Command::new("rustup")
                .args(["target", "add"])
                .args(&self.packages)
                .current_dir(root())),
            // To build cargo-deny with optimizations takes 5 minutes more than it saves.
            Installer::Cargo => run(Command::new("cargo")
                .args(["install", "--locked", "--debug"])
                .args(&self.packages)),
            Installer::Npm(directory) => run(Command::new("npm")
                .args(["install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"])
                .arg("--ignore-scripts")
                .current_dir(directory)),
            Installer::Pip(directory) => {
                run(Command::new("python3").args(["-m", "venv"]).arg(directory))
                    .map_err(|problem| format!("{problem}\nInstall python3-venv."))?;
                run(Command::new(directory.join("bin").join("pip"))
                    .args(["install", "--quiet"])
                    .args(&self.packages))
            }
        }
    }
}

/// Prints what is about to be installed, and why, and installs it.
///
/// Afterwards some of `needs` may still be missing: `installing` forbids it, this user or machine
/// has not the installer, or it failed, which is printed. The steps that use them look again.
pub(crate) fn provide(needs: impl IntoIterator<Item = Need>, installing: Installing) {
    if installing == Installing::Forbidden {
        return;
    }
    let needs: Vec<Need> = needs.into_iter().filter(Need::is_installable).collect();
    if needs.is_empty() {
        return;
    }
    for need in &needs {
        eprintln!("set-up: {}", need.announcement());
    }
    eprintln!("set-up: to install nothing, use the option --no-install");
    let mut results = Vec::new();
    if needs.iter().any(|need| matches!(need.installer, Installer::AptGet)) {
        results.push(run(&mut apt_get(&["update", "-qq"])));
    }
    results.extend(needs.iter().map(Need::install));
    for problem in results.into_iter().filter_map(Result::err) {
        eprintln!("set-up: {problem}");
    }
}

fn apt_get(words: &[&str]) -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get.args(words).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
    apt_get
}

/// Returns how a directory of the project is shown: relative to the root.
fn shown(directory: &Path) -> String {
    directory.strip_prefix(root()).unwrap_or(directory).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_says_what_is_installed_and_why() {
        let need = Need::apt_get(&["docker.io", "crun"], "a container engine for the tests");
        assert_eq!(
            need.announcement(),
            "about to install with apt-get: docker.io, crun (a container engine for the tests)"
        );
        let need = Need::npm(root().join("guests"), &["typescript"], "checks types");
        assert_eq!(
            need.announcement(),
            "about to install with npm, in guests: typescript (checks types)"
        );
    }

    #[test]
    fn every_need_says_how_to_install_it_by_hand() {
        let (apt, npm) = (Need::apt_get(&["a", "b"], ""), Need::npm("/d".into(), &["c"], ""));
        assert_eq!(apt.how_to(), "To install it: apt-get install a b");
        assert_eq!(npm.how_to(), "To install it: npm install --prefix /d");
        let pip = Need::pip("/e".into(), "gn", "");
        assert_eq!(pip.how_to(), "To install it: python3 -m venv /e && /e/bin/pip install gn");
    }
}
