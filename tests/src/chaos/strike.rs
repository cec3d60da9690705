//! Does a fault to the fleet, and puts it right again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tokio_postgres::error::SqlState;

use super::Fault;
use super::clock::{Clock, Ms};
use super::ledger::Ledger;
use super::plan::Step;
use super::refusal::Refusal;
use crate::database::Sql;
use crate::fleet::{Fleet, Part};
use crate::process::Signal;
use crate::servers::Server;
use crate::service::Kind;

/// RabbitMQ 3.10 can lose a queue that it is killed right after the declaration of.
const QUEUES_SETTLE: Duration = Duration::from_secs(5);
/// Of RabbitMQ, as in its own configuration.
const WATERMARK: &str = "0.4";

/// What the strike was, and when.
#[derive(Clone, Debug)]
pub struct Struck {
    pub what: String,
    pub began: Ms,
    pub struck: Ms,
    pub ended: Ms,
}

pub struct Striker {
    fleet: Arc<Fleet>,
    ledger: Arc<Mutex<Ledger>>,
    clock: Clock,
    broker_up_since: Mutex<Instant>,
}

/// Whatever can be ended and started again.
enum Target {
    Part(Arc<Part>),
    Postgres(Arc<Server>),
    Rabbitmq(Arc<Server>),
}

impl Striker {
    #[must_use]
    pub fn new(fleet: Arc<Fleet>, ledger: Arc<Mutex<Ledger>>, clock: Clock) -> Self {
        Self {
            fleet,
            ledger,
            clock,
            broker_up_since: Mutex::new(Instant::now()),
        }
    }

    /// Strikes and puts right; what was ended has been started again, and need not be ready yet.
    ///
    /// # Errors
    /// What did not go as it must, such as an orderly end with an exit code.
    pub async fn strike(&self, step: &Step) -> Result<Struck, String> {
        match step.fault {
            Fault::KillDispatcher
            | Fault::KillRetry
            | Fault::KillApi
            | Fault::KillRabbitmq
            | Fault::KillPostgres => {
                self.kill(&[self.target(step.fault, step.number)], step)
                    .await
            }
            Fault::KillTwo => {
                let targets = step.pair.map(|fault| self.target(fault, step.number));
                self.kill(&targets, step).await
            }
            Fault::TermDispatcher => self.terminate(Fault::KillDispatcher, step).await,
            Fault::TermRetry => self.terminate(Fault::KillRetry, step).await,
            Fault::TermApi => self.terminate(Fault::KillApi, step).await,
            Fault::TermRabbitmq => self.terminate(Fault::KillRabbitmq, step).await,
            Fault::TermPostgres => self.terminate(Fault::KillPostgres, step).await,
            Fault::StopDispatcher => self.stand_still(step).await,
            Fault::MemoryAlarm => self.memory_alarm(step).await,
            Fault::NoConnections => self.take_connections(step).await,
            Fault::RefusePublishes => self.refuse_publishes(step).await,
            Fault::WipeRabbitmq => self.wipe_broker(step).await,
        }
    }

    fn target(&self, kill: Fault, number: usize) -> Target {
        let part = |kind| {
            let mut parts: Vec<_> = self.fleet.parts_of(kind).cloned().collect();
            Target::Part(parts.swap_remove(number % parts.len()))
        };
        match kill {
            Fault::KillDispatcher => part(Kind::Dispatcher),
            Fault::KillRetry => part(Kind::Retry),
            Fault::KillApi => part(Kind::ManagementApi),
            Fault::KillRabbitmq => Target::Rabbitmq(self.fleet.rabbitmq.clone()),
            other => {
                assert_eq!(other, Fault::KillPostgres, "only these are killed");
                Target::Postgres(self.fleet.postgres.clone())
            }
        }
    }

    async fn kill(&self, targets: &[Target], step: &Step) -> Result<Struck, String> {
        if targets
            .iter()
            .any(|target| matches!(target, Target::Rabbitmq(_)))
        {
            self.until_queues_are_settled().await;
        }
        let began = self.clock.now();
        join_all(targets.iter().map(Target::kill)).await;
        let struck = self.clock.now();
        sleep(step.lasts).await;
        self.start(targets).await;
        let names: Vec<_> = targets.iter().map(Target::name).collect();
        Ok(Struck {
            what: names.join(" and "),
            began,
            struck,
            ended: struck,
        })
    }

    async fn terminate(&self, kill: Fault, step: &Step) -> Result<Struck, String> {
        let target = self.target(kill, step.number);
        if matches!(target, Target::Rabbitmq(_)) {
            self.until_queues_are_settled().await;
        }
        let began = self.clock.now();
        target.terminate().await?;
        let struck = self.clock.now();
        sleep(step.lasts).await;
        let what = target.name();
        self.start(&[target]).await;
        Ok(Struck {
            what,
            began,
            struck,
            ended: struck,
        })
    }

    async fn start(&self, targets: &[Target]) {
        join_all(targets.iter().map(Target::start)).await;
        if targets
            .iter()
            .any(|target| matches!(target, Target::Rabbitmq(_)))
        {
            *self.broker_up_since.lock().unwrap() = Instant::now();
        }
    }

    async fn until_queues_are_settled(&self) {
        let since = *self.broker_up_since.lock().unwrap();
        sleep(QUEUES_SETTLE.saturating_sub(since.elapsed())).await;
    }

    async fn stand_still(&self, step: &Step) -> Result<Struck, String> {
        let Target::Part(part) = self.target(Fault::KillDispatcher, step.number) else {
            return Err("a dispatcher is a part".to_owned());
        };
        let began = self.clock.now();
        part.signal(Signal::Stop).await;
        let struck = self.clock.now();
        sleep(step.lasts).await;
        // Before it goes on: nothing that it sends then is received earlier.
        let ended = self.clock.now();
        part.signal(Signal::Cont).await;
        Ok(Struck {
            what: part.name().to_owned(),
            began,
            struck,
            ended,
        })
    }

    async fn memory_alarm(&self, step: &Step) -> Result<Struck, String> {
        let broker = &self.fleet.rabbitmq;
        let began = self.clock.now();
        broker
            .control(&["set_vm_memory_high_watermark", "0.00001"])
            .await;
        let struck = self.clock.now();
        sleep(step.lasts).await;
        broker
            .control(&["set_vm_memory_high_watermark", WATERMARK])
            .await;
        Ok(Struck {
            what: "RabbitMQ".to_owned(),
            began,
            struck,
            ended: self.clock.now(),
        })
    }

    /// Announcements all of the time, events half of it: with no event there would be no further announcement.
    async fn refuse_publishes(&self, step: &Step) -> Result<Struck, String> {
        let began = self.clock.now();
        let refusal = Refusal::begin(&self.fleet, &self.ledger).await;
        let struck = self.clock.now();
        let half = step.lasts / 2;
        let events = refusal.of_events(half).await;
        sleep(half).await;
        let refused = refusal.end().await;
        events?;
        Ok(Struck {
            what: format!("RabbitMQ, {}", refused?),
            began,
            struck,
            ended: self.clock.now(),
        })
    }

    /// Ends the connections that there are, and is quicker than the services with those that become free.
    async fn take_connections(&self, step: &Step) -> Result<Struck, String> {
        let url = self.fleet.database.url();
        let admin = Sql::connect(&url).await;
        let mut taken = Vec::new();
        let began = self.clock.now();
        let until = Instant::now() + step.lasts;
        let mut refused = 0;
        while Instant::now() < until {
            admin
                .execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE application_name <> '' AND pid <> pg_backend_pid()",
                )
                .await;
            let refusal = loop {
                match Sql::try_connect(&url).await {
                    Ok(connection) => taken.push(connection),
                    Err(refusal) => break refusal,
                }
            };
            refused += usize::from(refusal.code() == Some(&SqlState::TOO_MANY_CONNECTIONS));
            sleep(Duration::from_millis(20)).await;
        }
        let struck = self.clock.now();
        if refused == 0 {
            return Err("PostgreSQL never ran out of connections".to_owned());
        }
        let what = format!("PostgreSQL, {} connections taken", taken.len());
        drop(taken);
        Ok(Struck {
            what,
            began,
            struck,
            ended: self.clock.now(),
        })
    }

    async fn wipe_broker(&self, step: &Step) -> Result<Struck, String> {
        let broker = &self.fleet.rabbitmq;
        let began = self.clock.now();
        broker.kill().await;
        std::fs::remove_dir_all(broker.folder().join("data")).map_err(|error| error.to_string())?;
        let struck = self.clock.now();
        sleep(step.lasts).await;
        self.start(&[Target::Rabbitmq(broker.clone())]).await;
        Ok(Struck {
            what: "RabbitMQ's data".to_owned(),
            began,
            struck,
            ended: struck,
        })
    }
}

impl Target {
    fn name(&self) -> String {
        match self {
            Self::Part(part) => part.name().to_owned(),
            Self::Postgres(_) => "PostgreSQL".to_owned(),
            Self::Rabbitmq(_) => "RabbitMQ".to_owned(),
        }
    }

    async fn kill(&self) {
        match self {
            Self::Part(part) => part.kill().await,
            Self::Postgres(server) | Self::Rabbitmq(server) => server.kill().await,
        }
    }

    async fn terminate(&self) -> Result<(), String> {
        match self {
            Self::Part(part) => match part.terminate().await {
                Some(status) if status.success() => Ok(()),
                Some(status) => Err(format!("{} ended with {status}", part.name())),
                None => Err(format!("{} did not run", part.name())),
            },
            Self::Postgres(server) | Self::Rabbitmq(server) => {
                server.stop().await;
                Ok(())
            }
        }
    }

    async fn start(&self) {
        match self {
            Self::Part(part) => part.start().await,
            Self::Postgres(server) | Self::Rabbitmq(server) => server.start().await,
        }
    }
}
