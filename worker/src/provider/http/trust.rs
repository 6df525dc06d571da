//! Whose certificates the service may show: public authorities, and those of a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};

/// Authorities that cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file that cannot be read, or holds something else.
    #[error("http_ca_file {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file without a certificate.
    #[error("http_ca_file {0}: there is no certificate in it (wanted: PEM, BEGIN CERTIFICATE)")]
    Empty(PathBuf),
    /// A certificate that cannot be an authority's, or TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// TLS that trusts the public authorities, and those in `file`.
pub fn trust(file: Option<&Path>) -> Result<ClientConfig, TrustError> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = file {
        let failed = |source| TrustError::File { path: path.to_owned(), source };
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
            roots.add(certificate.map_err(failed)?)?;
        }
        if roots.len() == before {
            return Err(TrustError::Empty(path.to_owned()));
        }
    }
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
