use chrono::DateTime;

use super::*;

fn failed() -> AttemptView {
    AttemptView {
        number: 2,
        started_at: DateTime::from_timestamp_millis(1_700_000_000_123).unwrap(),
        sent_version: 1,
        response_code: Some(503),
        error_kind: Some("status".to_owned()),
        error: Some("the receiver answered 503".to_owned()),
        response_headers: Some(b"server: x\n".to_vec()),
        response_body: Some(vec![0xff, 0x1b]),
        dns_us: None,
        connect_us: Some(1500),
        tls_us: None,
        first_byte_us: Some(20_000),
        total_us: 21_250,
        reused_connection: false,
    }
}

#[test]
fn an_attempt_is_shown_as_it_was_recorded() {
    let shown = attempt(&failed());
    assert_eq!(
        shown,
        json!({
            "number": 2,
            "started_at": "2023-11-14T22:13:20.123Z",
            "webhook_version": 1,
            "response_code": 503,
            "error_kind": "status",
            "error": "the receiver answered 503",
            "reused_connection": false,
            "times_ms": {"dns": null, "connect": 1.5, "tls": null, "first_byte": 20.0, "total": 21.25},
            "response_headers": "server: x\n",
            "response_body_base64": "/xs=",
        })
    );
}

#[test]
fn what_a_receiver_sent_can_not_steer_a_terminal() {
    let text = attempt_text(&failed());
    assert!(text.contains("the receiver answered 503"), "{text}");
    assert!(
        text.contains("connect 1.5 ms, first byte 20.0 ms, total 21.2 ms"),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "{text}");
    let hostile = AttemptView {
        response_body: Some("a\tb\u{202e}c\u{200b}d".into()),
        ..failed()
    };
    let text = attempt_text(&hostile);
    assert!(
        text.ends_with("  |\n  | a\tb\u{fffd}c\u{fffd}d\n"),
        "{text}"
    );
}

#[test]
fn a_body_that_may_have_been_cut_is_shown_with_a_note() {
    let text = |body_bytes: usize, failed_with: Option<&str>| {
        attempt_text(&AttemptView {
            response_body: Some(vec![b'x'; body_bytes]),
            error: failed_with.map(str::to_owned),
            ..failed()
        })
    };
    let note = |kept| format!("  (of a body at most {kept} bytes are kept)\n");
    assert!(text(4096, Some("no")).ends_with(&note(4096)));
    assert!(text(4093, Some("no")).ends_with(&note(4096)));
    assert!(text(4092, Some("no")).ends_with("xxx\n"));
    assert!(text(256, None).ends_with(&note(256)));
    assert!(text(100, None).ends_with("xxx\n"));
}

fn to_webhook(state: &str) -> DeliveryView {
    DeliveryView {
        id: uuid::Uuid::nil(),
        event_id: "evt_1".to_owned(),
        event_type: "listing.updated".to_owned(),
        partner_id: 1,
        webhook_id: 7,
        webhook_version: 2,
        webhook_state: state.to_owned(),
        status: "cancelled".to_owned(),
        turn: 1,
        attempts: 1,
        parkings: 0,
        park_reason: None,
        next_attempt_at: None,
        expires_at: DateTime::UNIX_EPOCH,
        origin: None,
        traceparent: None,
        created_at: DateTime::UNIX_EPOCH,
        finished_at: None,
        response_code: None,
        error_kind: None,
        error: None,
    }
}

#[test]
fn what_became_of_the_webhook_is_told_where_nothing_is_sent_to_it() {
    let told = |state| webhook(&to_webhook(state));
    assert_eq!(told("active"), "7, matched in version 2");
    for (state, words) in [
        ("gone", "disabled: its receiver answered 410 Gone"),
        ("failing", "disabled: nothing but failures for days"),
        ("disabled", "disabled"),
        ("deleted", "deleted"),
        ("suspended", "suspended with its partner"),
    ] {
        assert_eq!(told(state), format!("7, matched in version 2, now {words}"));
    }
}
