//! A request as it came over the wire.

use std::time::Instant;

use chrono::{DateTime, Utc};
use serde_json::Value;

/// Everything that a receiver can know of a request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With the query, as it was sent.
    pub path: String,
    /// In the order and spelling of the wire.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// When its last byte was read.
    pub arrived: Instant,
    pub arrived_at: DateTime<Utc>,
    /// Counts the receiver's connections, so that a test can tell a kept one from a new one.
    pub connection: u16,
}

impl Request {
    /// The first header of that name, whatever its case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let of_name = |(own, _): &&(String, String)| own.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .find(of_name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// The header `X-Vellocity-Delivery`.
    ///
    /// # Panics
    /// Without one.
    #[must_use]
    pub fn delivery(&self) -> &str {
        self.header("X-Vellocity-Delivery").expect("a delivery id")
    }

    /// One line for messages of failed tests.
    #[must_use]
    pub fn summary(&self) -> String {
        let id = self.header("X-Vellocity-Delivery").unwrap_or("-");
        let event = self.header("X-Vellocity-Event").unwrap_or("-");
        format!("{} {} {event} {id}", self.method, self.path)
    }
}
