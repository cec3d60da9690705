//! A receiver that does to each connection whatever a test writes down, byte by byte: for those that no library would
//! help to misbehave.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::wait::DEADLINE;

/// Stops when dropped, and its connections with it.
pub struct RawReceiver {
    address: SocketAddr,
    seen: Arc<Seen>,
    _acceptor: JoinSet<()>,
}

/// What has come so far.
#[derive(Default)]
struct Seen {
    connections: watch::Sender<usize>,
    /// Heads of requests, as [`Peer::read_request`] read them.
    heads: watch::Sender<Vec<String>>,
}

/// The receiver's side of one connection. Its functions return nothing when the sender is gone, so that a script ends
/// there with `?`.
pub struct Peer {
    stream: Box<dyn Wire>,
    seen: Arc<Seen>,
}

/// A connection, plain or not.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {
    fn tcp(&self) -> &TcpStream;

    /// Nothing where TLS is spoken already.
    fn into_tcp(self: Box<Self>) -> Option<TcpStream>;
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }

    fn into_tcp(self: Box<Self>) -> Option<TcpStream> {
        Some(*self)
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }

    fn into_tcp(self: Box<Self>) -> Option<TcpStream> {
        None
    }
}

impl RawReceiver {
    /// Runs the script for each connection, with its number from 0, and closes the connection when the script ends.
    pub async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(usize, Peer) -> Fut + Send + 'static,
        Fut: Future<Output = Option<()>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let mut acceptor = JoinSet::new();
        acceptor.spawn(accept(listener, seen.clone(), script));
        Self {
            address,
            seen,
            _acceptor: acceptor,
        }
    }

    /// Answers the only request of each connection with these bytes, and closes it.
    pub async fn closing_after(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |_, mut peer| {
            let answer = answer.clone();
            async move {
                peer.read_request().await?;
                peer.write(&answer).await
            }
        })
        .await
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT` and the path, which begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// `https://HOST:PORT/`
    #[must_use]
    pub fn https_url(&self, host: &str) -> String {
        format!("https://{host}:{}/", self.address.port())
    }

    /// Connections so far, those that have ended among them.
    #[must_use]
    pub fn connections(&self) -> usize {
        *self.seen.connections.borrow()
    }

    /// Heads of the requests that were read so far.
    #[must_use]
    pub fn heads(&self) -> Vec<String> {
        self.seen.heads.borrow().clone()
    }

    /// Waits until so many requests were read.
    ///
    /// # Panics
    /// When they were not within [`DEADLINE`].
    pub async fn wait_for(&self, count: usize) {
        let mut heads = self.seen.heads.subscribe();
        let come = heads.wait_for(|heads| heads.len() >= count);
        let come = tokio::time::timeout(DEADLINE, come).await;
        assert!(come.is_ok(), "{count} requests: {:#?}", self.heads());
    }
}

async fn accept<F, Fut>(listener: TcpListener, seen: Arc<Seen>, script: F)
where
    F: Fn(usize, Peer) -> Fut + Send + 'static,
    Fut: Future<Output = Option<()>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    for number in 0.. {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        seen.connections.send_modify(|count| *count += 1);
        let peer = Peer {
            stream: Box::new(stream),
            seen: seen.clone(),
        };
        connections.spawn(script(number, peer));
        while connections.try_join_next().is_some() {}
    }
}

impl Peer {
    /// Goes on over TLS.
    pub async fn accept_tls(self, acceptor: &TlsAcceptor) -> Option<Self> {
        let stream = acceptor.accept(self.stream.into_tcp()?).await.ok()?;
        Some(Self {
            stream: Box::new(stream),
            seen: self.seen,
        })
    }

    /// One request, head and body.
    pub async fn read_request(&mut self) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse().ok())?
        });
        let mut body = vec![0; length.unwrap_or(0)];
        self.stream.read_exact(&mut body).await.ok()?;
        self.seen.heads.send_modify(|heads| heads.push(head));
        Some(())
    }

    /// Whatever comes first, up to a buffer full of it.
    pub async fn read_some(&mut self) -> Option<()> {
        let read = self.stream.read(&mut [0; 16 * 1024]).await.ok()?;
        (read > 0).then_some(())
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).await.ok()?;
        self.stream.flush().await.ok()
    }

    /// Reads until the sender closes.
    pub async fn until_closed(&mut self) -> Option<()> {
        while self.read_some().await.is_some() {}
        None
    }

    /// The next close is a reset instead of an orderly end.
    pub fn reset_on_close(&self) -> io::Result<()> {
        self.stream.tcp().set_zero_linger()
    }

    /// For a library that speaks what is not written by hand, such as HTTP/2.
    #[must_use]
    pub fn into_stream(self) -> impl AsyncRead + AsyncWrite + Unpin + Send + 'static {
        self.stream
    }
}
