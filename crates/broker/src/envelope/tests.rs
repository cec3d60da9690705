use domain::rejection::RejectionCode as Code;
use domain::rejection::RejectionCode::{
    InvalidData, InvalidEnvelope, InvalidId, InvalidJson, InvalidTimestamp, PartnerMismatch,
    TooLarge, TypeMismatch, UnsupportedContentType,
};

use super::*;
use crate::delivery::HeaderValue;
use crate::message::Message;
use crate::topology::Exchange;

const GOOD: &str = r#"{"id":"evt_1","type":"listing.updated","partner_id":42,"timestamp":"2026-02-26T14:20:00Z","data":{"a":1}}"#;

fn message(body: impl Into<Bytes>) -> Message {
    Message::new(Exchange::Events, "listing.updated", body)
}

fn decoded(message: Message) -> Result<Event, Rejection> {
    let delivery = Delivery::detached("q", message).unwrap();
    let result = decode(&delivery);
    delivery.receipt.ack();
    result
}

fn code(message: Message) -> Code {
    match decoded(message) {
        Err(rejection) => {
            assert!(rejection.reason.ends_with('.'), "{}", rejection.reason);
            rejection.code
        }
        Ok(event) => panic!("{event:?}"),
    }
}

/// `GOOD` with one member replaced, or left out.
fn with(member: &str, value: Option<&str>) -> String {
    let mut text = String::from("{");
    let members = [
        ("id", r#""evt_1""#),
        ("type", r#""listing.updated""#),
        ("partner_id", "42"),
        ("timestamp", r#""2026-02-26T14:20:00Z""#),
        ("data", "{}"),
    ];
    for (name, usual) in members {
        let value = if name == member { value } else { Some(usual) };
        if let Some(value) = value {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&format!("\"{name}\":{value}"));
        }
    }
    text + "}"
}

#[test]
fn an_event_is_decoded_with_the_bytes_of_its_data() {
    let data = r#"{"b":1.0,"a":12345678901234567890, "s":"\u00e9", "x":"\ud800", "e":1e999}"#;
    let body = with("data", Some(&format!(" \n{data}\t ")));
    let event = decoded(message(body)).unwrap();
    assert_eq!(event.id.as_str(), "evt_1");
    assert_eq!(event.event_type.as_str(), "listing.updated");
    assert_eq!(event.partner_id, PartnerId(42));
    assert_eq!(event.data, data);
}

#[test]
fn unknown_members_are_ignored_and_white_space_does_not_matter() {
    let body = GOOD.replace(
        r#"{"id""#,
        " \n{ \"ordering_key\": \"x\", \"more\": [{\"id\": 1}], \"id\"",
    );
    assert!(decoded(message(body)).is_ok());
}

#[test]
fn escapes_in_strings_are_read() {
    let body = with("id", Some(r#""evt\u005f1""#));
    assert_eq!(decoded(message(body)).unwrap().id.as_str(), "evt_1");
    let body = GOOD.replace(r#""type""#, r#""t\u0079pe""#);
    assert!(decoded(message(body)).is_ok());
}

#[test]
fn json_may_be_declared_with_parameters_or_not_at_all() {
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON ;x",
        "",
    ] {
        let message = message(GOOD).content_type(content_type);
        assert!(decoded(message).is_ok(), "{content_type}");
    }
    assert!(decoded(message(GOOD)).is_ok());
}

#[test]
fn other_forms_are_refused_with_what_is_accepted() {
    for content_type in [
        "application/x-protobuf",
        "application/cloudevents+json",
        "text/plain",
        "application/jsonl",
    ] {
        let rejection = decoded(message(GOOD).content_type(content_type)).unwrap_err();
        assert_eq!(rejection.code, UnsupportedContentType, "{content_type}");
        assert!(rejection.reason.contains("application/json"));
    }
    for prefix in ["cloudEvents_", "cloudEvents:", "ce-"] {
        let message = message(GOOD)
            .content_type("application/json")
            .header(format!("{prefix}specversion"), "1.0");
        assert_eq!(code(message), UnsupportedContentType, "{prefix}");
    }
}

#[test]
fn each_fault_has_its_code() {
    let long_id = format!("\"{}\"", "x".repeat(65));
    let cases: &[(String, Code)] = &[
        (String::new(), InvalidJson),
        (GOOD[..GOOD.len() - 1].to_owned(), InvalidJson),
        (format!("{GOOD}x"), InvalidJson),
        (format!("\u{feff}{GOOD}"), InvalidJson),
        ("nonsense".to_owned(), InvalidJson),
        (with("data", Some("{'a':1}")), InvalidJson),
        (with("data", Some(r#"{"a":01}"#)), InvalidJson),
        (with("data", Some(r#"{"a":NaN}"#)), InvalidJson),
        ("null".to_owned(), InvalidEnvelope),
        ("7".to_owned(), InvalidEnvelope),
        ("\"{}\"".to_owned(), InvalidEnvelope),
        (
            r#"["evt_1","listing.updated",42,"2026-02-26T14:20:00Z",{}]"#.to_owned(),
            InvalidEnvelope,
        ),
        (
            GOOD.replace("{\"id\"", "{\"id\":\"evt_2\",\"id\""),
            InvalidEnvelope,
        ),
        ("{}".to_owned(), InvalidId),
        (with("id", None), InvalidId),
        (with("id", Some("null")), InvalidId),
        (with("id", Some("1")), InvalidId),
        (with("id", Some("\"\"")), InvalidId),
        (with("id", Some("\"a b\"")), InvalidId),
        (with("id", Some("\"é\"")), InvalidId),
        (with("id", Some(r#""a\u0000""#)), InvalidId),
        (with("id", Some(&long_id)), InvalidId),
        (with("type", None), InvalidEnvelope),
        (with("type", Some("null")), InvalidEnvelope),
        (with("type", Some("\"a..b\"")), InvalidEnvelope),
        (with("type", Some("\"listing.created\"")), TypeMismatch),
        (with("partner_id", None), InvalidEnvelope),
        (with("partner_id", Some("null")), InvalidEnvelope),
        (with("partner_id", Some("\"42\"")), InvalidEnvelope),
        (with("partner_id", Some("0")), InvalidEnvelope),
        (with("partner_id", Some("-1")), InvalidEnvelope),
        (with("partner_id", Some("42.0")), InvalidEnvelope),
        (with("partner_id", Some("4e1")), InvalidEnvelope),
        (
            with("partner_id", Some("9223372036854775808")),
            InvalidEnvelope,
        ),
        (with("timestamp", None), InvalidTimestamp),
        (with("timestamp", Some("1772115600")), InvalidTimestamp),
        (with("timestamp", Some("\"\"")), InvalidTimestamp),
        (with("timestamp", Some("\"2026-02-26\"")), InvalidTimestamp),
        (
            with("timestamp", Some("\"2026-02-26T14:20:00\"")),
            InvalidTimestamp,
        ),
        (
            with("timestamp", Some("\"2026-02-30T14:20:00Z\"")),
            InvalidTimestamp,
        ),
        (
            with("timestamp", Some("\"9999-12-31T23:59:59-01:00\"")),
            InvalidTimestamp,
        ),
        (with("data", None), InvalidData),
        (with("data", Some("null")), InvalidData),
        (with("data", Some("[]")), InvalidData),
        (with("data", Some("\"{}\"")), InvalidData),
    ];
    for (body, expected) in cases {
        assert_eq!(code(message(body.clone())), *expected, "{body}");
    }
}

#[test]
fn what_is_not_utf_8_is_not_json_even_in_a_member_that_nobody_reads() {
    let mut body = GOOD
        .replace("{\"id\"", "{\"more\":\"?\",\"id\"")
        .into_bytes();
    let at = body.iter().position(|b| *b == b'?').unwrap();
    body[at] = 0xff;
    assert_eq!(code(message(body)), InvalidJson);
}

#[test]
fn timestamps_become_utc_in_whole_seconds() {
    let cases = [
        ("2026-02-26T14:20:00Z", "2026-02-26T14:20:00Z"),
        ("2026-02-26T14:20:00.999999999Z", "2026-02-26T14:20:00Z"),
        ("2026-02-26T14:20:00+05:30", "2026-02-26T08:50:00Z"),
        ("2026-03-01T00:30:00.5+01:00", "2026-02-28T23:30:00Z"),
        ("2026-02-26t14:20:00z", "2026-02-26T14:20:00Z"),
        ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
    ];
    for (text, expected) in cases {
        let body = with("timestamp", Some(&format!("\"{text}\"")));
        let event = decoded(message(body)).unwrap();
        let shown = domain::event::format_timestamp(event.timestamp);
        assert_eq!(shown, expected, "{text}");
    }
}

#[test]
fn the_header_names_the_same_partner_in_any_type_or_is_missing() {
    let same: [HeaderValue; 3] = ["42".into(), 42.into(), "042".into()];
    for value in same {
        assert!(decoded(message(GOOD).header(PARTNER_HEADER, value)).is_ok());
    }
    let other: [HeaderValue; 5] = ["43".into(), 43.into(), "".into(), "x".into(), "42.0".into()];
    for value in other {
        let message = message(GOOD).header(PARTNER_HEADER, value.clone());
        assert_eq!(code(message), PartnerMismatch, "{value:?}");
    }
}

#[test]
fn size_and_nesting_have_limits() {
    let empty = with("data", Some("{\"x\":\"\"}")).len();
    let of_size = |bytes: usize| {
        let data = format!("{{\"x\":\"{}\"}}", "x".repeat(bytes - empty));
        with("data", Some(&data))
    };
    assert!(decoded(message(of_size(EVENT_BYTES_MAX))).is_ok());
    assert_eq!(code(message(of_size(EVENT_BYTES_MAX + 1))), TooLarge);

    let nested = |levels: usize| {
        let data = format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        with("data", Some(&data))
    };
    assert!(decoded(message(nested(128))).is_ok());
    assert_eq!(code(message(nested(129))), InvalidData);
    assert_eq!(code(message(nested(40_000))), InvalidData);
    let unread = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = GOOD.replace("{\"id\"", &format!("{{\"more\":{unread},\"id\""));
    assert!(decoded(message(body)).is_ok());
}

#[test]
fn reasons_do_not_repeat_the_data() {
    for body in [
        with("data", Some("\"hush-hush\"")),
        with("id", Some("\"hush hush\"")),
        with("data", Some("{\"hush-hush\":}")),
    ] {
        let rejection = decoded(message(body)).unwrap_err();
        assert!(!rejection.reason.contains("hush"), "{}", rejection.reason);
    }
}

#[test]
fn what_can_be_read_of_a_bad_event_is_read() {
    let peeked = |body: String| {
        let delivery = Delivery::detached("q", message(body)).unwrap();
        peek(&delivery)
    };
    let whole = Peek {
        id: Some("evt_1".parse().unwrap()),
        event_type: Some("listing.updated".parse().unwrap()),
        partner_id: Some(PartnerId(42)),
    };
    assert_eq!(peeked(with("data", Some("7"))), whole);
    assert_eq!(
        peeked(with("id", Some("7"))),
        Peek {
            id: None,
            ..whole.clone()
        }
    );
    assert_eq!(
        peeked(with("partner_id", Some("\"42\""))),
        Peek {
            partner_id: None,
            ..whole
        }
    );
    assert_eq!(peeked("nonsense".to_owned()), Peek::default());
}
