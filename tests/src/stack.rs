//! A whole stack for one test: its database, its virtual host, and the services that it asks for, in this process.
//!
//! ```no_run
//! # async fn example() {
//! let stack = tests::Stack::start().await;
//! let (partner, receiver) = (stack.partner().await, tests::Receiver::start().await);
//! let webhook = partner.create_webhook(&receiver.url("/"), &["listing.updated"]).await;
//! let id = stack.publish(&partner, "listing.updated", r#"{"listing_id":1}"#).await;
//! let request = receiver.wait_for_delivery(&id).await;
//! tests::signature::verify(&request, &webhook.secret).unwrap();
//! stack.finish().await;
//! # }
//! ```

mod builder;
mod undone;

use std::net::SocketAddr;

use domain::plan::Plan;
use futures_util::future::join_all;
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::amqp::{Amqp, Message};
use crate::fail_points::FailPoints;
use crate::service::{Kind, Service};
use crate::{Database, Partner, Process, Settings, Vhost, wait};

pub use builder::Builder;
pub use undone::Leftovers;

/// Must be ended with [`Stack::finish`], which fails when something was left undone.
pub struct Stack {
    // The order is that of the end: services before what they work on.
    services: Vec<Service>,
    processes: Vec<Process>,
    amqp: OnceCell<Amqp>,
    settings: Settings,
    api: Option<SocketAddr>,
    leftovers: Leftovers,
    finished: bool,
    pub vhost: Vhost,
    pub database: Database,
}

impl Stack {
    /// With one of each service, ready.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// To ask for something else.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// What each further service is started with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes what each further service is started with.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.set(key, value);
    }

    /// Where the API is: `http://host:port`.
    ///
    /// # Panics
    /// Without a management-api.
    #[must_use]
    pub fn api_origin(&self) -> String {
        format!("http://{}", self.api.expect("a management-api was started"))
    }

    /// A new partner with the plan Enterprise.
    pub async fn partner(&self) -> Partner {
        self.partner_with(Plan::Enterprise).await
    }

    /// A new partner.
    pub async fn partner_with(&self, plan: Plan) -> Partner {
        let origin = self
            .api
            .map(|api| format!("http://{api}"))
            .unwrap_or_default();
        Partner::create(&self.database.store(), &origin, plan).await
    }

    /// A connection to RabbitMQ, made when it is first asked for.
    pub async fn amqp(&self) -> &Amqp {
        self.amqp
            .get_or_init(|| Amqp::connect(self.vhost.url()))
            .await
    }

    /// Publishes an event with a new id, waits for the confirm, and returns the id.
    pub async fn publish(&self, partner: &Partner, event_type: &str, data: &str) -> String {
        let id = new_event_id();
        self.publish_as(&id, partner, event_type, data).await;
        id
    }

    /// [`Self::publish`] with a given id.
    pub async fn publish_as(&self, id: &str, partner: &Partner, event_type: &str, data: &str) {
        let message = Message::event(id, event_type, partner.id, data);
        self.amqp().await.publish(&message).await;
    }

    /// Starts one more service in this process and waits until it is ready. Returns its number for [`Self::take`].
    pub async fn add(&mut self, kind: Kind) -> usize {
        let service = Service::start(kind, &self.settings).await;
        service.until_ready().await;
        if kind == Kind::ManagementApi {
            self.api = Some(service.api());
        }
        self.services.push(service);
        self.services.len() - 1
    }

    /// Services of one kind that run in this process, in the order of their start.
    pub fn services(&self, kind: Kind) -> impl Iterator<Item = &Service> {
        self.services
            .iter()
            .filter(move |service| service.kind() == kind)
    }

    /// Takes the first service of a kind out of the stack, to stop or to kill it.
    ///
    /// # Panics
    /// When there is none.
    pub fn take(&mut self, kind: Kind) -> Service {
        let index = self
            .services
            .iter()
            .position(|service| service.kind() == kind);
        self.services
            .remove(index.unwrap_or_else(|| panic!("no {}", kind.name())))
    }

    /// Starts a service as a process of its own, waits until it is ready, and leaves it to the caller.
    pub async fn process(&mut self, kind: Kind) -> Process {
        self.process_with(kind, &FailPoints::default()).await
    }

    /// [`Self::process`] that stops at fail points.
    pub async fn process_with(&mut self, kind: Kind, fail_points: &FailPoints) -> Process {
        let process = Process::service_with(kind, &self.settings, fail_points).await;
        process.until_ready().await;
        if kind == Kind::ManagementApi {
            self.api = Some(process.api());
        }
        process
    }

    /// Gives a process back, to be stopped by [`Self::finish`].
    pub fn keep(&mut self, process: Process) {
        self.processes.push(process);
    }

    /// What may be left at the end.
    pub fn may_leave(&mut self, leftovers: Leftovers) {
        self.leftovers = leftovers;
    }

    /// Waits until every delivery of an event has this status, and there is at least one.
    pub async fn until_delivery_is(&self, event_id: &str, status: &str) {
        let sql = self.database.sql().await;
        let what = format!("deliveries of {event_id} are {status}");
        wait::eventually(&what, async || {
            let query =
                "SELECT coalesce(bool_and(status = $2), false) FROM deliveries WHERE event_id = $1";
            let all: bool = sql.value_of(query, &[&event_id, &status]).await;
            all.then_some(())
        })
        .await;
    }

    /// Stops everything in order.
    ///
    /// # Panics
    /// When a service does not end in order, or something was left undone that no test said it would leave.
    pub async fn finish(mut self) {
        self.finished = true;
        for mut process in self.processes.drain(..) {
            let status = process.terminate().await;
            assert!(
                status.success(),
                "a process ended with {status}: {}",
                process.output()
            );
        }
        join_all(self.services.drain(..).map(Service::stop)).await;
        undone::check(&self).await;
        if let Some(amqp) = self.amqp.take() {
            amqp.close().await;
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if !self.finished && !std::thread::panicking() {
            panic!("the test ended without `stack.finish().await`");
        }
    }
}

/// An event id that is new.
#[must_use]
pub fn new_event_id() -> String {
    domain::id::EventId::from_uuid(Uuid::now_v7()).to_string()
}
