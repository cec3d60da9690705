//! A new connection for hyper's pool: name, check, TCP, TLS, each step timed, all of them within one limit.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use domain::attempt::{Failure, FailureKind};
use domain::network::NetworkPolicy;
use http::Uri;
use hyper_util::rt::TokioIo;
use runtime::resolver::Resolver;
use rustls::pki_types::ServerName;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::stream::{ConnectionInfo, OpenConnections, Stream};
use super::{failure, race, resolve, tls};

/// How long each step of a connect took, the failed one included. A step that was not needed is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StepTimes {
    pub(super) dns: Option<Duration>,
    pub(super) connect: Option<Duration>,
    pub(super) tls: Option<Duration>,
}

/// No connection, in the partner's words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", failure.message)]
pub(super) struct ConnectError {
    pub(super) failure: Failure,
    pub(super) steps: StepTimes,
}

/// Cheap to clone, as hyper-util's client does for each request.
#[derive(Clone)]
pub(super) struct Connector(Arc<Inner>);

struct Inner {
    policy: NetworkPolicy,
    resolver: Resolver,
    tls: TlsConnector,
    timeout: Duration,
    open: Arc<OpenConnections>,
}

impl Connector {
    pub(super) fn new(
        policy: NetworkPolicy,
        resolver: Resolver,
        tls: TlsConnector,
        timeout: Duration,
        connections_kept_max: usize,
    ) -> Self {
        Self(Arc::new(Inner {
            policy,
            resolver,
            tls,
            timeout,
            open: OpenConnections::new(connections_kept_max),
        }))
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("policy", &self.0.policy)
            .field("timeout", &self.0.timeout)
            .finish_non_exhaustive()
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let mut steps = StepTimes::default();
            match inner.connect(&uri, &mut steps).await {
                Ok(stream) => Ok(TokioIo::new(stream)),
                Err(failure) => Err(ConnectError { failure, steps }),
            }
        })
    }
}

impl Inner {
    async fn connect(&self, uri: &Uri, steps: &mut StepTimes) -> Result<Stream, Failure> {
        let deadline = Instant::now() + self.timeout;
        let host = uri.host().unwrap_or_default();
        let (port, secure) = self.permitted_port(uri)?;
        let addresses = self.addresses(host, deadline, steps).await?;
        resolve::check(&self.policy, host, &addresses)?;
        let begun = Instant::now();
        let raced = timeout_at(deadline, race::connect(&addresses, port)).await;
        steps.connect = Some(begun.elapsed());
        let (tcp, remote) = match raced {
            Ok(Ok(connected)) => connected,
            Ok(Err((error, remote))) => return Err(failure::of_tcp(&error, remote)),
            Err(_elapsed) => return Err(self.no_connection()),
        };
        if !secure {
            let info = ConnectionInfo::new(*steps, false, &self.open);
            return Ok(Stream::plain(tcp, info));
        }
        let name = server_name(host)?;
        let begun = Instant::now();
        let shaken = timeout_at(deadline, self.tls.connect(name, tcp)).await;
        steps.tls = Some(begun.elapsed());
        match shaken {
            Ok(Ok(stream)) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(tls::ALPN_HTTP2);
                let info = ConnectionInfo::new(*steps, http2, &self.open);
                Ok(Stream::tls(stream, info))
            }
            Ok(Err(error)) => Err(tls::handshake_failure(&error, host, remote)),
            Err(_elapsed) => Err(Failure {
                kind: FailureKind::Tls,
                message: format!(
                    "{remote} did not finish the TLS handshake; no connection within {}",
                    failure::seconds(self.timeout)
                ),
            }),
        }
    }

    /// A webhook's URL was checked when it was written, but maybe under another configuration.
    fn permitted_port(&self, uri: &Uri) -> Result<(u16, bool), Failure> {
        let secure = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let forbidden = |message: String| Failure {
            kind: FailureKind::ForbiddenAddress,
            message,
        };
        if !secure && !self.policy.allow_http {
            return Err(forbidden("plain http is not permitted".to_owned()));
        }
        if !self.policy.ports.contains(port) {
            return Err(forbidden(format!("port {port} is not permitted")));
        }
        Ok((port, secure))
    }

    async fn addresses(
        &self,
        host: &str,
        deadline: Instant,
        steps: &mut StepTimes,
    ) -> Result<Vec<IpAddr>, Failure> {
        if let Some(address) = resolve::literal(host) {
            return Ok(vec![address]);
        }
        let begun = Instant::now();
        let resolved = timeout_at(deadline, resolve::resolve(&self.resolver, host)).await;
        steps.dns = Some(begun.elapsed());
        resolved.unwrap_or_else(|_elapsed| Err(resolve::timed_out(host)))
    }

    fn no_connection(&self) -> Failure {
        Failure {
            kind: FailureKind::Connect,
            message: format!("no connection within {}", failure::seconds(self.timeout)),
        }
    }
}

/// The name that the receiver's certificate has to carry, and that it is told in the handshake.
fn server_name(host: &str) -> Result<ServerName<'static>, Failure> {
    if let Some(address) = resolve::literal(host) {
        return Ok(ServerName::from(address));
    }
    // A name may be written with the root's dot; certificates never are.
    let name = host.strip_suffix('.').unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(|_| Failure {
        kind: FailureKind::Tls,
        message: format!("{host} is no name that a TLS certificate can carry"),
    })
}
