//! A connection to PostgreSQL that breaks at the worst moment: the COMMIT was carried out, and its answer is lost.
//!
//! Bytes go through unchanged, so a process is given its URL instead of the server's.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::wait;

/// How the server names a transaction's end in its answer, however the statement was sent.
const COMMIT: &[u8] = b"COMMIT\0";
const BUFFER_BYTES: usize = 64 * 1024;

pub struct PostgresProxy {
    url: String,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    upstream: String,
    phase: watch::Sender<Phase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The answer to the next COMMIT is kept.
    Armed,
    /// The server has answered it, and the client does not know.
    Kept,
    /// The connection of that COMMIT is closed.
    Broken,
}

impl PostgresProxy {
    /// Before the server of a database's URL.
    ///
    /// # Panics
    /// When the URL has no server, or no port is free.
    pub async fn start(database_url: &str) -> Self {
        let (scheme, rest) = database_url.split_once("://").expect("a URL");
        let (authority, name) = rest.split_once('/').expect("a URL with a database");
        let (user, upstream) = authority.rsplit_once('@').expect("a URL with a user");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            upstream: upstream.to_owned(),
            phase: watch::Sender::new(Phase::Open),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, state.clone()));
        Self {
            url: format!("{scheme}://{user}@{address}/{name}"),
            state,
            _tasks: tasks,
        }
    }

    /// The database's URL by way of the proxy.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Lets the next COMMIT through, and keeps its answer.
    pub fn keep_next_commit(&self) {
        self.state.phase.send_replace(Phase::Armed);
    }

    /// Waits until a COMMIT was carried out whose client waits for the answer in vain.
    ///
    /// # Panics
    /// When none is.
    pub async fn until_kept(&self) {
        let mut phase = self.state.phase.subscribe();
        let kept = phase.wait_for(|phase| *phase == Phase::Kept);
        let kept = tokio::time::timeout(wait::DEADLINE, kept).await;
        assert!(kept.is_ok(), "no COMMIT within {:?}", wait::DEADLINE);
    }

    /// Closes the connection whose answer was kept.
    pub fn break_connection(&self) {
        self.state.phase.send_replace(Phase::Broken);
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(carry(client, state.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// One connection, until either side closes it or it is broken.
async fn carry(client: TcpStream, state: Arc<State>) {
    let Ok(server) = TcpStream::connect(&state.upstream).await else {
        return;
    };
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    tokio::select! {
        _ended = tokio::io::copy(&mut from_client, &mut to_server) => {}
        () = carry_answers(from_server, to_client, &state) => {}
    }
}

async fn carry_answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
    let mut seen = Seen::default();
    while let Some(bytes) = read(&mut from).await {
        if seen.commit_in(&bytes) && state.is_to_be_kept() {
            let mut phase = state.phase.subscribe();
            let _proxy_gone = phase.wait_for(|phase| *phase == Phase::Broken).await;
            return;
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

impl State {
    /// Whether an answer is the first one since the proxy was told to keep one.
    fn is_to_be_kept(&self) -> bool {
        self.phase.send_if_modified(|phase| {
            let is_armed = *phase == Phase::Armed;
            if is_armed {
                *phase = Phase::Kept;
            }
            is_armed
        })
    }
}

async fn read(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut bytes = vec![0; BUFFER_BYTES];
    let length = from.read(&mut bytes).await.ok()?;
    bytes.truncate(length);
    (length > 0).then_some(bytes)
}

/// The end of what went by, so that a word is found that two reads share.
#[derive(Default)]
struct Seen(Vec<u8>);

impl Seen {
    fn commit_in(&mut self, bytes: &[u8]) -> bool {
        self.0.extend_from_slice(bytes);
        let found = self.0.windows(COMMIT.len()).any(|window| window == COMMIT);
        let kept = if found { 0 } else { COMMIT.len() - 1 };
        self.0.drain(..self.0.len().saturating_sub(kept));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_found_once_wherever_the_bytes_are_cut() {
        let bytes = b"C\0\0\0\x0bCOMMIT\0Z";
        for cut in 0..bytes.len() {
            let mut seen = Seen::default();
            let (one, other) = bytes.split_at(cut);
            let found = [one, other].map(|part| seen.commit_in(part));
            assert_eq!(found.iter().filter(|found| **found).count(), 1, "{cut}");
        }
    }
}
