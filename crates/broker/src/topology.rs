//! Every exchange, queue, argument and binding, once. Declaring, checking, and what stands in definitions and
//! documents derive from [`steps`].
//!
//! Only what works alike on RabbitMQ 3.10 and 4.x. Arguments of a queue can't be changed later, so each name carries
//! a version; what an operator may tune (length limits above all) is a policy and not an argument.

mod declare;
mod depth;

pub use declare::{check, declare};
pub use depth::{QueueDepth, depths};

use crate::config::Config;
use crate::delay::Bucket;

/// The header by which events are spread over shards. Its value is hashed with its type: always send a string.
pub const PARTNER_HEADER: &str = "partner_id";

/// Announcements of deliveries whose time has come.
pub const DUE_QUEUE: &str = "vellocity.deliveries.due.v1";
/// What failed or was parked, on its way to the retry service.
pub const FAILED_QUEUE: &str = "vellocity.deliveries.failed.v1";
/// Test calls and other work that a person waits for.
pub const INTERACTIVE_QUEUE: &str = "vellocity.deliveries.interactive.v1";
/// Events that reached no shard. Consumed by dispatchers as well.
pub const UNROUTED_QUEUE: &str = "vellocity.events.unrouted.v1";
/// Events that can't be used.
pub const REJECTED_QUEUE: &str = "vellocity.rejected.v1";
/// Messages that nobody could handle.
pub const DEAD_QUEUE: &str = "vellocity.dead.v1";

/// Keys on [`Exchange::Deliveries`].
pub const DUE_KEY: &str = "due";
pub const FAILED_KEY: &str = "failed";
pub const INTERACTIVE_KEY: &str = "interactive";

/// Deliveries of one message before it counts as poison. Every loss of a connection counts for the whole prefetch
/// window, so that a small number would kill good messages.
const DELIVERY_LIMIT: i64 = 100;
/// For the queues at the end of the line, which have nowhere to send a message to: a number that nothing reaches.
/// Without one RabbitMQ 4 takes 20 and drops the message; -1 drops it at once on 3.10.
const DELIVERY_LIMIT_NEVER: i64 = 1_000_000;

/// Exchanges that services and tools publish to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exchange {
    Events,
    Deliveries,
    Delays,
    Rejected,
    Dead,
    Subscriptions,
    Replies,
}

impl Exchange {
    pub const ALL: [Self; 7] = [
        Self::Events,
        Self::Deliveries,
        Self::Delays,
        Self::Rejected,
        Self::Dead,
        Self::Subscriptions,
        Self::Replies,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "vellocity.events",
            Self::Deliveries => "vellocity.deliveries",
            Self::Delays => "vellocity.delays",
            Self::Rejected => "vellocity.rejected",
            Self::Dead => "vellocity.dead",
            Self::Subscriptions => "vellocity.subscriptions",
            Self::Replies => "vellocity.replies",
        }
    }

    /// The exchange of that name, for messages that are sent again from where they stranded.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.name() == name)
    }
}

const SHARDS_EXCHANGE: &str = "vellocity.events.shards";
const UNROUTED_EXCHANGE: &str = "vellocity.events.unrouted";

/// Queue of shard `index`, counted from 0.
#[must_use]
pub fn shard_queue(index: u16) -> String {
    format!("vellocity.events.{index}.v1")
}

/// All queues that events come from: every shard, then what reached none.
#[must_use]
pub fn event_queues(shards: u16) -> Vec<String> {
    let mut queues: Vec<_> = (0..shards).map(shard_queue).collect();
    queues.push(UNROUTED_QUEUE.to_owned());
    queues
}

/// One thing to declare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Exchange {
        name: &'static str,
        kind: &'static str,
        arguments: Vec<(&'static str, Argument)>,
    },
    Queue {
        name: String,
        arguments: Vec<(&'static str, Argument)>,
    },
    /// From an exchange to a queue or, with `to_exchange`, to another exchange.
    Binding {
        from: &'static str,
        to: String,
        to_exchange: bool,
        key: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    Text(&'static str),
    Number(i64),
}

use Argument::{Number, Text};

/// The whole topology in the order of its declaration.
///
/// `vellocity.events` comes last: as long as it is missing, publishers get an error; once it is there, every event has
/// a queue to go to.
#[must_use]
pub fn steps(config: &Config) -> Vec<Step> {
    let mut steps = dead_ends();
    steps.extend(deliveries());
    steps.extend(delays());
    steps.extend([
        // Changes of subscriptions: each dispatcher binds an exclusive queue of its own.
        exchange(Exchange::Subscriptions.name(), "topic"),
        // Answers to test calls: each management-api binds an exclusive queue by its own name.
        exchange(Exchange::Replies.name(), "direct"),
    ]);
    steps.extend(events(config.shards));
    steps
}

/// The end of the line: nothing goes on from here but through the retry service, into a table.
fn dead_ends() -> Vec<Step> {
    [
        (Exchange::Rejected, REJECTED_QUEUE),
        (Exchange::Dead, DEAD_QUEUE),
    ]
    .into_iter()
    .flat_map(|(from, queue)| {
        let arguments = vec![
            ("x-queue-type", Text("quorum")),
            ("x-delivery-limit", Number(DELIVERY_LIMIT_NEVER)),
            // A nack, and the sender keeps what it has, rather than the loss of the oldest.
            ("x-overflow", Text("reject-publish")),
        ];
        [
            exchange(from.name(), "fanout"),
            Step::Queue {
                name: queue.to_owned(),
                arguments,
            },
            binding(from.name(), queue, ""),
        ]
    })
    .collect()
}

fn deliveries() -> Vec<Step> {
    let from = Exchange::Deliveries.name();
    let mut steps = vec![exchange(from, "direct")];
    for (queue, key) in [
        (DUE_QUEUE, DUE_KEY),
        (FAILED_QUEUE, FAILED_KEY),
        (INTERACTIVE_QUEUE, INTERACTIVE_KEY),
    ] {
        steps.push(work_queue(queue.to_owned()));
        steps.push(binding(from, queue, key));
    }
    steps
}

fn delays() -> Vec<Step> {
    let from = Exchange::Delays.name();
    let mut steps = vec![exchange(from, "direct")];
    for bucket in Bucket::all() {
        let arguments = vec![
            ("x-queue-type", Text("quorum")),
            ("x-message-ttl", Number(bucket.delay_ms())),
            ("x-dead-letter-exchange", Text(Exchange::Deliveries.name())),
            ("x-dead-letter-routing-key", Text(DUE_KEY)),
            // The default loses whatever expires while the broker is down.
            ("x-dead-letter-strategy", Text("at-least-once")),
            // At-least-once falls back to at-most-once without this.
            ("x-overflow", Text("reject-publish")),
            ("x-delivery-limit", Number(DELIVERY_LIMIT)),
        ];
        steps.push(Step::Queue {
            name: bucket.queue(),
            arguments,
        });
        steps.push(binding(from, &bucket.queue(), &bucket.routing_key()));
    }
    steps
}

fn events(shards: u16) -> Vec<Step> {
    let mut steps = vec![
        exchange(UNROUTED_EXCHANGE, "fanout"),
        work_queue(UNROUTED_QUEUE.to_owned()),
        binding(UNROUTED_EXCHANGE, UNROUTED_QUEUE, ""),
        Step::Exchange {
            name: SHARDS_EXCHANGE,
            kind: "x-consistent-hash",
            arguments: vec![("hash-header", Text(PARTNER_HEADER))],
        },
    ];
    for index in 0..shards {
        let queue = shard_queue(index);
        steps.push(work_queue(queue.clone()));
        // The key is the queue's weight: all have the same share.
        steps.push(binding(SHARDS_EXCHANGE, &queue, "1"));
    }
    steps.push(Step::Exchange {
        name: Exchange::Events.name(),
        kind: "topic",
        // An event that was confirmed is in some queue, even while a binding is missing.
        arguments: vec![("alternate-exchange", Text(UNROUTED_EXCHANGE))],
    });
    steps.push(Step::Binding {
        from: Exchange::Events.name(),
        to: SHARDS_EXCHANGE.to_owned(),
        to_exchange: true,
        key: "#".to_owned(),
    });
    steps
}

fn exchange(name: &'static str, kind: &'static str) -> Step {
    Step::Exchange {
        name,
        kind,
        arguments: Vec::new(),
    }
}

/// A queue that services work on.
fn work_queue(name: String) -> Step {
    let arguments = vec![
        // Survives the loss of a node; on one node it is the faster durable queue, and the only one that counts
        // deliveries.
        ("x-queue-type", Text("quorum")),
        // Poison messages go there, with the routing key that they had.
        ("x-dead-letter-exchange", Text(Exchange::Dead.name())),
        // The default drops a dead letter when its target is away.
        ("x-dead-letter-strategy", Text("at-least-once")),
        // At-least-once asks for it; and a full queue answers with a nack instead of dropping the oldest.
        ("x-overflow", Text("reject-publish")),
        ("x-delivery-limit", Number(DELIVERY_LIMIT)),
    ];
    Step::Queue { name, arguments }
}

fn binding(from: &'static str, to: &str, key: &str) -> Step {
    Step::Binding {
        from,
        to: to.to_owned(),
        to_exchange: false,
        key: key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nothing_is_bound_before_it_is_declared_and_nothing_is_declared_twice() {
        let mut known = BTreeSet::new();
        for step in steps(&Config::default()) {
            match step {
                Step::Exchange { name, .. } => assert!(known.insert(name.to_owned()), "{name}"),
                Step::Queue { name, .. } => assert!(known.insert(name.clone()), "{name}"),
                Step::Binding { from, to, .. } => {
                    assert!(known.contains(from) && known.contains(&to), "{from} {to}");
                }
            }
        }
        assert!(Exchange::ALL.iter().all(|e| known.contains(e.name())));
    }

    #[test]
    fn the_exchange_for_events_is_the_last_thing_declared() {
        let steps = steps(&Config::default());
        let [.., Step::Exchange { name, .. }, Step::Binding { from, .. }] = steps.as_slice() else {
            panic!("{steps:?}");
        };
        assert_eq!((*name, *from), ("vellocity.events", "vellocity.events"));
    }

    #[test]
    fn every_queue_keeps_what_it_has_and_has_a_delivery_limit() {
        for step in steps(&Config::default()) {
            let Step::Queue { name, arguments } = step else {
                continue;
            };
            let has = |argument: (&'static str, Argument)| {
                assert!(arguments.contains(&argument), "{name} {argument:?}");
            };
            has(("x-queue-type", Text("quorum")));
            has(("x-overflow", Text("reject-publish")));
            if [REJECTED_QUEUE, DEAD_QUEUE].contains(&name.as_str()) {
                has(("x-delivery-limit", Number(1_000_000)));
                let names: Vec<_> = arguments.iter().map(|(name, _)| *name).collect();
                assert!(!names.contains(&"x-dead-letter-exchange"), "{name}");
            } else {
                has(("x-delivery-limit", Number(100)));
                has(("x-dead-letter-strategy", Text("at-least-once")));
            }
            assert!(name.ends_with(".v1"), "{name}");
        }
    }
}
