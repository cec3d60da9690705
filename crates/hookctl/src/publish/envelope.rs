//! The JSON around an event's data.

use chrono::{DateTime, Utc};
use domain::event::format_timestamp;

/// `data` stands in it byte for byte, whatever it is.
#[must_use]
pub fn write(
    id: &str,
    event_type: &str,
    partner_id: i64,
    timestamp: DateTime<Utc>,
    data: &[u8],
) -> Vec<u8> {
    // A JSON string is how `Value` displays one.
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let mut body = format!(
        r#"{{"id":{},"type":{},"partner_id":{partner_id},"timestamp":"{}","data":"#,
        text(id),
        text(event_type),
        format_timestamp(timestamp)
    )
    .into_bytes();
    body.extend_from_slice(data);
    body.push(b'}');
    body
}

#[cfg(test)]
mod tests {
    use broker::{Delivery, Exchange, Message};

    use super::*;

    #[test]
    fn data_goes_out_byte_for_byte_and_reads_as_an_event() {
        let data = r#"{"b":1.0,"a":12345678901234567890,"s":"\u00e9"}"#;
        let at = DateTime::from_timestamp(1_772_115_600, 0).unwrap();
        let body = write("evt_1", "listing.updated", 42, at, data.as_bytes());
        assert_eq!(
            String::from_utf8(body.clone()).unwrap(),
            format!(
                r#"{{"id":"evt_1","type":"listing.updated","partner_id":42,"timestamp":"2026-02-26T14:20:00Z","data":{data}}}"#
            )
        );
        let message = Message::new(Exchange::Events, "listing.updated", body);
        let delivery = Delivery::detached("q", message).unwrap();
        let event = broker::envelope::decode(&delivery).unwrap();
        assert_eq!(event.data, data.as_bytes());
        assert_eq!(event.timestamp, at);
        delivery.receipt.ack();
    }

    #[test]
    fn what_is_no_event_goes_out_as_well() {
        let body = write("a\"b", "t", -1, DateTime::UNIX_EPOCH, b"\xff{");
        assert!(body.starts_with(br#"{"id":"a\"b","type":"t","partner_id":-1,"#));
        assert!(body.ends_with(b"\"data\":\xff{}"));
    }
}
