//! A receiver for load: counts and times what arrives, and behaves as the path says.
//!
//! `/ok/7`, `/slow/8000/7` (milliseconds), `/status/500/7`, `/never/7` and `/ill/7` (500 until it is healed); the last
//! part is the number of a webhook. HTTP/1.1 with kept connections, written by hand, on one thread of its own: what it
//! costs is part of what is measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::request::{Behaviour, Request};
use super::{Arrival, Arrivals, Clock};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Of each connection at first; a larger event makes its own larger.
const BUFFER_BYTES: usize = 2 * 1024;

/// Stops when dropped.
pub struct LoadReceiver {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    clock: Clock,
    arrivals: Mutex<Vec<Arrival>>,
    count: AtomicU64,
    accepted: AtomicU64,
    healed: AtomicBool,
}

impl LoadReceiver {
    /// # Panics
    /// Without a free port.
    #[must_use]
    pub fn start(clock: Clock) -> Self {
        let state = Arc::new(State {
            clock,
            arrivals: Mutex::default(),
            count: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            healed: AtomicBool::new(false),
        });
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = state.clone();
        let thread = std::thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || serve(listener, &serving, stopped))
            .unwrap();
        Self {
            address,
            state,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The URL of a webhook that behaves like this.
    #[must_use]
    pub fn url(&self, behaviour: Behaviour, webhook: u32) -> String {
        format!("http://{}{}", self.address, behaviour.path(webhook))
    }

    /// By which arrivals are timed.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.state.clock
    }

    /// From now on all that was [`Behaviour::Ill`] answers with success.
    pub fn heal(&self) {
        self.state.healed.store(true, Ordering::Relaxed);
    }

    /// Requests so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.state.count.load(Ordering::Relaxed)
    }

    /// Requests that were answered with success so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.state.accepted.load(Ordering::Relaxed)
    }

    /// Takes what has arrived; counts begin anew.
    #[must_use]
    pub fn take(&self) -> Arrivals {
        let mut arrivals = self.state.arrivals.lock().unwrap();
        self.state.count.store(0, Ordering::Relaxed);
        self.state.accepted.store(0, Ordering::Relaxed);
        Arrivals(std::mem::take(&mut *arrivals))
    }
}

impl Drop for LoadReceiver {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn serve(listener: std::net::TcpListener, state: &Arc<State>, mut stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).unwrap();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        connections.spawn(attend(stream, state.clone()));
                    }
                }
                Some(_) = connections.join_next() => {}
                _ = &mut stopped => return,
            }
        }
    });
}

/// One connection, until it is closed or speaks something else.
async fn attend(mut stream: TcpStream, state: Arc<State>) {
    let _unneeded = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let Some((request, length)) = Request::read(&mut stream, &mut buffer).await else {
            return;
        };
        buffer.drain(..length);
        if answer(&mut stream, &state, &request).await.is_none() {
            return;
        }
    }
}

async fn answer(stream: &mut TcpStream, state: &State, request: &Request) -> Option<()> {
    let status = match request.behaviour {
        Behaviour::Ok | Behaviour::Slow(_) => 200,
        Behaviour::Status(status) => status,
        Behaviour::Ill if state.healed.load(Ordering::Relaxed) => 200,
        Behaviour::Ill => 500,
        Behaviour::Never => {
            state.note(request, false);
            return wait_for_the_end(stream).await;
        }
    };
    state.note(request, status == 200);
    if let Behaviour::Slow(time) = request.behaviour {
        tokio::time::sleep(time).await;
    }
    if status == 200 {
        stream.write_all(OK).await.ok()
    } else {
        let text = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(text.as_bytes()).await.ok()
    }
}

/// Until the other side gives up.
async fn wait_for_the_end(stream: &mut TcpStream) -> Option<()> {
    let mut rest = [0; 64];
    while stream.read(&mut rest).await.ok()? > 0 {}
    None
}

impl State {
    fn note(&self, request: &Request, accepted: bool) {
        self.arrivals.lock().unwrap().push(Arrival {
            at_us: self.clock.now_us(),
            event: request.event,
            webhook: request.webhook,
            accepted,
        });
        self.count.fetch_add(1, Ordering::Relaxed);
        self.accepted
            .fetch_add(u64::from(accepted), Ordering::Relaxed);
    }
}
