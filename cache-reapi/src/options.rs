//! [`CacheOptions`]: how a cache is reached and what it may be used for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::CacheError;
use crate::address::CacheAddress;

/// How a cache is reached and what it may be used for.
#[derive(Clone)]
#[must_use]
pub struct CacheOptions {
    pub(crate) address: CacheAddress,
    pub(crate) is_read_only: bool,
    pub(crate) connect_within: Duration,
    pub(crate) answer_within: Duration,
    pub(crate) headers: MetadataMap,
    pub(crate) packs: Option<PathBuf>,
    authority_file: Option<PathBuf>,
    identity_files: Option<(PathBuf, PathBuf)>,
}

/// Shows no header, because headers hold secrets.
impl fmt::Debug for CacheOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheOptions").field("address", &self.address).finish_non_exhaustive()
    }
}

impl CacheOptions {
    /// Creates options for the server at `address`.
    pub fn new(address: CacheAddress) -> Self {
        Self {
            address,
            is_read_only: false,
            connect_within: Duration::from_secs(2),
            answer_within: Duration::from_secs(30),
            headers: MetadataMap::new(),
            packs: None,
            authority_file: None,
            identity_files: None,
        }
    }

    /// Sets whether results are only read, and none are sent. Default: `false`.
    pub fn read_only(mut self, is_read_only: bool) -> Self {
        self.is_read_only = is_read_only;
        self
    }

    /// Sets how long establishing a connection may take. Default: 2 seconds.
    pub fn connect_within(mut self, time: Duration) -> Self {
        self.connect_within = time;
        self
    }

    /// Sets how long the server may take for one answer. Default: 30 seconds.
    pub fn answer_within(mut self, time: Duration) -> Self {
        self.answer_within = time;
        self
    }

    /// Keeps packs that were fetched or sent as files in this directory, up to 1 GiB, so that they need
    /// not be fetched again.
    pub fn packs_in(mut self, directory: impl Into<PathBuf>) -> Self {
        self.packs = Some(directory.into());
        self
    }

    /// Adds a header to every request, for example `authorization` with `Bearer …`. Its value is never
    /// shown.
    ///
    /// # Errors
    /// [`CacheError::Credentials`] if the name or the value cannot be a header.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, CacheError> {
        let wrong = |problem: &str| CacheError::Credentials {
            what: format!("header {name:?}"),
            problem: problem.to_owned(),
        };
        let key = MetadataKey::<Ascii>::from_str(&name.to_ascii_lowercase())
            .map_err(|_| wrong("its name is malformed"))?;
        let mut value = MetadataValue::from_str(value)
            .map_err(|_| wrong("its value has characters that no header may have"))?;
        value.set_sensitive(true);
        self.headers.insert(key, value);
        Ok(self)
    }

    /// Trusts the certificates in the file (PEM) instead of those that the system trusts.
    pub fn trusting(mut self, file: impl Into<PathBuf>) -> Self {
        self.authority_file = Some(file.into());
        self
    }

    /// Shows the server the certificate in the first file (PEM), whose key is in the second.
    pub fn identity(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity_files = Some((certificate.into(), key.into()));
        self
    }

    /// Returns the settings of TLS, reading the files.
    pub(crate) fn tls(&self) -> Result<ClientTlsConfig, CacheError> {
        let mut tls = ClientTlsConfig::new();
        tls = match &self.authority_file {
            Some(file) => tls.ca_certificate(Certificate::from_pem(read(file)?)),
            None => tls.with_native_roots(),
        };
        if let Some((certificate, key)) = &self.identity_files {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(tls)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, CacheError> {
    std::fs::read(file).map_err(|error| CacheError::Credentials {
        what: format!("file {}", file.display()),
        problem: error.to_string(),
    })
}
