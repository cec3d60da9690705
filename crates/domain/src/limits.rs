//! Every fixed limit of the public contract, in one place. What an operator may change is configuration instead.

/// Longest webhook URL, in characters.
pub const URL_CHARS_MAX: usize = 2048;
/// Longest description of a webhook, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 255;
/// Most event types that one webhook subscribes to.
pub const EVENTS_PER_WEBHOOK_MAX: usize = 50;
/// Largest request body that the public API reads, in bytes.
pub const API_BODY_BYTES_MAX: usize = 64 * 1024;
/// Largest event message, in bytes of the AMQP body.
pub const EVENT_BYTES_MAX: usize = 256 * 1024;
/// Deepest nesting of an event's `data`. Common JSON parsers give up at about this depth, receivers' too.
pub const EVENT_DATA_DEPTH_MAX: usize = 128;
/// Longest event id, in characters.
pub const EVENT_ID_CHARS_MAX: usize = 64;
/// Longest event type, in characters: an AMQP routing key holds 255 bytes.
pub const EVENT_TYPE_CHARS_MAX: usize = 128;
/// Bytes of a receiver's answer that are read at all.
pub const RESPONSE_READ_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the answer's body and of its headers kept for a failed attempt.
pub const FAILURE_KEPT_BYTES_MAX: usize = 4 * 1024;
/// Bytes of the answer's body and of its headers kept for a successful attempt.
pub const SUCCESS_KEPT_BYTES_MAX: usize = 256;
