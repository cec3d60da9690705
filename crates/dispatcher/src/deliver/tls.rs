//! TLS towards receivers: whom we trust, and what a failed handshake means.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use domain::attempt::{Failure, FailureKind};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::ConfigError;

pub(super) const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";
/// Receivers whose sessions are remembered, so that a new connection to them costs half a handshake.
const SESSIONS_MAX: usize = 1024;

/// Trusts the public certificate authorities, and those in the file.
///
/// # Errors
/// When the file can't be read, or holds nothing to trust.
pub(super) fn connector(extra_ca_file: Option<&Path>) -> Result<TlsConnector, ConfigError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(path) = extra_ca_file {
        trust(&mut roots, path)?;
    }
    // Named here, so that it does not matter whether `main` has installed one for the process.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ConfigError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    Ok(TlsConnector::from(Arc::new(config)))
}

fn trust(roots: &mut RootCertStore, path: &Path) -> Result<(), ConfigError> {
    let unreadable = |source| ConfigError::ExtraCaFile {
        path: path.to_owned(),
        source,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable)?;
    let (trusted, _unusable) = roots.add_parsable_certificates(certificates);
    if trusted == 0 {
        return Err(ConfigError::NoExtraCa {
            path: path.to_owned(),
        });
    }
    Ok(())
}

pub(super) fn handshake_failure(error: &io::Error, host: &str, remote: SocketAddr) -> Failure {
    match rustls_error(error) {
        Some(error) => failure(error, Some(host)),
        None => Failure {
            kind: FailureKind::Tls,
            message: format!("{remote} closed the connection during the TLS handshake"),
        },
    }
}

/// The TLS error inside an error of a TLS stream, if it is one. `source` would skip it.
pub(super) fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// `host` is left out where a session breaks after its handshake.
pub(super) fn failure(error: &rustls::Error, host: Option<&str>) -> Failure {
    use rustls::Error as E;
    let message = match error {
        E::InvalidCertificate(error) => return untrusted(error, host),
        E::AlertReceived(alert) => {
            format!("the receiver broke off the TLS session ({alert:?})")
        }
        E::PeerIncompatible(_) | E::NoApplicationProtocol => {
            "the receiver supports no TLS version and cipher that we do (TLS 1.2 or 1.3 is needed)"
                .to_owned()
        }
        E::InvalidMessage(_) => "the receiver does not speak TLS on this port".to_owned(),
        E::NoCertificatesPresented => "the receiver has shown no TLS certificate".to_owned(),
        _ => "the receiver broke the rules of TLS".to_owned(),
    };
    Failure {
        kind: FailureKind::Tls,
        message,
    }
}

fn untrusted(error: &CertificateError, host: Option<&str>) -> Failure {
    use CertificateError as C;
    let message = match error {
        C::Expired | C::ExpiredContext { .. } => "the TLS certificate has expired".to_owned(),
        C::NotValidYet | C::NotValidYetContext { .. } => {
            "the TLS certificate is not valid yet".to_owned()
        }
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            let host = host.unwrap_or("this one");
            format!("the TLS certificate is for another host name, not for {host}")
        }
        C::UnknownIssuer => "the TLS certificate's issuer is not trusted: it is self-signed, from \
                             a private authority, or an intermediate certificate is missing"
            .to_owned(),
        C::Revoked => "the TLS certificate was revoked".to_owned(),
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => {
            "the TLS certificate is not one for servers".to_owned()
        }
        C::BadSignature => "the TLS certificate's signature is wrong".to_owned(),
        C::BadEncoding => "the TLS certificate can't be read".to_owned(),
        _ => "the TLS certificate is not accepted".to_owned(),
    };
    Failure {
        kind: FailureKind::Tls,
        message,
    }
}
