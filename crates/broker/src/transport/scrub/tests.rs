use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, parse_frame};
use lapin::types::{AMQPValue, FieldTable};

use super::*;

/// A frame of that kind on channel 1.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 0, 1], length.as_slice(), payload, &[0xce]].concat()
}

fn scrubbed(bytes: &[u8]) -> Vec<u8> {
    let mut scrubber = Scrubber::default();
    scrubber.feed(bytes);
    scrubber.ready().to_vec()
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [length.as_slice(), bytes].concat()
}

fn entry(name: &[u8], value: &[u8]) -> Vec<u8> {
    [short(name), value.to_vec()].concat()
}

/// A content header with a content type, headers and an app id.
fn header(content_type: &[u8], table: &[u8], app_id: &[u8]) -> Vec<u8> {
    let flags: u16 = (1 << 15) | (1 << 13) | (1 << 3);
    let payload = [
        [0, 60, 0, 0].as_slice(),
        &7u64.to_be_bytes(),
        &flags.to_be_bytes(),
        &short(content_type),
        &long(table),
        &short(app_id),
    ]
    .concat();
    frame(HEADER, &payload)
}

fn deliver(routing_key: &[u8]) -> Vec<u8> {
    let payload = [
        [0, 60, 0, 60].as_slice(),
        &short(b"tag"),
        &[0, 0, 0, 0, 0, 0, 0, 1, 0],
        &short(b"vellocity.events"),
        &short(routing_key),
    ]
    .concat();
    frame(METHOD, &payload)
}

/// What lapin's parser makes of it.
fn parsed(bytes: &[u8]) -> AMQPFrame {
    let (rest, frame) = parse_frame(bytes).expect("a frame that can be parsed");
    assert!(rest.is_empty());
    frame
}

fn parsed_header(bytes: &[u8]) -> AMQPContentHeader {
    match parsed(bytes) {
        AMQPFrame::Header(_, header) => header,
        other => panic!("{other:?}"),
    }
}

fn headers(bytes: &[u8]) -> FieldTable {
    let header = parsed_header(bytes);
    header.properties.headers().clone().unwrap()
}

#[test]
fn what_is_sound_passes_as_it_is_in_pieces_of_any_size() {
    let nested = entry(b"in", &[b"A".as_slice(), &long(b"VtxIabcd")].concat());
    let bad_inside = header(b"application/json", &nested, b"shop");
    let table = [
        entry(b"partner_id", &[b"S".as_slice(), &long(b"42")].concat()),
        entry(b"bytes", &[b"S".as_slice(), &long(&[0xff, 0xfe])].concat()),
        entry("é".as_bytes(), b"V"),
        entry(
            b"table",
            &[b"F".as_slice(), &long(&entry(b"a", b"t\x01"))].concat(),
        ),
    ]
    .concat();
    let sound = [
        deliver(b"listing.updated"),
        header(b"application/json", &table, "schön".as_bytes()),
        frame(3, &[0xff; 300]),
        frame(8, b""),
    ]
    .concat();
    for size in [1, 2, 7, 64, 4096] {
        let mut scrubber = Scrubber::default();
        let mut out = Vec::new();
        for piece in sound.chunks(size) {
            scrubber.feed(piece);
            let mut room = [0; 5];
            loop {
                let bytes = scrubber.hand_out(&mut room);
                if bytes == 0 {
                    break;
                }
                out.extend_from_slice(&room[..bytes]);
            }
        }
        assert_eq!(out, sound, "in pieces of {size}");
    }
    assert_eq!(headers(&scrubbed(&bad_inside)).inner().len(), 1);
}

#[test]
fn texts_that_are_no_utf_8_become_readable() {
    let bytes = deliver(&[b'a', 0xff, 0xc3, 0xa9, 0xe2, 0x82]);
    assert!(parse_frame(bytes.as_slice()).is_err());
    let text = format!("{:?}", parsed(&scrubbed(&bytes)));
    assert!(text.contains("\"a?é??\""), "{text}");

    let table = entry(&[0xff, b'n'], b"V");
    let header = parsed_header(&scrubbed(&header(&[0xfe], &table, &[0xff, 0xff])));
    let properties = header.properties;
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "?");
    assert_eq!(properties.app_id().as_ref().unwrap().as_str(), "??");
    let headers = properties.headers().as_ref().unwrap();
    assert_eq!(headers.inner().get("?n"), Some(&AMQPValue::Void));
}

#[test]
fn words_about_messages_become_readable() {
    let returned = [
        [0, 60, 0, 50, 1, 56].as_slice(),
        &short(b"NO_ROUTE"),
        &short(b"vellocity.events"),
        &short(&[0xff]),
    ]
    .concat();
    let closed = [
        [0, 20, 0, 40, 1, 148].as_slice(),
        &short(&[b'n', 0xff]),
        &[0; 4],
    ]
    .concat();
    for payload in [returned, closed] {
        let bytes = frame(METHOD, &payload);
        assert!(parse_frame(bytes.as_slice()).is_err());
        parsed(&scrubbed(&bytes));
    }
}

#[test]
fn headers_nested_too_deep_become_bytes() {
    for kind in [b'A', b'F'] {
        let mut value = b"V".to_vec();
        for _ in 0..5000 {
            let inner = if kind == b'F' {
                entry(b"", &value)
            } else {
                value
            };
            value = [&[kind], long(&inner).as_slice()].concat();
        }
        let bytes = header(b"x", &entry(b"deep", &value), b"x");
        let text = format!("{:?}", headers(&scrubbed(&bytes)));
        assert!(text.contains("ByteArray") && text.matches("Field").count() < 40);
    }
}

#[test]
fn a_table_that_makes_no_sense_becomes_one_that_does() {
    for table in [
        entry(b"a", b"Zwhatever this is"),
        entry(b"a", b"S\xff\xff\xff\xffx"),
        [9; 300].to_vec(),
        [9; 7].to_vec(),
        [9; 6].to_vec(),
        [9; 2].to_vec(),
    ] {
        let headers = headers(&scrubbed(&header(b"x", &table, b"x")));
        assert_eq!(headers.inner().len(), 1, "{table:?}");
        assert!(
            headers
                .inner()
                .keys()
                .all(|name| name.as_str().bytes().all(|b| b == b'?'))
        );
    }
    // Inside another one it harms nobody else.
    let inner = [b"F".as_slice(), &long(b"\x09nonsense")].concat();
    let table = [entry(b"bad", &inner), entry(b"good", b"V")].concat();
    let headers = headers(&scrubbed(&header(b"x", &table, b"x")));
    assert!(headers.contains_key("good") && headers.contains_key("bad"));
}

#[test]
fn what_is_no_amqp_is_passed_on_for_lapin_to_judge() {
    let mut scrubber = Scrubber::default();
    scrubber.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert!(scrubber.ready().starts_with(b"HTTP/1.1"));
    scrubber.feed(b"more");
    assert!(scrubber.ready().ends_with(b"more"));
}

#[test]
fn no_bytes_whatever_change_their_number_or_cause_a_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20_000 {
        let length = usize::try_from(random() % 64).unwrap();
        let mut payload: Vec<u8> = (0..length).map(|_| (random() % 256) as u8).collect();
        let kind = if random() % 2 == 0 { METHOD } else { HEADER };
        // Mostly something that is looked into.
        if let Some([a, b, c, d]) = payload.first_chunk_mut::<4>() {
            (*a, *b, *c, *d) = (0, 60, 0, 60);
        }
        let bytes = frame(kind, &payload);
        assert_eq!(scrubbed(&bytes).len(), bytes.len());
        // Half of these bytes are types of values or small lengths, so that some of it is nearly sense.
        let table: Vec<u8> = (0..2 + length)
            .map(|_| match random() % 4 {
                0 => b"VtbBsUuIifDLldTSxAF"[usize::try_from(random() % 19).unwrap()],
                1 => (random() % 8) as u8,
                2 => 0,
                _ => (random() % 256) as u8,
            })
            .collect();
        headers(&scrubbed(&header(&payload, &table, &payload)));
    }
}
