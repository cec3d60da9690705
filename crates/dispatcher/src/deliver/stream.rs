//! A connection as hyper sees it: plain TCP or TLS, with what is known of it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::connect::StepTimes;

/// A connection older than this is not used again, so that a host that moves to another address is followed even if
/// it is never idle.
const AGE_MAX: Duration = Duration::from_secs(300);

/// Counts the connections that are open. Each holds a clone of its own.
#[derive(Debug)]
pub(super) struct OpenConnections {
    open: AtomicUsize,
    kept_max: usize,
}

impl OpenConnections {
    pub(super) fn new(kept_max: usize) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            kept_max,
        })
    }
}

/// What each request over a connection can learn of it. The flags are hints that one task reads after another, so
/// relaxed ordering is enough.
#[derive(Debug)]
pub(super) struct ConnectionInfo {
    opened: Instant,
    steps: StepTimes,
    http2: bool,
    used: AtomicBool,
    answered: AtomicBool,
    all: Arc<OpenConnections>,
}

impl ConnectionInfo {
    pub(super) fn new(steps: StepTimes, http2: bool, all: &Arc<OpenConnections>) -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            steps,
            http2,
            used: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            all: Arc::clone(all),
        })
    }

    pub(super) fn steps(&self) -> StepTimes {
        self.steps
    }

    /// Whether later requests should go over this connection as well.
    pub(super) fn is_worth_keeping(&self) -> bool {
        self.opened.elapsed() <= AGE_MAX
            && self.all.open.load(Ordering::Relaxed) <= self.all.kept_max
    }

    pub(super) fn is_http2(&self) -> bool {
        self.http2
    }

    /// Says whether an earlier request has been here, and leaves its own mark.
    pub(super) fn mark_used(&self) -> bool {
        self.used.swap(true, Ordering::Relaxed)
    }

    /// Whether any byte came after the last one that was written. Over HTTP/2 this says nothing about one request.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

pub(super) struct Stream {
    transport: Transport,
    info: Arc<ConnectionInfo>,
}

impl Stream {
    pub(super) fn plain(stream: TcpStream, info: Arc<ConnectionInfo>) -> Self {
        Self::new(Transport::Plain(stream), info)
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>, info: Arc<ConnectionInfo>) -> Self {
        Self::new(Transport::Tls(Box::new(stream)), info)
    }

    fn new(transport: Transport, info: Arc<ConnectionInfo>) -> Self {
        info.all.open.fetch_add(1, Ordering::Relaxed);
        Self { transport, info }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.info.all.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(Arc::clone(&self.info));
        if self.info.http2 {
            connected.negotiated_h2()
        } else {
            connected
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if buffer.filled().len() > before {
            self.info.answered.store(true, Ordering::Relaxed);
        }
        poll
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.info.answered.store(false, Ordering::Relaxed);
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.info.answered.store(false, Ordering::Relaxed);
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    /// With this hyper writes the head and the body's own bytes together instead of copying them into one buffer.
    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
