//! RabbitMQ as a product team sees it: publish with a confirm, declare nothing. Also what a test wants to know of a
//! queue at this moment, which the management plugin tells with a delay.

use std::collections::BTreeMap;

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

/// Where product teams publish.
pub const EVENTS: &str = "vellocity.events";

/// One connection with a channel in confirm mode.
pub struct Amqp {
    connection: Connection,
    channel: Channel,
}

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Message {
    pub exchange: String,
    pub routing_key: String,
    pub content_type: Option<String>,
    /// Headers that are strings.
    pub headers: BTreeMap<String, String>,
    pub app_id: Option<String>,
    pub body: Vec<u8>,
}

/// What became of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    Confirmed,
    /// Confirmed, but no queue wanted it.
    Returned,
    Refused,
}

/// How full a queue is, at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Messages that wait; those that a consumer has are not among them.
    pub ready: u32,
    pub consumers: u32,
}

impl Message {
    /// An event as a careful team publishes it. `data` goes out as it is.
    #[must_use]
    pub fn event(id: &str, event_type: &str, partner_id: i64, data: &str) -> Self {
        Self::event_at(id, event_type, partner_id, "2026-02-26T14:20:00Z", data)
    }

    #[must_use]
    pub fn event_at(
        id: &str,
        event_type: &str,
        partner_id: i64,
        timestamp: &str,
        data: &str,
    ) -> Self {
        let body = format!(
            r#"{{"id":"{id}","type":"{event_type}","partner_id":{partner_id},"timestamp":"{timestamp}","data":{data}}}"#
        );
        Self::raw(event_type, body).header("partner_id", &partner_id.to_string())
    }

    /// Any bytes under any key, as JSON without headers.
    #[must_use]
    pub fn raw(routing_key: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            exchange: EVENTS.to_owned(),
            routing_key: routing_key.to_owned(),
            content_type: Some("application/json".to_owned()),
            headers: BTreeMap::new(),
            app_id: Some("tests".to_owned()),
            body: body.into(),
        }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    #[must_use]
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    #[must_use]
    pub fn content_type(mut self, content_type: Option<&str>) -> Self {
        self.content_type = content_type.map(ToOwned::to_owned);
        self
    }

    fn properties(&self) -> BasicProperties {
        const PERSISTENT: u8 = 2;
        let mut headers = FieldTable::default();
        for (name, value) in &self.headers {
            let value = AMQPValue::LongString(LongString::from(value.as_str()));
            headers.insert(short(name), value);
        }
        let mut properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers);
        if let Some(content_type) = &self.content_type {
            properties = properties.with_content_type(short(content_type));
        }
        if let Some(app_id) = &self.app_id {
            properties = properties.with_app_id(short(app_id));
        }
        properties
    }
}

impl Amqp {
    /// # Panics
    /// When RabbitMQ does not let us in.
    pub async fn connect(url: &str) -> Self {
        Self::try_connect(url).await.expect("RabbitMQ answers")
    }

    /// # Errors
    /// When RabbitMQ does not let us in.
    pub async fn try_connect(url: &str) -> Result<Self, lapin::Error> {
        runtime::exit::install_crypto_provider();
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            connection,
            channel,
        })
    }

    /// Publishes, mandatory and persistent, and waits for the confirm.
    ///
    /// # Panics
    /// When the broker does not confirm it, or has no queue for it.
    pub async fn publish(&self, message: &Message) {
        let confirm = self.try_publish(message).await.unwrap();
        assert_eq!(confirm, Confirm::Confirmed, "{message:?}");
    }

    /// # Errors
    /// When the connection or the exchange is gone.
    pub async fn try_publish(&self, message: &Message) -> Result<Confirm, lapin::Error> {
        self.begin_publish(message).await?.await
    }

    /// [`Self::try_publish`] for whoever has many on their way: returns when it is sent, and the rest is the confirm.
    ///
    /// # Errors
    /// When the connection or the exchange is gone.
    pub async fn begin_publish(
        &self,
        message: &Message,
    ) -> Result<impl Future<Output = Result<Confirm, lapin::Error>> + Send + use<>, lapin::Error>
    {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let sent = self
            .channel
            .basic_publish(
                short(&message.exchange),
                short(&message.routing_key),
                options,
                &message.body,
                message.properties(),
            )
            .await?;
        Ok(async {
            Ok(match sent.await? {
                Confirmation::Ack(None) => Confirm::Confirmed,
                Confirmation::Ack(Some(_)) => Confirm::Returned,
                Confirmation::Nack(_) | Confirmation::NotRequested => Confirm::Refused,
            })
        })
    }

    /// # Panics
    /// When there is no such queue.
    pub async fn depth(&self, queue: &str) -> Depth {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        // A question about a queue that is missing closes the channel.
        let channel = self.connection.create_channel().await.unwrap();
        let found = channel
            .queue_declare(short(queue), options, FieldTable::default())
            .await
            .unwrap_or_else(|error| panic!("{queue}: {error}"));
        let depth = Depth {
            ready: found.message_count(),
            consumers: found.consumer_count(),
        };
        let _closed = channel.close(200, ShortString::from("done")).await;
        depth
    }

    /// Takes the oldest message out of a queue: its body.
    pub async fn take(&self, queue: &str) -> Option<Vec<u8>> {
        let got = self
            .channel
            .basic_get(short(queue), BasicGetOptions::default())
            .await
            .unwrap()?;
        got.delivery.ack(BasicAckOptions::default()).await.unwrap();
        Some(got.delivery.data)
    }

    /// The connection, for what is not offered here.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub async fn close(self) {
        let _closed = self.connection.close(200, ShortString::from("done")).await;
    }
}

fn short(text: &str) -> ShortString {
    ShortString::try_new(text).expect("at most 255 bytes")
}
