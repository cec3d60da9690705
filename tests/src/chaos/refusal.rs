//! Has RabbitMQ refuse what is published, as a broker with full queues would, and counts what it refused.
//!
//! Announcements of our services are refused by a policy on their queues. That is not enough for events: a quorum queue
//! tells a publisher that it is full only after it has taken some, and each new connection has to be told anew. So a queue
//! without any room stands in for all that is bound to `vellocity.events`, and every event gets a nack.

use std::fmt::Display;
use std::sync::Mutex;
use std::time::Duration;

use broker::topology::{self, Exchange, Step};
use lapin::Channel;
use lapin::options::{ExchangeUnbindOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use tokio::time::{sleep, timeout};

use super::ledger::Ledger;
use crate::Amqp;
use crate::fleet::Fleet;
use crate::service::Kind;

/// Matches every type of event.
const EVERYTHING: &str = "#";
const POLICY: &str = "chaos-refuses";
/// Everything that services publish to.
const REFUSING: &str = r"^vellocity\.(deliveries\.(failed|due)|delay\.)";
/// Whatever is asked of a broker that is well is done by then.
const DONE_WITHIN: Duration = Duration::from_secs(20);
/// By then nothing is on its way any more to a queue that was unbound.
const UNBOUND_FOR: Duration = Duration::from_millis(500);

pub(super) struct Refusal<'a> {
    fleet: &'a Fleet,
    ledger: &'a Mutex<Ledger>,
    before: Refused,
}

/// How much was refused, since the run or since the services began.
struct Refused {
    events: u64,
    announcements: f64,
}

impl<'a> Refusal<'a> {
    /// Announcements are refused from now on.
    pub(super) async fn begin(fleet: &'a Fleet, ledger: &'a Mutex<Ledger>) -> Self {
        let before = refused(fleet, ledger).await;
        let definition = r#"{"max-length":0}"#;
        let options = ["--priority", "9", "--apply-to", "queues"];
        let set = [
            &["set_policy"][..],
            &options,
            &[POLICY, REFUSING, definition],
        ]
        .concat();
        fleet.rabbitmq.control(&set).await;
        Self {
            fleet,
            ledger,
            before,
        }
    }

    /// Refuses every event for a while. Afterwards each has a queue to go to again, whatever went wrong.
    ///
    /// # Errors
    /// What went wrong.
    pub(super) async fn of_events(&self, lasts: Duration) -> Result<(), String> {
        let config = self.fleet.settings().dispatcher().rabbitmq;
        let amqp = timely("connect", Amqp::try_connect(&self.fleet.amqp_url)).await?;
        let refused = timely("refuse events", StandIn::begin(&amqp, &config)).await;
        if refused.is_ok() {
            sleep(lasts).await;
        }
        // A channel on which something failed is closed.
        let restored = timely("let events through", self.restore(&config)).await;
        let ended = match refused {
            Ok(stand_in) => timely("refuse no more events", stand_in.end()).await,
            Err(problem) => Err(problem),
        };
        let _closed = timeout(DONE_WITHIN, amqp.close()).await;
        restored.and(ended)
    }

    async fn restore(&self, config: &broker::Config) -> Result<(), String> {
        let amqp = Amqp::try_connect(&self.fleet.amqp_url);
        let amqp = amqp.await.map_err(|error| error.to_string())?;
        let restored = match amqp.connection().create_channel().await {
            Ok(channel) => topology::declare(&channel, config)
                .await
                .map_err(|error| error.line()),
            Err(error) => Err(error.to_string()),
        };
        amqp.close().await;
        restored
    }

    /// Announcements are refused no more; tells how much was refused.
    ///
    /// # Errors
    /// When no event was, or no announcement: what refuses nothing is no fault.
    pub(super) async fn end(self) -> Result<String, String> {
        self.fleet.rabbitmq.control(&["clear_policy", POLICY]).await;
        let after = refused(self.fleet, self.ledger).await;
        let events = after.events - self.before.events;
        let announcements = after.announcements - self.before.announcements;
        let told = format!("{events} events and {announcements:.0} announcements refused");
        match events > 0 && announcements > 0.0 {
            true => Ok(told),
            false => Err(told),
        }
    }
}

async fn refused(fleet: &Fleet, ledger: &Mutex<Ledger>) -> Refused {
    let mut announcements = 0.0;
    for part in fleet.parts() {
        let (metric, labels) = match part.kind() {
            Kind::Dispatcher => (
                "vellocity_dispatcher_announcements_sent_total",
                r#"result="left_to_sweep""#,
            ),
            Kind::Retry => ("retry_publish_failures_total", r#"reason="refused""#),
            Kind::ManagementApi => continue,
        };
        announcements += part.metric(metric, labels).await;
    }
    Refused {
        events: ledger.lock().unwrap().refusals(),
        announcements,
    }
}

/// The queue without room, in place of what events go to.
struct StandIn {
    channel: Channel,
    queue: ShortString,
}

impl StandIn {
    /// It is bound before anything else is unbound, so that no event falls through to the alternate exchange.
    async fn begin(amqp: &Amqp, config: &broker::Config) -> lapin::Result<Self> {
        let channel = amqp.connection().create_channel().await?;
        let queue = declare_without_room(&channel).await?;
        let (events, none) = (Exchange::Events.name().into(), FieldTable::default());
        let options = QueueBindOptions::default();
        channel
            .queue_bind(queue.clone(), events, EVERYTHING.into(), options, none)
            .await?;
        for step in topology::steps(config) {
            unbind_from_events(&channel, step).await?;
        }
        Ok(Self { channel, queue })
    }

    /// After everything else is bound again. RabbitMQ confirms what is on its way to a queue that is deleted, and so this one
    /// is unbound some time before it goes with its connection.
    async fn end(self) -> lapin::Result<()> {
        let (events, none) = (Exchange::Events.name().into(), FieldTable::default());
        self.channel
            .queue_unbind(self.queue, events, EVERYTHING.into(), none)
            .await?;
        sleep(UNBOUND_FOR).await;
        Ok(())
    }
}

/// Declares a queue that refuses everything and goes with its connection, and returns its name.
async fn declare_without_room(channel: &Channel) -> lapin::Result<ShortString> {
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(0));
    let overflow = LongString::from("reject-publish");
    arguments.insert("x-overflow".into(), AMQPValue::LongString(overflow));
    let queue = channel.queue_declare("".into(), options, arguments).await?;
    Ok(queue.name().clone())
}

async fn unbind_from_events(channel: &Channel, step: Step) -> lapin::Result<()> {
    let Step::Binding {
        from,
        to,
        to_exchange,
        key,
    } = step
    else {
        return Ok(());
    };
    if from != Exchange::Events.name() {
        return Ok(());
    }
    let (to, from, key) = (to.into(), from.into(), key.into());
    let none = FieldTable::default();
    if to_exchange {
        let options = ExchangeUnbindOptions::default();
        channel.exchange_unbind(to, from, key, options, none).await
    } else {
        channel.queue_unbind(to, from, key, none).await
    }
}

async fn timely<T, E: Display>(
    what: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(DONE_WITHIN, work).await {
        Ok(done) => done.map_err(|error| format!("can't {what}: {error}")),
        Err(_) => Err(format!("not within {DONE_WITHIN:?}: {what}")),
    }
}
