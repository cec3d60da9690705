//! Makes what strangers wrote readable for a strict parser: pure, in place, without changing any length.
//!
//! AMQP frames are `type, channel, length, payload, 0xCE`. Strangers' texts stand in the methods that carry messages
//! or words about them, and in content headers. A byte that is no UTF-8 becomes `?`. A header that is nested too
//! deep becomes a byte array, and a table that makes no sense at all becomes one that has a single entry.

/// Bytes before a frame's payload.
const FRAME_HEAD: usize = 7;
/// Longest frame that is looked into. Negotiated frames have 128 KiB; beyond this it is no AMQP.
const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Deepest nesting of headers that is passed on. RabbitMQ's own `x-death` has two levels.
const DEPTH_MAX: usize = 16;

const METHOD: u8 = 1;
const HEADER: u8 = 2;

/// Takes bytes in as they come, and hands them out frame by frame.
#[derive(Default)]
pub(super) struct Scrubber {
    buffer: Vec<u8>,
    /// Bytes at the front that were handed out already.
    taken: usize,
    /// Bytes at the front that may be handed out.
    ready: usize,
    /// The stream makes no sense: whatever comes is passed on, and lapin says what is wrong.
    lost: bool,
}

impl Scrubber {
    /// Bytes that may be handed out.
    pub fn ready(&self) -> &[u8] {
        self.buffer.get(self.taken..self.ready).unwrap_or_default()
    }

    /// Copies as many of [`Self::ready`] as fit, and returns their number.
    pub fn hand_out(&mut self, to: &mut [u8]) -> usize {
        let bytes = self.ready().len().min(to.len());
        let (Some(to), Some(from)) = (to.get_mut(..bytes), self.ready().get(..bytes)) else {
            return 0;
        };
        to.copy_from_slice(from);
        self.taken += bytes;
        bytes
    }

    /// More bytes came in.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.ready -= self.taken;
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
        while !self.lost && self.scrub_next() {}
        if self.lost {
            self.ready = self.buffer.len();
        }
    }

    /// Scrubs the frame after the ready ones. `false`: it is not complete.
    fn scrub_next(&mut self) -> bool {
        let Some(rest) = self.buffer.get_mut(self.ready..) else {
            return false;
        };
        let Some((&mut [kind, _, _, a, b, c, d], rest)) =
            rest.split_first_chunk_mut::<FRAME_HEAD>()
        else {
            return false;
        };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            self.lost = true;
            return false;
        }
        // One more for the byte that ends a frame.
        if rest.len() <= length {
            return false;
        }
        let payload = rest.get_mut(..length).unwrap_or_default();
        match kind {
            METHOD => scrub_method(payload),
            HEADER => scrub_header(payload),
            _ => None,
        };
        self.ready += FRAME_HEAD + length + 1;
        true
    }
}

/// A walk over a payload. `None` anywhere means that the payload is too short for what it says it holds: then lapin
/// has to judge.
struct Walk<'a>(&'a mut [u8]);

impl<'a> Walk<'a> {
    fn skip(&mut self, bytes: usize) -> Option<&'a mut [u8]> {
        let (head, tail) = std::mem::take(&mut self.0).split_at_mut_checked(bytes)?;
        self.0 = tail;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.skip(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.skip(2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    }

    /// A part with its length in four bytes in front.
    fn long(&mut self) -> Option<&'a mut [u8]> {
        let bytes = self.skip(4)?;
        let length = u32::from_be_bytes(bytes.try_into().ok()?);
        self.skip(usize::try_from(length).ok()?)
    }

    fn short_string(&mut self) -> Option<()> {
        let length = self.byte()?;
        scrub_text(self.skip(length.into())?);
        Some(())
    }
}

fn scrub_method(payload: &mut [u8]) -> Option<()> {
    let mut walk = Walk(payload);
    match (walk.u16()?, walk.u16()?) {
        // basic.deliver: consumer tag; delivery tag, redelivered; exchange, routing key
        (60, 60) => {
            walk.short_string()?;
            walk.skip(9)?;
            walk.short_string()?;
            walk.short_string()
        }
        // basic.return: reply code; reply text, exchange, routing key
        (60, 50) => {
            walk.skip(2)?;
            walk.short_string()?;
            walk.short_string()?;
            walk.short_string()
        }
        // connection.close, channel.close: reply code; reply text, which may quote a stranger
        (10, 50) | (20, 40) => {
            walk.skip(2)?;
            walk.short_string()
        }
        _ => None,
    }
}

fn scrub_header(payload: &mut [u8]) -> Option<()> {
    enum Property {
        Text,
        Table,
        Fixed(usize),
    }
    use Property::{Fixed, Table, Text};
    // Content type and encoding; headers; delivery mode, priority; correlation id, reply to, expiration, message id;
    // timestamp; type, user id, app id, cluster id. The highest bit of the flags stands for the first.
    const PROPERTIES: [Property; 14] = [
        Text,
        Text,
        Table,
        Fixed(1),
        Fixed(1),
        Text,
        Text,
        Text,
        Text,
        Fixed(8),
        Text,
        Text,
        Text,
        Text,
    ];
    let mut walk = Walk(payload);
    // Class, weight, size of the body.
    walk.skip(12)?;
    let flags = walk.u16()?;
    for (i, property) in PROPERTIES.iter().enumerate() {
        if flags & (1 << (15 - i)) == 0 {
            continue;
        }
        match property {
            Text => walk.short_string()?,
            Table => scrub_table(walk.long()?, DEPTH_MAX),
            Fixed(bytes) => {
                walk.skip(*bytes)?;
            }
        }
    }
    Some(())
}

fn scrub_table(table: &mut [u8], depth: usize) {
    let mut walk = Walk(&mut *table);
    while !walk.0.is_empty() {
        if scrub_entry(&mut walk, depth).is_none() {
            replace_table(table);
            return;
        }
    }
}

fn scrub_entry(walk: &mut Walk<'_>, depth: usize) -> Option<()> {
    walk.short_string()?;
    scrub_value(walk, depth)
}

fn scrub_value(walk: &mut Walk<'_>, depth: usize) -> Option<()> {
    let kind = walk.skip(1)?.first_mut()?;
    match *kind {
        b'V' => Some(()),
        b't' | b'b' | b'B' => walk.skip(1).map(drop),
        b's' | b'U' | b'u' => walk.skip(2).map(drop),
        b'I' | b'i' | b'f' => walk.skip(4).map(drop),
        b'D' => walk.skip(5).map(drop),
        b'L' | b'l' | b'd' | b'T' => walk.skip(8).map(drop),
        b'S' | b'x' => walk.long().map(drop),
        // A byte array of the same length takes the place of what is nested too deep.
        b'A' | b'F' if depth == 0 => {
            *kind = b'x';
            walk.long().map(drop)
        }
        b'F' => {
            scrub_table(walk.long()?, depth - 1);
            Some(())
        }
        b'A' => {
            let mut items = Walk(walk.long()?);
            while !items.0.is_empty() {
                scrub_value(&mut items, depth - 1)?;
            }
            Some(())
        }
        _ => None,
    }
}

/// Fills a table with a single entry, named `?` or a row of them: a byte array, or where there is no room a void. One
/// byte alone can't be an entry; then lapin has to judge.
fn replace_table(table: &mut [u8]) {
    table.fill(b'?');
    match table {
        [name, _, kind, a, b, c, d, rest @ ..] => {
            *name = 1;
            *kind = b'x';
            // A frame is far shorter than that.
            [*a, *b, *c, *d] = u32::try_from(rest.len()).unwrap_or(u32::MAX).to_be_bytes();
        }
        [name, middle @ .., kind] => {
            *name = u8::try_from(middle.len()).unwrap_or(u8::MAX);
            *kind = b'V';
        }
        _ => {}
    }
}

/// Replaces each byte that is no UTF-8.
fn scrub_text(mut text: &mut [u8]) {
    while let Err(error) = std::str::from_utf8(text) {
        let start = error.valid_up_to();
        let bad = error.error_len().unwrap_or(text.len() - start);
        let Some(rest) = text.get_mut(start..) else {
            return;
        };
        let (bad, rest) = rest.split_at_mut(bad);
        bad.fill(b'?');
        text = rest;
    }
}

#[cfg(test)]
mod tests;
