//! Finds an image in an archive: in the format of `docker save`, which
//! [moby's image specification](https://github.com/moby/docker-image-spec/blob/main/v1.2.md#combined-image-json--filesystem-changeset-format)
//! describes, or in the
//! [OCI layout](https://github.com/opencontainers/image-spec/blob/main/image-layout.md).

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::error::ImportError;
use super::hex;
use super::members::Members;

/// The maximum size in bytes of a file that describes an image.
const MAX_DESCRIPTION: u64 = 4 << 20;
/// How deep indexes may nest.
const MAX_INDEXES: usize = 4;

/// The files of one image in an archive.
pub(super) struct Found {
    /// The name and content of the configuration.
    pub(super) config: (String, Vec<u8>),
    /// The names of the layers' archives, the lowest first.
    pub(super) layers: Vec<String>,
}

/// A platform: an operating system, an architecture, and a variant of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) variant: String,
}

impl Platform {
    /// Parses `os/architecture` or `os/architecture/variant`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(str::to_owned);
        let (os, architecture) = (parts.next()?, parts.next()?);
        let variant = parts.next().unwrap_or_default();
        let is_whole = parts.next().is_none() && !os.is_empty() && !architecture.is_empty();
        is_whole.then_some(Self { os, architecture, variant })
    }

    pub(super) fn variant(&self) -> Option<&str> {
        (!self.variant.is_empty()).then_some(&self.variant)
    }

    /// Returns whether an image for `self` is what `wanted` asks for.
    pub(super) fn is(&self, wanted: &Self) -> bool {
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (wanted.variant.is_empty() || self.variant == wanted.variant)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

/// An image in a `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An index, or the manifest of one image.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize, Clone)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

impl Descriptor {
    /// The names that the image has in the archive.
    fn names(&self) -> impl Iterator<Item = &str> {
        ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
            .into_iter()
            .filter_map(|key| self.annotations.get(key).map(String::as_str))
    }

    /// Returns whether this describes no image, but how one was built.
    fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
    }

    /// The name of the file with this digest.
    fn file(&self) -> Result<String, ImportError> {
        let name = self.digest.replacen(':', "/", 1);
        let is_digest = self.digest.strip_prefix("sha256:").is_some_and(|digits| {
            digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        if is_digest {
            return Ok(format!("blobs/{name}"));
        }
        let problem = format!("{:?} is not a sha256 digest, the only kind supported", self.digest);
        Err(ImportError::Malformed { name: "a manifest".to_owned(), problem })
    }

    fn read(&self, members: &Members) -> Result<(String, Vec<u8>), ImportError> {
        let name = self.file()?;
        let content = members.read(&name, MAX_DESCRIPTION)?;
        let found = format!("sha256:{}", hex(&Sha256::digest(&content)));
        if found == self.digest {
            return Ok((name, content));
        }
        Err(ImportError::Digest { name, expected: self.digest.clone(), found })
    }
}

/// Finds the image called `wanted`, or the only one.
pub(super) fn find(
    members: &Members,
    wanted: Option<&str>,
    platform: &Platform,
) -> Result<Found, ImportError> {
    if members.has("manifest.json") {
        return find_saved(members, wanted);
    }
    if !members.has("index.json") {
        return Err(ImportError::NotAnImage);
    }
    let index: Manifest = read_json(members, "index.json")?;
    let images = index.manifests.unwrap_or_default();
    let images = images.into_iter().filter(|image| !image.is_attestation()).collect();
    let mut image = choose(
        images,
        wanted,
        |image| image.names().map(str::to_owned).collect(),
        |all| all.iter().all(|image| image.names().next().is_none() && image.platform.is_some()),
    )?;
    for _ in 0..MAX_INDEXES {
        let [one] = &mut image[..] else {
            image = vec![for_platform(std::mem::take(&mut image), platform)?];
            continue;
        };
        let (name, content) = one.read(members)?;
        let manifest: Manifest = parse(&name, &content)?;
        match (manifest.manifests, manifest.config) {
            (Some(several), _) => {
                let images: Vec<_> =
                    several.into_iter().filter(|image| !image.is_attestation()).collect();
                image = vec![for_platform(images, platform)?];
            }
            (None, Some(config)) => {
                let layers = manifest.layers.iter().map(Descriptor::file);
                return Ok(Found {
                    config: config.read(members)?,
                    layers: layers.collect::<Result<_, _>>()?,
                });
            }
            (None, None) => {
                let problem = "it is neither an index nor the manifest of an image".to_owned();
                return Err(ImportError::Malformed { name, problem });
            }
        }
    }
    let problem = "its indexes nest too deep".to_owned();
    Err(ImportError::Malformed { name: "index.json".to_owned(), problem })
}

fn find_saved(members: &Members, wanted: Option<&str>) -> Result<Found, ImportError> {
    let images: Vec<Saved> = read_json(members, "manifest.json")?;
    let names = |image: &Saved| image.repo_tags.clone().unwrap_or_default();
    let image = choose(images, wanted, names, |_| false)?.pop().ok_or(ImportError::NotAnImage)?;
    let config = members.read(&image.config, MAX_DESCRIPTION)?;
    Ok(Found { config: (image.config, config), layers: image.layers })
}

/// Chooses the image called `wanted`, or the only one. Returns several if `are_one` says that they
/// are the same image for several platforms.
fn choose<T>(
    images: Vec<T>,
    wanted: Option<&str>,
    names: impl Fn(&T) -> Vec<String>,
    are_one: impl Fn(&[T]) -> bool,
) -> Result<Vec<T>, ImportError> {
    let all: Vec<String> = images.iter().flat_map(&names).collect();
    match wanted {
        None if images.is_empty() => Err(ImportError::NotAnImage),
        None if images.len() == 1 || are_one(&images) => Ok(images),
        None => Err(ImportError::Several { names: all }),
        Some(wanted) => {
            // `docker save` leaves out the default tag in some formats.
            let is_wanted = |name: &String| {
                name == wanted
                    || name.strip_suffix(":latest") == Some(wanted)
                    || wanted.strip_suffix(":latest") == Some(name)
            };
            let chosen: Vec<T> =
                images.into_iter().filter(|image| names(image).iter().any(is_wanted)).collect();
            if chosen.is_empty() {
                return Err(ImportError::NoSuchImage { name: wanted.to_owned(), known: all });
            }
            Ok(chosen)
        }
    }
}

/// Chooses the image for `platform`.
fn for_platform(images: Vec<Descriptor>, platform: &Platform) -> Result<Descriptor, ImportError> {
    let known: Vec<Platform> = images.iter().filter_map(|image| image.platform.clone()).collect();
    let is_only = images.len() == 1;
    let fits = |image: &Descriptor| match &image.platform {
        Some(found) => found.is(platform),
        None => is_only,
    };
    images.into_iter().find(fits).ok_or_else(|| ImportError::Platform {
        wanted: platform.to_string(),
        known: known.iter().map(Platform::to_string).collect(),
    })
}

fn read_json<T: DeserializeOwned>(members: &Members, name: &str) -> Result<T, ImportError> {
    parse(name, &members.read(name, MAX_DESCRIPTION)?)
}

/// Parses a file of an archive.
pub(super) fn parse<T: DeserializeOwned>(name: &str, content: &[u8]) -> Result<T, ImportError> {
    serde_json::from_slice(content).map_err(|error| ImportError::Malformed {
        name: name.to_owned(),
        problem: format!("it is not what was expected: {error}"),
    })
}
