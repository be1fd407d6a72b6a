//! The files of an archive, by name, and the ways in which they are compressed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::error::ImportError;

/// The files of an archive or a directory.
pub(super) enum Members {
    Directory(PathBuf),
    Archive { file: File, places: HashMap<String, Place> },
}

/// Where a file is in an archive.
pub(super) enum Place {
    At {
        offset: u64,
        bytes: u64,
    },
    /// It is a link to another.
    Link(String),
}

/// How many links are followed from one file of an archive to the next.
const MAX_LINKS: usize = 8;

impl Members {
    /// Opens a directory, or an archive that may be compressed. `largest` is the maximum size of
    /// what a compressed one holds, in bytes.
    pub(super) fn open(path: &Path, largest: u64) -> Result<Self, ImportError> {
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let file = File::open(path).map_err(ImportError::reading)?;
        let is_seekable = file.metadata().is_ok_and(|metadata| metadata.is_file());
        if is_seekable && Compression::of(&start(&file)?) == Compression::None {
            return Self::index(file);
        }
        Self::copy(file, largest)
    }

    /// Copies an archive to a temporary file and opens it.
    pub(super) fn copy(source: impl Read, largest: u64) -> Result<Self, ImportError> {
        let mut copy = tempfile::tempfile().map_err(ImportError::temporary)?;
        let plain = decompressed(BufReader::with_capacity(1 << 17, source))
            .map_err(ImportError::reading)?;
        let copied = io::copy(&mut plain.take(largest.saturating_add(1)), &mut copy)
            .map_err(ImportError::reading)?;
        if copied > largest {
            let what = "the archive".to_owned();
            return Err(ImportError::TooLarge { what, bound: format!("{largest} bytes") });
        }
        Self::index(copy)
    }

    fn index(mut file: File) -> Result<Self, ImportError> {
        file.seek(SeekFrom::Start(0)).map_err(ImportError::reading)?;
        let mut places = HashMap::new();
        let mut archive = tar::Archive::new(BufReader::new(file));
        for entry in archive.entries_with_seek().map_err(ImportError::reading)? {
            let entry = match entry {
                // Whatever the file is, it is no archive.
                Err(_) if places.is_empty() => return Err(ImportError::NotAnImage),
                entry => entry.map_err(ImportError::reading)?,
            };
            let Some(name) = normal(&entry.path().map_err(ImportError::reading)?) else { continue };
            let place = match entry.header().entry_type() {
                kind if kind.is_symlink() || kind.is_hard_link() => {
                    let target = entry.link_name().map_err(ImportError::reading)?;
                    let target = target.as_deref().unwrap_or(Path::new(""));
                    // A symbolic link is relative to its directory, a hard link to the root.
                    let around = Path::new(&name).parent().filter(|_| kind.is_symlink());
                    match normal(&around.unwrap_or(Path::new("")).join(target)) {
                        Some(target) => Place::Link(target),
                        None => continue,
                    }
                }
                kind if kind.is_dir() => continue,
                _ => Place::At { offset: entry.raw_file_position(), bytes: entry.size() },
            };
            places.insert(name, place);
        }
        Ok(Self::Archive { file: archive.into_inner().into_inner(), places })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Directory(root) => root.join(name).is_file(),
            Self::Archive { places, .. } => places.contains_key(name),
        }
    }

    /// Returns a reader of the file called `name`, and its size in bytes.
    pub(super) fn reader(&self, name: &str) -> Result<(Box<dyn Read + '_>, u64), ImportError> {
        let missing = || ImportError::Missing { name: name.to_owned() };
        let mut name = normal(Path::new(name)).ok_or_else(missing)?;
        match self {
            Self::Directory(root) => {
                let path = root.join(name);
                // Neither what is outside of the layout, nor what blocks when it is opened.
                if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
                    return Err(missing());
                }
                let file = File::open(path).map_err(ImportError::reading)?;
                let bytes = file.metadata().map_err(ImportError::reading)?.len();
                Ok((Box::new(file), bytes))
            }
            Self::Archive { file, places } => {
                for _ in 0..MAX_LINKS {
                    match places.get(&name).ok_or_else(missing)? {
                        Place::Link(target) => name.clone_from(target),
                        Place::At { offset, bytes } => {
                            let section = Section { file, offset: *offset, left: *bytes };
                            return Ok((Box::new(section), *bytes));
                        }
                    }
                }
                Err(missing())
            }
        }
    }

    /// Reads the file called `name`, which has at most `most` bytes.
    pub(super) fn read(&self, name: &str, most: u64) -> Result<Vec<u8>, ImportError> {
        let (reader, bytes) = self.reader(name)?;
        if bytes > most {
            let what = format!("{name} in the archive");
            return Err(ImportError::TooLarge { what, bound: format!("{most} bytes") });
        }
        let mut content = Vec::new();
        reader.take(most).read_to_end(&mut content).map_err(ImportError::reading)?;
        Ok(content)
    }
}

/// A part of a file. Several parts of one file are read independently of each other.
struct Section<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        if read == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off"));
        }
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// Returns a path without `.` and `..`, or `None` if it leads out of the archive, is empty, or is not
/// UTF-8.
fn normal(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir => drop(parts.pop()?),
            Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn start(file: &File) -> Result<[u8; 4], ImportError> {
    let mut start = [0; 4];
    let _ = file.read_at(&mut start, 0).map_err(ImportError::reading)?;
    Ok(start)
}

#[derive(PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Recognizes a compression by the first bytes. What an archive says of it is not always right.
    fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or one that is to be skipped, as at the beginning of some.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Returns a reader of what `source` holds, which may be compressed.
pub(super) fn decompressed<'a>(mut source: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match Compression::of(source.fill_buf()?) {
        Compression::None => Box::new(source),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Compression::Zstd => {
            Box::new(Zstd { source, decoder: FrameDecoder::new(), started: false })
        }
    })
}

/// Reads the frames of a file in the format of Zstandard (RFC 8878), one after the other.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    started: bool,
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.started || (self.decoder.is_finished() && self.decoder.can_collect() == 0) {
                if self.source.fill_buf()?.is_empty() {
                    return Ok(0);
                }
                self.started = match self.decoder.reset(&mut self.source) {
                    Ok(()) => true,
                    Err(FrameDecoderError::ReadFrameHeaderError(
                        ReadFrameHeaderError::SkipFrame { length, .. },
                    )) => {
                        let length = u64::from(length);
                        let skipped =
                            io::copy(&mut (&mut self.source).take(length), &mut io::sink())?;
                        if skipped < length {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                        false
                    }
                    Err(error) => return Err(io::Error::other(error)),
                };
                continue;
            }
            if self.decoder.can_collect() == 0 {
                let strategy = BlockDecodingStrategy::UptoBytes(buffer.len().max(1));
                self.decoder.decode_blocks(&mut self.source, strategy).map_err(io::Error::other)?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
        }
    }
}
