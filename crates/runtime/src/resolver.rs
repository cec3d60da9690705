//! Host names to addresses, for the check of a webhook's URL when it is written and for each connection to it. Asks the
//! configured name servers, or the system's together with `/etc/hosts`; never getaddrinfo, whose blocking calls would
//! let one slow name server occupy every thread. What may be connected to is the caller's decision.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::read_system_conf;

/// An answer is believed for no longer than this, so that a moved receiver is found again soon.
const CACHE_TTL_MAX: Duration = Duration::from_secs(60);

/// A name that does not exist may be made at any moment; asking again is cheap.
const NEGATIVE_CACHE_TTL_MAX: Duration = Duration::from_secs(5);

/// Answers kept in memory; the oldest go first.
const CACHE_SIZE: u64 = 8_192;

/// How long a lookup that has found addresses of one family waits for those of the other.
const SECOND_FAMILY_GRACE: Duration = Duration::from_millis(200);

/// A question goes out at most twice within the time-out.
const RETRIES: usize = 1;

/// Cheap to clone; clones share the cache.
#[derive(Clone)]
pub struct Resolver {
    inner: TokioResolver,
    timeout: Duration,
}

/// Why a name has no address now. Each tells a partner something else to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveError {
    /// The name servers know no such name, or none of its records is an address; or it is no host name at all.
    #[error("the host name {host} has no address")]
    NotFound { host: String },
    #[error("the name servers did not answer for {host} within {timeout_ms} ms")]
    Timeout { host: String, timeout_ms: u128 },
    #[error("the name servers failed for {host}")]
    Failed {
        host: String,
        #[source]
        source: NetError,
    },
}

/// The system's or the given configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the resolver cannot be built")]
pub struct ResolverBuildError(#[source] NetError);

impl Resolver {
    /// `name_servers` are asked over UDP, and over TCP where an answer does not fit; an empty list means those of
    /// `/etc/resolv.conf`, with `/etc/hosts` before them. `timeout` bounds one whole [`Self::lookup`].
    pub fn new(name_servers: &[SocketAddr], timeout: Duration) -> Result<Self, ResolverBuildError> {
        let (config, mut options) = if name_servers.is_empty() {
            system()?
        } else {
            let servers = name_servers.iter().copied().map(server).collect();
            let mut options = ResolverOpts::default();
            options.use_hosts_file = ResolveHosts::Never;
            (ResolverConfig::from_name_servers(servers), options)
        };
        options.timeout = timeout / 2;
        options.attempts = RETRIES;
        options.cache_size = CACHE_SIZE;
        options.positive_max_ttl = Some(CACHE_TTL_MAX);
        options.negative_max_ttl = Some(NEGATIVE_CACHE_TTL_MAX);
        options.positive_min_ttl = None;
        options.negative_min_ttl = None;
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Ok(Self {
            inner: builder.build().map_err(ResolverBuildError)?,
            timeout,
        })
    }

    /// All addresses of `host`, IPv4 first, each once; never an empty list. A literal address is its own answer. The
    /// name is taken as fully qualified: no search domain is tried.
    pub async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Ok(literal) = host.parse() {
            return Ok(vec![literal]);
        }
        let mut name = Name::from_utf8(host).map_err(|_| not_found(host))?;
        name.set_fqdn(true);
        let mut v4 = pin!(self.records(host, name.clone(), RecordType::A));
        let mut v6 = pin!(self.records(host, name, RecordType::AAAA));
        tokio::select! {
            first = &mut v4 => {
                let second = self.second(host, &first, v6).await;
                either(first, second)
            }
            first = &mut v6 => {
                let second = self.second(host, &first, v4).await;
                either(second, first)
            }
        }
    }

    /// Some name servers never answer for the family that they do not have: with addresses at hand, the other family
    /// gets no more than the grace.
    async fn second(
        &self,
        host: &str,
        first: &Result<Vec<IpAddr>, ResolveError>,
        second: impl Future<Output = Result<Vec<IpAddr>, ResolveError>>,
    ) -> Result<Vec<IpAddr>, ResolveError> {
        if first.is_err() {
            return second.await;
        }
        tokio::time::timeout(SECOND_FAMILY_GRACE, second)
            .await
            .unwrap_or_else(|_elapsed| Err(self.timed_out(host)))
    }

    async fn records(
        &self,
        host: &str,
        name: Name,
        kind: RecordType,
    ) -> Result<Vec<IpAddr>, ResolveError> {
        match tokio::time::timeout(self.timeout, self.inner.lookup(name, kind)).await {
            Ok(Ok(lookup)) => {
                let records = lookup.answers().iter();
                let found: Vec<_> = records.filter_map(|r| r.data.ip_addr()).collect();
                // An alias that leads to no address is an answer with records all the same.
                if found.is_empty() {
                    return Err(not_found(host));
                }
                Ok(found)
            }
            Ok(Err(error)) => Err(self.classify(host, error)),
            Err(_elapsed) => Err(self.timed_out(host)),
        }
    }

    fn classify(&self, host: &str, error: NetError) -> ResolveError {
        match error {
            NetError::Dns(DnsError::NoRecordsFound(NoRecords {
                response_code: ResponseCode::NXDomain | ResponseCode::NoError,
                ..
            })) => not_found(host),
            NetError::Timeout => self.timed_out(host),
            NetError::Io(error) if error.kind() == io::ErrorKind::TimedOut => self.timed_out(host),
            source => ResolveError::Failed {
                host: host.to_owned(),
                source,
            },
        }
    }

    fn timed_out(&self, host: &str) -> ResolveError {
        ResolveError::Timeout {
            host: host.to_owned(),
            timeout_ms: self.timeout.as_millis(),
        }
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

fn not_found(host: &str) -> ResolveError {
    ResolveError::NotFound {
        host: host.to_owned(),
    }
}

/// One family is enough. Where both fail, "does not exist" is only believed if both say so: a name whose second half
/// timed out may well have an address.
fn either(
    v4: Result<Vec<IpAddr>, ResolveError>,
    v6: Result<Vec<IpAddr>, ResolveError>,
) -> Result<Vec<IpAddr>, ResolveError> {
    match (v4, v6) {
        (Ok(mut all), Ok(v6)) => {
            all.extend(v6);
            let mut seen = HashSet::new();
            all.retain(|address| seen.insert(*address));
            Ok(all)
        }
        (Ok(some), Err(_)) | (Err(_), Ok(some)) => Ok(some),
        (Err(ResolveError::NotFound { .. }), Err(error)) | (Err(error), Err(_)) => Err(error),
    }
}

fn server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
        .into_iter()
        .map(|mut connection| {
            connection.port = address.port();
            connection
        })
        .collect();
    NameServerConfig::new(address.ip(), true, connections)
}

/// As resolv.conf(5) has it, a machine without the file asks its own name server.
fn system() -> Result<(ResolverConfig, ResolverOpts), ResolverBuildError> {
    match read_system_conf() {
        Ok((config, options)) => {
            let (_domain, _search, servers) = config.into_parts();
            Ok((ResolverConfig::from_name_servers(servers), options))
        }
        Err(NetError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
            Ok((
                ResolverConfig::from_name_servers(vec![server(local)]),
                ResolverOpts::default(),
            ))
        }
        Err(error) => Err(ResolverBuildError(error)),
    }
}

#[cfg(test)]
mod tests;
