//! One life of the connection to RabbitMQ: a connection to publish and one to consume, so that a broker that blocks
//! publishers still gets acknowledgements. Whatever breaks on either ends the link as a whole.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::{join, try_join};
use futures_util::stream::{StreamExt as _, select};
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, TopologyMode};
use crate::consumer::Consumer;
use crate::error::BrokerError;
use crate::topology::{self, Exchange};
use crate::transport;

/// Longest time for one connection to be made, its handshake included.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest time for the topology to be declared or checked, and for any other single answer of the broker.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Longest time that the connections of a service that ends get to say goodbye.
pub(crate) const GOODBYE_LIMIT: Duration = Duration::from_secs(2);
/// The same after a loss, when nothing is left to be said and a new link is waited for.
pub(crate) const GOODBYE_LIMIT_LOST: Duration = Duration::from_millis(200);
/// How often the state of the connections is looked at, should their events have missed something.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest private queue, in messages: its oldest go first. They are hints and answers that nobody waits for any more.
const PRIVATE_QUEUE_LENGTH_MAX: i64 = 100_000;
/// Deliveries in flight on a private queue.
const PRIVATE_PREFETCH: u16 = 256;

/// Both connections. Cheap to share; see [`crate::Broker::link`].
pub struct Link {
    generation: u64,
    config: Config,
    publishing: Connection,
    consuming: Connection,
    lost: CancellationToken,
    why_lost: OnceLock<String>,
    blocked: RwLock<Option<String>>,
    tracker: TaskTracker,
    cut: CancellationToken,
}

impl Link {
    pub(crate) async fn connect(
        config: &Config,
        name: &str,
        generation: u64,
        tracker: &TaskTracker,
    ) -> Result<Arc<Self>, BrokerError> {
        let cut = CancellationToken::new();
        // Cuts the lines off, whichever way this ends, unless it is in order.
        let guard = cut.clone().drop_guard();
        let (publishing, consuming) = try_join(
            connection(config, format!("{name} publish"), &cut),
            connection(config, format!("{name} consume"), &cut),
        )
        .await?;
        let link = Arc::new(Self {
            generation,
            config: config.clone(),
            publishing,
            consuming,
            lost: CancellationToken::new(),
            why_lost: OnceLock::new(),
            blocked: RwLock::new(None),
            tracker: tracker.clone(),
            cut,
        });
        link.settle_topology().await?;
        guard.disarm();
        Ok(link)
    }

    async fn settle_topology(&self) -> Result<(), BrokerError> {
        let channel = match self.config.topology {
            TopologyMode::Assume => return Ok(()),
            TopologyMode::Declare | TopologyMode::Check => self.open_channel().await?,
        };
        let work = async {
            match self.config.topology {
                TopologyMode::Declare => topology::declare(&channel, &self.config).await,
                TopologyMode::Check => topology::check(&channel, &self.config).await,
                TopologyMode::Assume => Ok(()),
            }
        };
        answer("agree on the topology", work).await?;
        // The channel goes with its handle anyway.
        let _ = channel.close(200, "done".into()).await;
        Ok(())
    }

    /// Counts the links of this process, from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Starts to consume `queue`, with at most `prefetch` deliveries out at a time. `tag` shows in the management UI.
    ///
    /// # Errors
    /// When the broker refuses. The link is lost then: the next one looks at the topology anew.
    pub async fn consume(
        self: &Arc<Self>,
        queue: &str,
        prefetch: u16,
        tag: &str,
    ) -> Result<Consumer, BrokerError> {
        self.or_lose(async {
            let channel = self.open_consumer_channel().await?;
            Consumer::start(self.clone(), channel, queue, prefetch, tag).await
        })
        .await
    }

    /// Consumes a new queue that belongs to this link alone, bound to `exchange` by `key`; it vanishes with the link.
    ///
    /// # Errors
    /// As [`Self::consume`].
    pub async fn consume_private(
        self: &Arc<Self>,
        exchange: Exchange,
        key: &str,
        tag: &str,
    ) -> Result<Consumer, BrokerError> {
        self.or_lose(self.start_private(exchange, Some(key), tag))
            .await
    }

    /// Consumes a new queue for answers: whoever answers publishes to [`Exchange::Replies`] with
    /// [`Consumer::queue`] as the key.
    ///
    /// # Errors
    /// As [`Self::consume`].
    pub async fn consume_replies(self: &Arc<Self>, tag: &str) -> Result<Consumer, BrokerError> {
        self.or_lose(self.start_private(Exchange::Replies, None, tag))
            .await
    }

    async fn start_private(
        self: &Arc<Self>,
        exchange: Exchange,
        key: Option<&str>,
        tag: &str,
    ) -> Result<Consumer, BrokerError> {
        let channel = self.open_consumer_channel().await?;
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..Default::default()
        };
        let mut arguments = FieldTable::default();
        let length_max = AMQPValue::LongLongInt(PRIVATE_QUEUE_LENGTH_MAX);
        arguments.insert("x-max-length".into(), length_max);
        let queue = channel
            .queue_declare("".into(), options, arguments)
            .await
            .map_err(|e| BrokerError::amqp("make a private queue", e))?
            .name()
            .to_string();
        channel
            .queue_bind(
                queue.as_str().into(),
                exchange.name().into(),
                key.unwrap_or(&queue).into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(|e| BrokerError::amqp(format!("bind a queue to {}", exchange.name()), e))?;
        Consumer::start(self.clone(), channel, &queue, PRIVATE_PREFETCH, tag).await
    }

    /// A channel to publish on, or to ask questions.
    pub(crate) async fn open_channel(&self) -> Result<Channel, BrokerError> {
        open(&self.publishing).await
    }

    async fn open_consumer_channel(&self) -> Result<Channel, BrokerError> {
        open(&self.consuming).await
    }

    /// Awaits something that only a sound link can do.
    async fn or_lose<T>(
        &self,
        work: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let result = tokio::select! {
            biased;
            () = self.lost() => return Err(BrokerError::Lost(self.why_lost().to_owned())),
            result = answer("answer", work) => result,
        };
        result.inspect_err(|error| self.declare_lost(error.line()))
    }

    /// Waits until this link is of no more use.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    pub(crate) fn lost_token(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Gives this link up: consumers end, receipts go nowhere, and the supervisor makes a new link. Whoever notices
    /// that the process stood still for longer than half the heartbeat says so here before it sends anything more.
    pub fn declare_lost(&self, why: impl Into<String>) {
        // The first reason is the cause; later ones are its consequences.
        let _ = self.why_lost.set(why.into());
        self.lost.cancel();
    }

    /// The reason, once the link is lost.
    #[must_use]
    pub fn why_lost(&self) -> &str {
        self.why_lost.get().map_or("", String::as_str)
    }

    /// Why the broker takes no messages at this moment (out of memory or disk), if it does not.
    #[must_use]
    pub fn blocked(&self) -> Option<String> {
        let blocked = self.blocked.read();
        blocked.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Watches over both connections until the link is lost.
    pub(crate) async fn watch(&self) {
        let mut events = select(
            self.publishing.events_listener(),
            self.consuming.events_listener(),
        );
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                () = self.lost() => return,
                Some(event) = events.next() => self.note(event),
                _ = look.tick() => {}
            }
            // An error event may be about a channel only; the connections' own state decides.
            for connection in [&self.publishing, &self.consuming] {
                if !connection.status().connected() {
                    self.declare_lost("the connection was closed");
                }
            }
        }
    }

    fn note(&self, event: Event) {
        let blocked = match event {
            Event::ConnectionBlocked(why) => Some(why),
            Event::ConnectionUnblocked => None,
            Event::Error(error) => {
                if !self.publishing.status().connected() || !self.consuming.status().connected() {
                    self.declare_lost(error.to_string());
                }
                return;
            }
            _ => return,
        };
        match &blocked {
            Some(why) => tracing::warn!(%why, "RabbitMQ has blocked publishers"),
            None => tracing::info!("RabbitMQ takes messages again"),
        }
        *self.blocked.write().unwrap_or_else(PoisonError::into_inner) = blocked;
    }

    /// Closes both connections in order, and waits for the broker to have read everything. After `limit` the lines are
    /// cut.
    pub(crate) async fn close(&self, limit: Duration) {
        let goodbye = join(
            self.consuming.close(200, "done".into()),
            self.publishing.close(200, "done".into()),
        );
        if tokio::time::timeout(limit, goodbye).await.is_err() {
            tracing::debug!("RabbitMQ did not say goodbye");
        }
        self.cut.cancel();
        self.declare_lost("closed");
    }
}

async fn open(connection: &Connection) -> Result<Channel, BrokerError> {
    let channel = async {
        connection
            .create_channel()
            .await
            .map_err(|e| BrokerError::amqp("open a channel", e))
    };
    answer("open a channel", channel).await
}

async fn connection(
    config: &Config,
    name: String,
    cut: &CancellationToken,
) -> Result<Connection, BrokerError> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connect = transport::connect(config.uri()?, properties, cut.clone());
    match tokio::time::timeout(CONNECT_LIMIT, connect).await {
        Ok(result) => result.map_err(|e| BrokerError::amqp("accept the connection", e)),
        Err(_) => Err(BrokerError::Timeout {
            action: "accept the connection".to_owned(),
            limit: CONNECT_LIMIT,
        }),
    }
}

/// Puts a limit on the time that the broker may take.
async fn answer<T>(
    action: &str,
    work: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    let limit = ANSWER_LIMIT;
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(BrokerError::Timeout {
            action: action.to_owned(),
            limit,
        }),
    }
}
