//! Makes the topology, or makes sure that it is there.

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use super::{Argument, Step, steps};
use crate::config::Config;
use crate::error::BrokerError;

/// Declares what is missing. What is there already has to have the same arguments.
///
/// # Errors
/// When something is there in another form, may not be made, or the link breaks.
pub async fn declare(channel: &Channel, config: &Config) -> Result<(), BrokerError> {
    for step in steps(config) {
        declare_step(channel, &step)
            .await
            .map_err(|source| BrokerError::amqp(format!("declare {}", place(&step)), source))?;
    }
    Ok(())
}

/// Makes sure that every exchange and every queue is there. Bindings and arguments can't be asked for over AMQP.
///
/// # Errors
/// When one is missing, may not be looked at, or the link breaks.
pub async fn check(channel: &Channel, config: &Config) -> Result<(), BrokerError> {
    for step in steps(config) {
        check_step(channel, &step)
            .await
            .map_err(|source| BrokerError::amqp(format!("find {}", place(&step)), source))?;
    }
    Ok(())
}

async fn declare_step(channel: &Channel, step: &Step) -> lapin::Result<()> {
    match step {
        Step::Exchange {
            name,
            kind,
            arguments,
        } => {
            let options = ExchangeDeclareOptions {
                durable: true,
                ..Default::default()
            };
            let kind = exchange_kind(kind);
            let arguments = table(arguments);
            channel
                .exchange_declare((*name).into(), kind, options, arguments)
                .await
        }
        Step::Queue { name, arguments } => {
            let options = QueueDeclareOptions {
                durable: true,
                ..Default::default()
            };
            let name = name.as_str().into();
            let queue = channel.queue_declare(name, options, table(arguments));
            queue.await.map(|_| ())
        }
        Step::Binding {
            from,
            to,
            to_exchange,
            key,
        } => {
            let (to, from, key) = (to.as_str().into(), (*from).into(), key.as_str().into());
            let none = FieldTable::default();
            if *to_exchange {
                let options = ExchangeBindOptions::default();
                channel.exchange_bind(to, from, key, options, none).await
            } else {
                let options = QueueBindOptions::default();
                channel.queue_bind(to, from, key, options, none).await
            }
        }
    }
}

async fn check_step(channel: &Channel, step: &Step) -> lapin::Result<()> {
    match step {
        Step::Exchange { name, kind, .. } => {
            let options = ExchangeDeclareOptions {
                passive: true,
                ..Default::default()
            };
            let kind = exchange_kind(kind);
            let none = FieldTable::default();
            channel
                .exchange_declare((*name).into(), kind, options, none)
                .await
        }
        Step::Queue { name, .. } => passive(channel, name).await.map(|_| ()),
        Step::Binding { .. } => Ok(()),
    }
}

/// Looks at a queue without touching it.
pub(super) async fn passive(channel: &Channel, name: &str) -> lapin::Result<lapin::Queue> {
    let options = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    channel
        .queue_declare(name.into(), options, FieldTable::default())
        .await
}

fn exchange_kind(kind: &str) -> ExchangeKind {
    match kind {
        "direct" => ExchangeKind::Direct,
        "fanout" => ExchangeKind::Fanout,
        "topic" => ExchangeKind::Topic,
        other => ExchangeKind::Custom(other.to_owned()),
    }
}

fn table(arguments: &[(&'static str, Argument)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, argument) in arguments {
        let value = match argument {
            Argument::Text(text) => AMQPValue::LongString((*text).into()),
            Argument::Number(number) => AMQPValue::LongLongInt(*number),
        };
        table.insert((*name).into(), value);
    }
    table
}

fn place(step: &Step) -> String {
    match step {
        Step::Exchange { name, kind, .. } => format!("the {kind} exchange {name}"),
        Step::Queue { name, .. } => format!("the queue {name}"),
        Step::Binding { from, to, .. } => format!("the binding of {to} to {from}"),
    }
}
