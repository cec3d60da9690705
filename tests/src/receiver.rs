//! A partner's receiver on the loopback address: records every request to the byte, and answers as it is told to.
//!
//! Written by hand on a socket, since a library would hide the order and the case of headers. It speaks HTTP/1.1 and
//! keeps connections alive.

mod answer;
mod connection;
mod raw;
mod request;
mod tls;

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::wait::DEADLINE;

pub use answer::Answer;
pub use raw::{Peer, RawReceiver};
pub use request::Request;
pub use tls::{Authority, Identity, date_time_ymd};

/// Stops when dropped.
pub struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

/// What the connections and the test share.
#[derive(Default)]
struct State {
    script: Mutex<Script>,
    requests: watch::Sender<Vec<Request>>,
    judge: Option<Judge>,
}

/// Sees every request and says how it is answered.
pub type Judge = Box<dyn Fn(&Request) -> Answer + Send + Sync>;

/// What is answered. A path that has nothing of its own gets what all paths get.
#[derive(Default)]
struct Script {
    next: HashMap<Option<String>, VecDeque<Answer>>,
    always: HashMap<Option<String>, Answer>,
}

impl Receiver {
    /// Listens on a free port and answers 200 to everything.
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// Listens there, for a receiver that was away.
    ///
    /// # Panics
    /// When somebody else listens there.
    pub async fn start_at(address: SocketAddr) -> Self {
        Self::start_with(address, State::default()).await
    }

    /// Listens on a free port, and leaves everything to the judge: no request is kept, so that it can go on for long.
    pub async fn judged_by(judge: Judge) -> Self {
        let state = State {
            judge: Some(judge),
            ..State::default()
        };
        Self::start_with(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), state).await
    }

    async fn start_with(address: SocketAddr, state: State) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().unwrap();
        let state = Arc::new(state);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, state.clone()));
        Self {
            address,
            state,
            _tasks: tasks,
        }
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

    /// Answers every request like this from now on, unless something else is scripted.
    pub fn always(&self, answer: Answer) {
        self.script().always.insert(None, answer);
    }

    /// Answers the next requests like this, one after the other, before it goes on as always.
    pub fn next(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script().next.entry(None).or_default().extend(answers);
    }

    /// [`Self::always`] for one path.
    pub fn always_at(&self, path: &str, answer: Answer) {
        self.script().always.insert(Some(path.to_owned()), answer);
    }

    /// [`Self::next`] for one path.
    pub fn next_at(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        let key = Some(path.to_owned());
        self.script().next.entry(key).or_default().extend(answers);
    }

    /// All requests so far, in the order in which they were read to their end.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.borrow().clone()
    }

    /// Those to one path.
    #[must_use]
    pub fn requests_at(&self, path: &str) -> Vec<Request> {
        at(path, &self.state.requests.borrow())
    }

    /// Waits until there are at least `count` requests, and returns all.
    ///
    /// # Panics
    /// When there are not within [`DEADLINE`].
    pub async fn wait_for(&self, count: usize) -> Vec<Request> {
        self.wait_until(&format!("{count} requests"), |requests| {
            requests.len() >= count
        })
        .await
    }

    /// [`Self::wait_for`] those to one path.
    pub async fn wait_for_at(&self, path: &str, count: usize) -> Vec<Request> {
        let what = format!("{count} requests to {path}");
        let all = self
            .wait_until(&what, |requests| at(path, requests).len() >= count)
            .await;
        at(path, &all)
    }

    /// Waits until a request has this id in its header `X-Vellocity-Delivery`, and returns the first that has.
    pub async fn wait_for_delivery(&self, id: &str) -> Request {
        let has_id = |request: &Request| request.header("X-Vellocity-Delivery") == Some(id);
        let all = self
            .wait_until(id, |requests| requests.iter().any(has_id))
            .await;
        all.into_iter().find(has_id).expect("it was just seen")
    }

    /// Waits until the requests so far satisfy a condition, and returns them.
    ///
    /// # Panics
    /// When they don't within [`DEADLINE`].
    pub async fn wait_until(
        &self,
        what: &str,
        condition: impl FnMut(&[Request]) -> bool,
    ) -> Vec<Request> {
        let within = self.wait_until_within(DEADLINE, condition).await;
        within.unwrap_or_else(|| {
            let paths: Vec<_> = self.requests().iter().map(Request::summary).collect();
            panic!(
                "not within {DEADLINE:?}: {what}; there are {}: {paths:#?}",
                paths.len()
            )
        })
    }

    /// [`Self::wait_until`] for whoever has something to say when it does not come: `None` then.
    pub async fn wait_until_within(
        &self,
        deadline: Duration,
        mut condition: impl FnMut(&[Request]) -> bool,
    ) -> Option<Vec<Request>> {
        let mut requests = self.state.requests.subscribe();
        let met = requests.wait_for(|requests| condition(requests));
        let met = tokio::time::timeout(deadline, met).await.ok()?;
        met.ok().map(|requests| requests.clone())
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.state.script.lock().unwrap()
    }
}

fn at(path: &str, requests: &[Request]) -> Vec<Request> {
    let to_path = requests.iter().filter(|request| request.path == path);
    to_path.cloned().collect()
}

impl State {
    /// Writes a request down and says how it is answered.
    fn take(&self, request: Request) -> Answer {
        if let Some(judge) = &self.judge {
            return judge(&request);
        }
        let path = request.path.clone();
        self.requests.send_modify(|requests| requests.push(request));
        let mut script = self.script.lock().unwrap();
        for key in [Some(path), None] {
            if let Some(answer) = script.next.get_mut(&key).and_then(VecDeque::pop_front) {
                return answer;
            }
            if let Some(answer) = script.always.get(&key) {
                return answer.clone();
            }
        }
        Answer::ok()
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        // Out of file descriptors: the next one may find some.
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(connection::serve(stream, state.clone()));
        }
        while connections.try_join_next().is_some() {}
    }
}
