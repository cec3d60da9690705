//! A receiver that does to each connection whatever a test wants.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    requests: mpsc::UnboundedReceiver<Vec<u8>>,
    _acceptor: JoinSet<()>,
}

/// A connection to the receiver. What [`read_request`] reads is told to the test too.
pub(super) struct Peer<S> {
    stream: S,
    requests: mpsc::UnboundedSender<Vec<u8>>,
}

impl Receiver {
    /// Runs `handle` for each connection, with its number from 0. What it returns means nothing; an `Option` lets it
    /// end early with `?`.
    pub(super) async fn start<F, Fut>(handle: F) -> Self
    where
        F: Fn(usize, Peer<TcpStream>) -> Fut + Send + 'static,
        Fut: Future<Output = Option<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        let mut acceptor = JoinSet::new();
        acceptor.spawn(async move {
            let mut connections = JoinSet::new();
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let peer = Peer {
                    stream,
                    requests: sender.clone(),
                };
                connections.spawn(handle(number, peer));
            }
        });
        Self {
            address,
            requests,
            _acceptor: acceptor,
        }
    }

    /// Answers every request with these bytes, and keeps the connection open.
    pub(super) async fn answering(answer: &'static [u8]) -> Self {
        Self::start(move |_, mut peer| async move {
            loop {
                read_request(&mut peer).await?;
                peer.answer(answer).await;
            }
        })
        .await
    }

    /// Answers one request with these bytes, and closes the connection.
    pub(super) async fn closing_after(answer: &'static [u8]) -> Self {
        Self::start(move |_, mut peer| async move {
            read_request(&mut peer).await?;
            peer.answer(answer).await;
            Some(())
        })
        .await
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many requests have been read since the last look.
    pub(super) fn requests_read(&mut self) -> usize {
        std::iter::from_fn(|| self.requests.try_recv().ok()).count()
    }

    pub(super) async fn next_request(&mut self) -> Vec<u8> {
        self.requests.recv().await.unwrap()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// Puts a layer, such as TLS, over the connection.
    pub(super) async fn layered<T, Fut>(self, layer: impl FnOnce(S) -> Fut) -> Option<Peer<T>>
    where
        Fut: Future<Output = std::io::Result<T>>,
    {
        Some(Peer {
            stream: layer(self.stream).await.ok()?,
            requests: self.requests,
        })
    }

    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    /// A sender that has had enough closes the connection: no fault of the receiver's.
    pub(super) async fn answer(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).await.ok()?;
        self.stream.flush().await.ok()
    }
}

/// One request, head and body, or nothing when the connection ends.
pub(super) async fn read_request<S: AsyncRead + Unpin>(peer: &mut Peer<S>) -> Option<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(peer.stream.read_u8().await.ok()?);
    }
    let head = std::str::from_utf8(&request).unwrap();
    let mut body = vec![0; header(head, "Content-Length").parse().unwrap()];
    peer.stream.read_exact(&mut body).await.ok()?;
    request.extend(body);
    peer.requests.send(request).ok()
}

pub(super) fn header<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("no {name} in {head}"))
}
