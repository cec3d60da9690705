//! A host to the addresses that may be connected to. One forbidden address among several spoils them all: a name that
//! points both outside and inside is a mistake or an attack, and trying the good half would only hide it.

use std::net::IpAddr;

use domain::attempt::{Failure, FailureKind};
use domain::network::NetworkPolicy;
use runtime::resolver::{ResolveError, Resolver};

/// A host that stands in the URL as an address.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    bare.parse().ok()
}

/// # Errors
/// When there is no address, or one of them is forbidden.
pub(super) async fn resolve(resolver: &Resolver, host: &str) -> Result<Vec<IpAddr>, Failure> {
    resolver.lookup(host).await.map_err(|error| match error {
        ResolveError::NotFound { .. } => dns(format!("the name {host} does not resolve")),
        ResolveError::Timeout { .. } => timed_out(host),
        ResolveError::Failed { .. } => {
            dns(format!("the name servers have no usable answer for {host}"))
        }
    })
}

pub(super) fn timed_out(host: &str) -> Failure {
    dns(format!(
        "the name servers did not answer for {host} in time"
    ))
}

fn dns(message: String) -> Failure {
    Failure {
        kind: FailureKind::Dns,
        message,
    }
}

/// # Errors
/// When one of them is forbidden. The message names no address: where a name points inside of our network is nothing
/// to tell outside of it.
pub(super) fn check(
    policy: &NetworkPolicy,
    host: &str,
    addresses: &[IpAddr],
) -> Result<(), Failure> {
    if addresses.iter().all(|address| policy.permits(*address)) {
        return Ok(());
    }
    Err(Failure {
        kind: FailureKind::ForbiddenAddress,
        message: format!("{host} points to a private, local or reserved address"),
    })
}
