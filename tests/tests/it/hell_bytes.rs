//! Answers that are too large, endless, or made of bytes that a database, a terminal or JSON could choke on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tests::receiver::RawReceiver;
use tests::{Answer, Receiver};

use super::hell_fixture::{Hell, Shown};

const NOT_HTTP: &str = "what came back is not a valid HTTP answer, or its headers are too large (64 KiB or 100 lines \
                        are read at most)";
/// A NUL, bytes that are never UTF-8, and a lone surrogate as some write it in UTF-8 all the same.
const ODD: &[u8] = b"a\0b\xff\xfe\xed\xa0\x80c";

/// The bytes that were kept, however they are shown.
fn bytes(shown: &Shown, name: &str) -> Vec<u8> {
    let attempt = shown.last_attempt();
    match &attempt[name] {
        Value::String(text) => text.clone().into_bytes(),
        _ => {
            let encoded = attempt[format!("{name}_base64")].as_str().unwrap();
            STANDARD.decode(encoded).unwrap()
        }
    }
}

#[tokio::test]
async fn of_ten_megabytes_the_beginning_is_kept_and_a_success_stays_one() {
    let hell = Hell::start().await;
    let receiver = Receiver::start().await;
    // Two bytes each, so that both cuts go through a character.
    let text = format!("x{}", "é".repeat(5 * 1024 * 1024));
    receiver.always_at("/ok", Answer::ok().body(text.clone()));
    receiver.always_at("/bad", Answer::status(500).body(text.clone()));
    let [ok, bad] = hell
        .send_to_each([&*receiver.url("/ok"), &*receiver.url("/bad")])
        .await;

    let shown = hell.delivered(&ok).await;
    shown.assert_delivered(200);
    assert_eq!(shown.last_attempt()["response_body"], text[..255]);
    let note = "  (of a body at most 256 bytes are kept)\n";
    assert!(shown.text.ends_with(note), "{}", shown.text);

    let shown = hell.attempted(&bad).await;
    shown.assert_failed(Some(500), "status", "answered 500 Internal Server Error");
    assert_eq!(shown.last_attempt()["response_body"], text[..4095]);
    let note = "  (of a body at most 4096 bytes are kept)\n";
    assert!(shown.text.ends_with(note), "{}", shown.text);
    hell.finish().await;
}

#[tokio::test]
async fn a_body_without_end_is_cut_off_and_a_success_all_the_same() {
    let hell = Hell::start().await;
    let receiver = RawReceiver::start(|_, mut peer| async move {
        peer.read_request().await?;
        peer.write(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        loop {
            peer.write(&[b'z'; 64 * 1024]).await?;
        }
    })
    .await;
    let delivery = hell.send(&receiver.url("/")).await;
    let shown = hell.delivered(&delivery).await;
    shown.assert_delivered(200);
    assert_eq!(bytes(&shown, "response_body"), [b'z'; 256]);
    hell.finish().await;
}

/// Sends a head that never ends.
async fn endless_head(piece: &'static [u8]) -> RawReceiver {
    RawReceiver::start(move |_, mut peer| async move {
        peer.read_request().await?;
        peer.write(b"HTTP/1.1 200 OK\r\nX-First: 1").await?;
        loop {
            peer.write(piece).await?;
        }
    })
    .await
}

#[tokio::test]
async fn endless_headers_are_not_read_to_their_end() {
    let hell = Hell::start().await;
    let (long, many) = (
        endless_head(b"xxxxxxxxxxx").await,
        endless_head(b"\r\nX-More: 1").await,
    );
    let [to_long, to_many] = hell.send_to_each([&*long.url("/"), &*many.url("/")]).await;
    for delivery in [to_long, to_many] {
        let shown = hell.attempted(&delivery).await;
        shown.assert_failed(None, "protocol", NOT_HTTP);
        assert_eq!(shown.steps(), ["connect"]);
        assert!(shown.last_attempt().get("response_headers").is_none());
    }
    hell.finish().await;
}

/// An answer whose reason phrase, header and body hold these bytes.
fn odd_answer(status: &str, phrase: &[u8], header: &[u8], body: &[u8]) -> Vec<u8> {
    let length = format!("\r\nContent-Length: {}\r\n\r\n", body.len());
    let parts: [&[u8]; 8] = [
        b"HTTP/1.1 ",
        status.as_bytes(),
        b" ",
        phrase,
        b"\r\nX-Odd: ",
        header,
        length.as_bytes(),
        body,
    ];
    parts.concat()
}

#[tokio::test]
async fn odd_bytes_are_kept_as_they_are_and_shown_without_harm() {
    let hell = Hell::start().await;
    let surrogate = br#"{"x":"\ud800"}"#;
    let no_nul = &ODD[3..];
    let failing = RawReceiver::closing_after(odd_answer("503", no_nul, no_nul, ODD)).await;
    let succeeding = RawReceiver::closing_after(odd_answer("200", no_nul, no_nul, ODD)).await;
    let escaped =
        RawReceiver::closing_after(odd_answer("500", b"OK", b"\"\\ud800\"", surrogate)).await;
    let urls = [&failing, &succeeding, &escaped].map(|receiver| receiver.url("/"));
    let deliveries = hell.send_to_each(urls.each_ref().map(String::as_str)).await;
    let [to_failing, to_succeeding, to_escaped] = &deliveries;
    let headers =
        |value: &[u8], length| [b"x-odd: ", value, b"\ncontent-length: ", length, b"\n"].concat();

    let shown = hell.attempted(to_failing).await;
    shown.assert_failed(Some(503), "status", "answered 503 Service Unavailable");
    let succeeded = hell.delivered(to_succeeding).await;
    succeeded.assert_delivered(200);
    for shown in [shown, succeeded] {
        assert_eq!(bytes(&shown, "response_body"), ODD);
        assert_eq!(bytes(&shown, "response_headers"), headers(no_nul, b"9"));
        let attempt = shown.last_attempt();
        assert!(attempt.get("response_body").is_none(), "{attempt}");
        let body = "  |\n  | a\u{fffd}b\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}c\n";
        assert!(shown.text.contains(body), "{}", shown.text);
    }

    // What is text is shown as text, escapes and all.
    let shown = hell.attempted(to_escaped).await;
    shown.assert_failed(Some(500), "status", "answered 500 Internal Server Error");
    let attempt = shown.last_attempt();
    assert_eq!(attempt["response_body"], r#"{"x":"\ud800"}"#);
    assert_eq!(
        bytes(&shown, "response_headers"),
        headers(b"\"\\ud800\"", b"14")
    );
    assert!(
        shown.text.contains("  | {\"x\":\"\\ud800\"}\n"),
        "{}",
        shown.text
    );
    hell.finish().await;
}

#[tokio::test]
async fn a_nul_where_http_has_none_is_told_and_harms_nobody_else() {
    let hell = Hell::start().await;
    let in_phrase = RawReceiver::closing_after(odd_answer("200", b"O\0K", b"x", b"ok")).await;
    let in_header = RawReceiver::closing_after(odd_answer("200", b"OK", b"x\0y", b"ok")).await;
    let in_text = RawReceiver::closing_after(odd_answer("500", b"No", b"x", b"\0text\0")).await;
    let healthy = Receiver::start().await;
    let urls = [
        in_phrase.url("/"),
        in_header.url("/"),
        in_text.url("/"),
        healthy.url("/"),
    ];
    let deliveries = hell.send_to_each(urls.each_ref().map(String::as_str)).await;
    let [to_phrase, to_header, to_text, to_healthy] = &deliveries;
    for delivery in [to_phrase, to_header] {
        let shown = hell.attempted(delivery).await;
        shown.assert_failed(None, "protocol", NOT_HTTP);
    }
    let shown = hell.attempted(to_text).await;
    shown.assert_failed(Some(500), "status", "answered 500 Internal Server Error");
    assert_eq!(shown.last_attempt()["response_body"], "\0text\0");
    // All four are rows of the same transaction.
    hell.delivered(to_healthy).await.assert_delivered(200);
    hell.finish().await;
}

#[tokio::test]
async fn an_answer_can_not_steer_the_terminal_of_whoever_reads_it() {
    let hell = Hell::start().await;
    let receiver = Receiver::start().await;
    let body = "\x1b]0;title\x07\x1b[31mred\u{9b}2J\r\nabc\u{202e}def\u{200b}\tend";
    receiver.always(
        Answer::status(302)
            .header("Location", "https://a.example/\u{202e}x")
            .body(body),
    );
    let delivery = hell.send(&receiver.url("/")).await;
    let shown = hell.attempted(&delivery).await;
    let sentence =
        "answered 302: redirects are not followed (Location: https://a.example/\u{fffd}x)";
    shown.assert_failed(Some(302), "status", sentence);
    assert_eq!(bytes(&shown, "response_body"), body.as_bytes());
    let end = "  | abc\u{fffd}def\u{fffd}\tend\n";
    assert!(shown.text.ends_with(end), "{}", shown.text);
    hell.finish().await;
}
