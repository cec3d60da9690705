//! The bytes between lapin and the broker: plain TCP or TLS, scrubbed on the way in, and with a way to cut the line.
//!
//! A publisher can hand the broker a message whose routing key, content type or header name is no UTF-8, or whose
//! headers are nested ten thousand levels deep; the broker passes all of it on. lapin gives the whole connection up
//! over the first, and runs out of stack over the second, and meets the same message again on the next connection,
//! so that one bad message would stop every queue. [`scrub`] makes such a message readable, and it is then rejected
//! as any other.

mod scrub;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::stream::Stream;
use lapin::tcp::{AMQPUriTcpExt as _, AsyncTcpStream, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use scrub::Scrubber;

/// Bytes that are read at a time.
const READ_BYTES: usize = 64 * 1024;

/// Connects. Cancelling `cut` makes lapin's thread give the connection up at once, however it stands: during a
/// handshake that is not answered, or while the broker takes nothing.
pub(crate) async fn connect(
    uri: AMQPUri,
    properties: ConnectionProperties,
    cut: CancellationToken,
) -> lapin::Result<Connection> {
    let tokio = Tokio::current();
    let runtime = Runtime::new(RuntimeParts::new(tokio.clone(), Line(tokio.clone())));
    let dial = async move |uri: AMQPUri, _| {
        let tokio = Runtime::new(tokio.clone());
        let tls = OwnedTLSConfig::default();
        let connecting = uri.connect_with_config_async(tls.as_ref(), &tokio);
        let stream = tokio::select! {
            stream = connecting => stream?,
            () = cut.cancelled() => return Err(cut_off().into()),
        };
        Ok(AsyncTcpStream::Plain(Scrubbed::new(stream, cut.clone())))
    };
    Connection::connector(uri, runtime, dial, properties).await
}

/// What [`Runtime`] wants to know of sockets. lapin only sleeps on it: connections are made by [`connect`].
#[derive(Clone, Debug)]
struct Line(Tokio);

impl Reactor for Line {
    type TcpStream = Scrubbed;
    type Sleep = tokio::time::Sleep;

    fn register<H: io::Read + io::Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Scrubbed, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        _address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// The connection's bytes as lapin sees them.
struct Scrubbed {
    stream: AsyncTcpStream<<Tokio as Reactor>::TcpStream>,
    scrubber: Scrubber,
    chunk: Box<[u8]>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Scrubbed {
    fn new(stream: AsyncTcpStream<<Tokio as Reactor>::TcpStream>, cut: CancellationToken) -> Self {
        Self {
            stream,
            scrubber: Scrubber::default(),
            chunk: vec![0; READ_BYTES].into(),
            cut: Box::pin(cut.cancelled_owned()),
        }
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(cut_off()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Scrubbed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.poll_cut(cx)?;
        while this.scrubber.ready().is_empty() {
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut this.chunk))? {
                0 => return Poll::Ready(Ok(0)),
                read => this
                    .scrubber
                    .feed(this.chunk.get(..read).unwrap_or_default()),
            }
        }
        Poll::Ready(Ok(this.scrubber.hand_out(buffer)))
    }
}

impl AsyncWrite for Scrubbed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the line was cut")
}
