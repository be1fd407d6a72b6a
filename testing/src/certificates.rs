//! Certificates for tests of TLS.

use std::fs;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;

/// An authority, with a certificate for a server on this machine and one for its clients, in files that
/// are removed when this is dropped.
#[derive(Debug)]
pub struct Certificates(TempDir);

impl Certificates {
    /// Creates them.
    pub fn new() -> Self {
        let place = TempDir::new().unwrap();
        let mut params = named("an authority of a test", []);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(place.path().join("authority.pem"), issuer.pem()).unwrap();
        let server = named("a server", ["localhost".to_owned(), "127.0.0.1".to_owned()]);
        let client = named("a client", []);
        for (name, mut params, purpose) in [
            ("server", server, ExtendedKeyUsagePurpose::ServerAuth),
            ("client", client, ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            params.extended_key_usages = vec![purpose];
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.use_authority_key_identifier_extension = true;
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            fs::write(place.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            fs::write(place.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self(place)
    }

    /// Returns the path of one of `authority.pem`, `server.pem`, `server.key`, `client.pem` and
    /// `client.key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

fn named(name: &str, hosts: impl IntoIterator<Item = String>) -> CertificateParams {
    let mut params = CertificateParams::new(hosts.into_iter().collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
