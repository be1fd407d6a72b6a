//! The command lines of `manifold curry`, `std` and `image`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ArgumentArgs, ContainerArgs, StoreArgs};

/// Bind arguments to an image, and print the id of the image with its arguments bound
///
/// The arguments of a run come before bound ones of the same name. If the image has bound arguments
/// already, the new image binds all of them to the image below. It is pinned under its own id.
#[derive(Debug, Args)]
pub(crate) struct Curry {
    /// Standard name, image reference, .wasm, .ts or .js file, or directory with a main.ts
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) args: ArgumentArgs,
    /// Give the image a name, as `std add` does
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) containers: ContainerArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Name images, so that commands and guests find them
///
/// A name is used like that of a standard image: as `manifold run NAME`, `--post NAME`, and by guests
/// as `/cas/std/NAME`. Guests see the tree of all names, whose id is a part of every request: after a
/// change of the names, everything is computed once more.
#[derive(Debug, Args)]
pub(crate) struct Std {
    #[command(subcommand)]
    pub(crate) kind: StdKind,
}

/// What is done with names of images.
#[derive(Debug, Subcommand)]
pub(crate) enum StdKind {
    /// List the names and what they stand for
    Ls(StdLs),
    /// Give an image a name, and print the id of the tree of all names
    Add(StdAdd),
    /// Remove a name, and print the id of the tree of all names
    Rm(StdRm),
}

#[derive(Debug, Args)]
pub(crate) struct StdLs {
    /// Print one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StdAdd {
    /// The name, which replaces an earlier image of this name
    pub(crate) name: String,
    /// Standard name, image reference, .wasm, .ts or .js file, or directory with a main.ts
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) containers: ContainerArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StdRm {
    /// The name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Import container images into the store, list and export them
#[derive(Debug, Args)]
pub(crate) struct Image {
    #[command(subcommand)]
    pub(crate) kind: ImageKind,
}

/// What is done with container images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageKind {
    Import(ImageImport),
    Export(ImageExport),
    Ls(ImageLs),
}

/// Import an archive of a container image, and print the id of the image
///
/// The archive is what `docker save`, `podman save` or `skopeo copy` writes: in the format of
/// `docker save`, or in the OCI layout, as a directory or an archive. It can be compressed with gzip
/// or zstd. A directory can also have the form in which the store keeps images: `config.json`,
/// `layer00`, …, and `base` with the id of the image to which the layers are added. The image is
/// pinned under its own id. `manifold unpin` gives it up.
#[derive(Debug, Args)]
pub(crate) struct ImageImport {
    /// Archive or directory; `-` for standard input
    pub(crate) archive: PathBuf,
    /// Name of the image in an archive with several [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub(crate) image: Option<String>,
    /// Platform of the image, such as `linux/arm64` [default: that of this machine]
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// Give the image a name, as `std add` does
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Write a container image to an archive, for `docker load`, `podman load` and `skopeo copy`
#[derive(Debug, Args)]
pub(crate) struct ImageExport {
    /// Name or id of the image
    pub(crate) image: String,
    /// Archive to write; `-` for standard output
    pub(crate) out: PathBuf,
    /// What engines call the image once they have loaded it, such as `example:1`
    #[arg(long)]
    pub(crate) tag: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// List the container images that were imported: id, size, layers, program, and names
#[derive(Debug, Args)]
pub(crate) struct ImageLs {
    /// Print one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}
