//! Puts the parts together and starts their tasks.

use std::sync::Arc;
use std::time::Duration;

use broker::Broker;
use broker::topology::{DUE_QUEUE, INTERACTIVE_QUEUE, event_queues};
use runtime::probes::Readiness;
use runtime::{Failure, Shutdown};
use store::Store;
use store::health::BreakerRow;
use store::keyring::Keyring;
use tokio::sync::{RwLock, mpsc};

use super::running::{Groups, Running};
use super::{NAME, Service};
use crate::announce::{Announcer, announcer};
use crate::attempt::Attempts;
use crate::blockage::Blockage;
use crate::catalogue::Catalogue;
use crate::changes;
use crate::claims::{Claims, claims};
use crate::config::Section;
use crate::consume::{Handle, Source, consume};
use crate::due::{Due, Starts, starts};
use crate::fan_out::FanOut;
use crate::gone::gone_webhooks;
use crate::graveyard::Graveyard;
use crate::metrics::Metrics;
use crate::presence::{Presence, write_breakers};
use crate::pulse::Pulse;
use crate::record::{Recorder, recorder};
use crate::subscriptions::{Subscriptions, subscriptions};
use crate::test_call::TestCalls;

/// Changes of breakers that wait to be written.
const BREAKER_CHANGES: usize = 1000;

/// What all parts have in common.
struct Wiring {
    section: Section,
    shards: u16,
    instance: String,
    store: Store,
    keyring: Arc<Keyring>,
    broker: Broker,
    attempts: Arc<Attempts>,
    metrics: Metrics,
    groups: Groups,
}

/// The askers' ends of the queues that tasks in the background work off.
struct Queues {
    announcer: Announcer,
    recorder: Recorder,
    claims: Claims,
    starts: Starts,
    subscriptions: Subscriptions,
}

pub(super) fn start(service: Service) -> Result<Running, Failure> {
    let groups = Groups::default();
    let rabbitmq = service.config.rabbitmq;
    let (heartbeat, shards) = (rabbitmq.heartbeat(), rabbitmq.shards);
    let name = format!("{NAME} {}", service.instance);
    let broker =
        Broker::start(rabbitmq, name, &groups.connection).map_err(|e| Failure::config(&e))?;
    let pulse = Pulse::new(heartbeat, service.metrics.clone());
    let (breakers, breaker_changes) = mpsc::channel(BREAKER_CHANGES);
    let section = service.config.dispatcher;
    let attempts = Attempts {
        gate: service.attempts.gate,
        sender: service.attempts.sender,
        policy: service.attempts.policy,
        pulse: pulse.clone(),
        blockage: Blockage::default(),
        breakers,
        metrics: service.metrics.clone(),
        draining: groups.draining.clone(),
        wait_max: Duration::from_secs(section.slot_wait_max_s.into()),
    };
    let wiring = Wiring {
        shards,
        instance: service.instance,
        store: service.store,
        keyring: service.keyring,
        broker,
        attempts: Arc::new(attempts),
        metrics: service.metrics,
        groups,
        section,
    };
    let queues = wiring.background(service.relaxed, breaker_changes);
    wiring.attend(pulse, &queues.subscriptions, service.readiness);
    wiring.consume(queues);
    let probing = Shutdown::new();
    wiring
        .groups
        .admin
        .spawn(service.probes.run(probing.clone()));
    Ok(Running {
        drain_deadline: wiring.section.drain_deadline(),
        groups: wiring.groups,
        broker: wiring.broker,
        probing,
    })
}

impl Wiring {
    /// What works off queues.
    fn background(&self, relaxed: Store, breaker_changes: mpsc::Receiver<BreakerRow>) -> Queues {
        let groups = &self.groups;
        let tasks = &groups.background;
        let (announcer, announcements) = announcer(self.broker.publisher(), self.metrics.clone());
        let (gone, gone_queue) = gone_webhooks(self.store.clone(), self.metrics.clone());
        let (recorder, records) = recorder(
            self.store.clone(),
            announcer.clone(),
            gone,
            self.attempts.blockage.clone(),
            self.metrics.clone(),
            self.section.record_batch,
        );
        let (claims, claimer) = claims(relaxed, self.metrics.clone());
        let lease = self.section.lease();
        let (starts, starter) = starts(self.store.clone(), self.keyring.clone(), lease);
        let (subscriptions, loader) = subscriptions(
            self.store.clone(),
            self.keyring.clone(),
            self.metrics.clone(),
            self.section.cached_subscriptions_max,
        );
        for _ in 0..self.section.record_writers {
            groups.essential(tasks, "records", records.clone().run());
        }
        groups.essential(tasks, "announces", announcements.run());
        groups.essential(tasks, "claims", claimer.run());
        groups.essential(tasks, "starts attempts", starter.run());
        groups.essential(tasks, "loads subscriptions", loader.run());
        groups.essential(tasks, "disables webhooks", gone_queue.run());
        tasks.spawn(write_breakers(
            self.instance.clone(),
            self.store.clone(),
            breaker_changes,
        ));
        Queues {
            announcer,
            recorder,
            claims,
            starts,
            subscriptions,
        }
    }

    /// What watches and reports.
    fn attend(&self, pulse: Pulse, subscriptions: &Subscriptions, readiness: Readiness) {
        let (tasks, stop) = (&self.groups.attendants, &self.groups.stop);
        let beating = pulse.run(self.broker.clone(), stop.clone());
        self.groups.essential(tasks, "watches the clock", beating);
        // Ends with the consumers: it holds an end of the loader's queue, which ends when nobody can ask.
        let listening = changes::listen(
            subscriptions.clone(),
            self.broker.clone(),
            self.groups.draining.clone(),
        );
        let consumers = &self.groups.consumers;
        self.groups
            .essential(consumers, "listens to subscription changes", listening);
        let presence = Presence {
            instance: self.instance.clone(),
            store: self.store.clone(),
            broker: self.broker.clone(),
            gate: self.attempts.gate.clone(),
            blockage: self.attempts.blockage.clone(),
            metrics: self.metrics.clone(),
            postgres: readiness.check("postgres"),
            rabbitmq: readiness.check("rabbitmq"),
            readiness,
        };
        tasks.spawn(presence.run(stop.clone()));
    }

    /// What takes messages.
    fn consume(&self, queues: Queues) {
        let section = &self.section;
        let events = event_queues(self.shards);
        let sources = events.into_iter().map(|queue| Source {
            queue,
            prefetch: section.prefetch,
        });
        self.take(self.fan_out(&queues), sources.collect());
        let due = Due {
            attempts: self.attempts.clone(),
            starts: queues.starts,
            subscriptions: queues.subscriptions,
            recorder: queues.recorder,
            announcer: queues.announcer,
            graveyard: self.graveyard(),
            metrics: self.metrics.clone(),
        };
        self.take(
            due,
            vec![Source {
                queue: DUE_QUEUE.to_owned(),
                prefetch: section.due_prefetch,
            }],
        );
        let test_calls = TestCalls {
            attempts: self.attempts.clone(),
            store: self.store.clone(),
            keyring: self.keyring.clone(),
            publisher: self.broker.publisher(),
        };
        let prefetch = section.interactive_prefetch;
        self.take(
            test_calls,
            vec![Source {
                queue: INTERACTIVE_QUEUE.to_owned(),
                prefetch,
            }],
        );
    }

    fn graveyard(&self) -> Graveyard {
        Graveyard {
            publisher: self.broker.publisher(),
            store: self.store.clone(),
            draining: self.groups.draining.clone(),
        }
    }

    fn fan_out(&self, queues: &Queues) -> FanOut {
        FanOut {
            catalogue: Catalogue::new(self.store.clone()),
            subscriptions: queues.subscriptions.clone(),
            claims: queues.claims.clone(),
            attempts: self.attempts.clone(),
            recorder: queues.recorder.clone(),
            graveyard: self.graveyard(),
            metrics: self.metrics.clone(),
            stragglers: self.groups.work.clone(),
            hold: Duration::from_millis(self.section.hold_ms.into()),
            lease: self.section.lease(),
            alone: RwLock::new(()),
        }
    }

    fn take<H: Handle>(&self, handler: H, sources: Vec<Source>) {
        let (work, draining) = (self.groups.work.clone(), self.groups.draining.clone());
        let consuming = consume(
            Arc::new(handler),
            sources,
            self.broker.clone(),
            work,
            draining,
        );
        let consumers = &self.groups.consumers;
        self.groups
            .essential(consumers, "takes messages", consuming);
    }
}
