//! The bare pipeline as a process, on a database and a virtual host of its own.

use std::process::Command;

use tests::load::{Behaviour, LoadReceiver, Target};
use tests::{Database, Process, Vhost, process};

use crate::run::{self, Load, Outcome, first_webhooks};
use crate::scenarios::Context;
use crate::settle::settle;
use crate::subscribers::EVENT_TYPE;

const QUEUE: &str = "bare.events";

pub struct Bare {
    process: Process,
    vhost: Vhost,
    _database: Database,
    webhooks: u32,
}

/// What comes before an event is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    None,
    /// One row, inserted without a wait for the disk.
    Simple,
}

impl Bare {
    /// Sends each event to so many webhooks of the receiver.
    pub async fn start(
        context: &Context,
        receiver: &LoadReceiver,
        webhooks: u32,
        claim: Claim,
    ) -> Self {
        let (database, vhost) = (Database::empty().await, Vhost::create().await);
        let mut command = Command::new(process::program("bare-pipeline"));
        command.args((claim == Claim::Simple).then_some("--claim"));
        command.args([vhost.url(), &database.url(), QUEUE]);
        command.args((0..webhooks).map(|webhook| receiver.url(Behaviour::Ok, webhook)));
        let process = Process::spawn("bare-pipeline", command);
        process.until_output("ready").await;
        settle(&database.sql().await, &context.folder).await;
        Self {
            process,
            vhost,
            _database: database,
            webhooks,
        }
    }

    pub fn target(&self, padding_bytes: usize) -> Target {
        Target {
            amqp_url: self.vhost.url().to_owned(),
            // Straight into its queue.
            exchange: String::new(),
            routing_key: QUEUE.to_owned(),
            event_type: EVENT_TYPE.to_owned(),
            padding_bytes,
        }
    }

    /// Publishes a load, waits until all of it has arrived, and says what came of it.
    pub async fn measure(&self, context: &Context, load: Load, receiver: &LoadReceiver) -> Outcome {
        let webhooks = first_webhooks(self.webhooks);
        let pids = [self.process.pid()];
        let published = run::publish(load, &webhooks, receiver, &pids, &context.folder).await;
        published.outcome(&receiver.take(), &webhooks)
    }
}
