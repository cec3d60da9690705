//! The command line: every command, its options, and its help.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand, ValueEnum};
use domain::delivery::DeliveryStatus;
use domain::id::DeliveryId;
use domain::plan::Plan;
use store::api_key::Scope;

const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  failed
   2  the command line makes no sense
   3  there is no such partner, key, delivery or message
   4  not confirmed by RabbitMQ, or with --wait: rejected, not delivered, or not finished in time
  69  Postgres or RabbitMQ can't be reached

With --json, anywhere on the line, stdout is exactly one JSON document; on a failure it is
{\"error\": {\"code\": …, \"message\": …}}. Everything else goes to stderr.

`make up` writes .run/env, which sets the URLs:  . .run/env && hookctl status";

/// The command line of Vellocity webhooks, for product teams and operators.
#[derive(Debug, Parser)]
#[command(name = "hookctl", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub places: Places,
    #[command(subcommand)]
    pub command: Command,
}

/// Where everything is, and how to answer.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Places {
    /// Answer with one JSON document on stdout.
    #[arg(long, global = true)]
    pub json: bool,
    /// Postgres, as postgres://user:password@host:port/database.
    #[arg(
        long,
        global = true,
        env = "VELLOCITY_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,
    /// RabbitMQ, as amqp://user:password@host:port/vhost.
    #[arg(
        long,
        global = true,
        env = "VELLOCITY_AMQP_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub amqp_url: Option<String>,
    /// The management API, without a path; only `status` asks for it.
    #[arg(
        long,
        global = true,
        env = "VELLOCITY_API_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub api_url: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make, list, change, suspend and resume partners.
    #[command(subcommand)]
    Partner(Partner),
    /// Make, list and revoke API keys.
    #[command(subcommand)]
    Key(Key),
    /// Publish an event, and see what becomes of it.
    ///
    /// The event is persistent, mandatory, and confirmed by RabbitMQ before this ends. Nothing is checked beforehand: what
    /// the dispatcher makes of the data, or of an unknown type, shows with --wait.
    Publish(Publish),
    /// Look at deliveries and their attempts.
    #[command(subcommand)]
    Deliveries(Deliveries),
    /// Look at the catalogue of event types.
    #[command(subcommand)]
    EventTypes(EventTypes),
    /// Events that could not be used: list, send again, drop.
    #[command(subcommand)]
    Rejected(DeadLetters),
    /// Messages that nobody could handle: list, send again, drop.
    #[command(subcommand)]
    Dead(DeadLetters),
    /// Queue depths, the oldest that waits, and the services that are alive.
    #[command(
        after_help = "Examples:\n  hookctl status\n  hookctl status --json | jq '.services[].service'"
    )]
    Status(Status),
}

#[derive(Debug, Subcommand)]
pub enum Partner {
    /// Make a partner with a first API key, which is shown this once. The key may read and write.
    #[command(after_help = "Examples:
  hookctl partner create --name 'Acme Inc.' --plan Starter
  hookctl partner create --name Acme --plan Command+ --json | jq -r .api_key")]
    Create {
        /// What people call it, 1 to 255 characters.
        #[arg(long, value_parser = partner_name)]
        name: String,
        /// Starter, Accelerate, Command+ or Enterprise.
        #[arg(long, default_value_t = Plan::Starter)]
        plan: Plan,
    },
    /// List all partners.
    #[command(after_help = "Examples:\n  hookctl partner list")]
    List,
    /// Give a partner another plan. A smaller one stops only new webhooks.
    #[command(after_help = "Examples:\n  hookctl partner set-plan 1 Enterprise")]
    SetPlan {
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        id: i64,
        plan: Plan,
    },
    /// Suspend a partner: its keys get 403, its events match nothing, its pending deliveries are cancelled.
    #[command(after_help = "Examples:\n  hookctl partner suspend 1")]
    Suspend {
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        id: i64,
    },
    /// End a suspension.
    #[command(after_help = "Examples:\n  hookctl partner resume 1")]
    Resume {
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        id: i64,
    },
}

#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make an API key, which is shown this once.
    #[command(after_help = "Examples:
  hookctl key create --partner 1
  hookctl key create --partner 1 --scope read --expires 90d")]
    Create {
        #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
        partner: i64,
        /// read or write, several times if need be; both if left out.
        #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
        scopes: Vec<Scope>,
        /// How long it can be used, as in 24h or 90d; without end if left out.
        #[arg(long, value_name = "TIME", value_parser = crate::duration::key_life)]
        expires: Option<std::time::Duration>,
    },
    /// List API keys by the characters that they begin with.
    #[command(after_help = "Examples:\n  hookctl key list --partner 1")]
    List {
        /// Only this partner's.
        #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
        partner: Option<i64>,
    },
    /// Revoke an API key for good.
    #[command(after_help = "Examples:\n  hookctl key revoke 3")]
    Revoke {
        #[arg(value_name = "KEY_ID", value_parser = clap::value_parser!(i64).range(1..))]
        id: i64,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hookctl publish listing.updated --partner 1 --data '{\"listing_id\":123}'
  hookctl publish listing.updated --partner 1 --data @event.json --wait 10s
  generate | hookctl publish listing.created --partner 1 --data @- --json")]
pub struct Publish {
    /// The event type, and so the routing key.
    #[arg(value_name = "TYPE")]
    pub event_type: String,
    /// The partner whose webhooks are meant.
    #[arg(long, value_name = "ID", allow_negative_numbers = true)]
    pub partner: i64,
    /// The event's data, published byte for byte: as JSON, as @FILE, or as @- for stdin.
    #[arg(long, value_name = "JSON|@FILE", allow_hyphen_values = true)]
    pub data: OsString,
    /// The event's id, 1 to 64 characters; a new one if left out.
    #[arg(long, value_name = "EVENT_ID")]
    pub id: Option<String>,
    /// The form of the message.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub format: Format,
    /// Wait this long, as in 10s, for the event to be rejected, or for all of its deliveries to end.
    #[arg(long, value_name = "TIME", value_parser = crate::duration::wait)]
    pub wait: Option<std::time::Duration>,
    /// Go on with this W3C trace context instead of a new trace.
    #[arg(long, value_name = "TRACEPARENT")]
    pub traceparent: Option<String>,
}

/// The form of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Json,
    /// Not yet.
    Protobuf,
    /// Not yet.
    Cloudevents,
}

#[derive(Debug, Subcommand)]
pub enum Deliveries {
    /// List deliveries, newest first.
    #[command(after_help = "Examples:
  hookctl deliveries list --webhook 7 --status pending
  hookctl deliveries list --event evt_abc123 --json")]
    List {
        /// Only this webhook's.
        #[arg(long, value_name = "ID")]
        webhook: Option<i64>,
        /// Only those of the event with this id.
        #[arg(long, value_name = "EVENT_ID")]
        event: Option<String>,
        /// Only this partner's.
        #[arg(long, value_name = "ID")]
        partner: Option<i64>,
        /// pending, in_flight, delivered, exhausted or cancelled.
        #[arg(long)]
        status: Option<DeliveryStatus>,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show one delivery with all its attempts as they were recorded.
    #[command(after_help = "Examples:\n  hookctl deliveries show dlv_01jdqx6a8e3v5m1c9k2r7t4w0z")]
    Show {
        #[arg(value_name = "DELIVERY_ID")]
        id: DeliveryId,
    },
}

#[derive(Debug, Subcommand)]
pub enum EventTypes {
    /// List all event types with their descriptions, examples and schemas.
    #[command(
        after_help = "Examples:\n  hookctl event-types list\n  hookctl event-types list --json | jq '.[].name'"
    )]
    List,
}

#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List them, newest first, each with a code and a reason.
    #[command(
        after_help = "Examples:\n  hookctl rejected list\n  hookctl dead list --limit 10 --json"
    )]
    List {
        /// How many at most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Only those with a smaller id than this, to go on where a list ended.
        #[arg(long, value_name = "ID")]
        before: Option<i64>,
        /// With --json, show each message's body as well.
        #[arg(long)]
        bodies: bool,
    },
    /// Publish them again to where they came from, and forget each that RabbitMQ has confirmed.
    #[command(
        after_help = "Examples:\n  hookctl rejected requeue 12 13\n  hookctl dead requeue --all"
    )]
    Requeue(Which),
    /// Forget them for good.
    #[command(after_help = "Examples:\n  hookctl rejected drop 12\n  hookctl dead drop --all")]
    Drop(Which),
}

/// Ids as `list` shows them, or all that there are now.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    #[arg(value_name = "ID")]
    pub ids: Vec<i64>,
    /// All that are there when the command starts.
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct Status {
    /// How many shards events are spread over, as configured for the services.
    #[arg(long, env = "VELLOCITY__RABBITMQ__SHARDS", default_value_t = 8)]
    pub shards: u16,
}

#[cfg(test)]
mod tests;

fn partner_name(text: &str) -> Result<String, String> {
    let fits = (1..=255).contains(&text.chars().count());
    if fits && !text.trim().is_empty() && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 255 printable characters".to_owned())
    }
}
