//! [`CacheAddress`]: where a server is.

use std::fmt;
use std::str::FromStr;

use http::uri::{Scheme, Uri};

use crate::CacheError;

/// The address of a server: `grpc://HOST:PORT[/INSTANCE]`, or `grpcs://…` for one that is reached
/// through TLS, on port 443 unless another one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheAddress {
    /// Whether the server is reached through TLS.
    pub(crate) is_secure: bool,
    /// `HOST:PORT`.
    pub(crate) authority: String,
    /// The name of the server's instance, which may be empty and may contain slashes.
    pub(crate) instance: String,
}

impl CacheAddress {
    /// Returns the address as a library of HTTP expects it.
    pub(crate) fn uri(&self) -> String {
        let scheme = if self.is_secure { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }
}

impl fmt::Display for CacheAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_secure, authority, instance } = self;
        let scheme = if *is_secure { "grpcs" } else { "grpc" };
        let separator = if instance.is_empty() { "" } else { "/" };
        write!(f, "{scheme}://{authority}{separator}{instance}")
    }
}

impl FromStr for CacheAddress {
    type Err = CacheError;

    fn from_str(text: &str) -> Result<Self, CacheError> {
        let wrong = |problem: &str| CacheError::Address {
            // Credentials in an address do not belong into messages.
            address: text
                .rsplit('@')
                .next()
                .and_then(|text| text.split('?').next())
                .unwrap_or_default()
                .to_owned(),
            problem: problem.to_owned(),
        };
        let uri: Uri = text.parse().map_err(|_| wrong("it is no URI"))?;
        let is_secure = match uri.scheme().map(Scheme::as_str) {
            Some("grpc") => false,
            Some("grpcs") => true,
            _ => return Err(wrong("it does not begin with grpc:// or grpcs://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it contains credentials, which belong into a header"));
        }
        if uri.query().is_some() {
            return Err(wrong("it has a query"));
        }
        let authority = match (authority.port_u16(), is_secure) {
            (Some(_), _) => authority.to_string(),
            (None, true) => format!("{authority}:443"),
            (None, false) => return Err(wrong("it names no port")),
        };
        Ok(Self { is_secure, authority, instance: uri.path().trim_matches('/').to_owned() })
    }
}
