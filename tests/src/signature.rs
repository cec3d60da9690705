//! Verifies deliveries as a partner would, from the public description and not with our own signing code.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::receiver::Request;

/// A signature's time may be this far from the clock, as Standard Webhooks has it.
const TOLERANCE: Duration = Duration::from_secs(300);

/// Checks both signatures of a request over the bytes that were received.
///
/// # Errors
/// With a sentence that says what is wrong.
pub fn verify(request: &Request, secret: &str) -> Result<(), String> {
    verify_page(request, secret)?;
    verify_standard(request, secret)
}

/// `X-Vellocity-Signature: sha256=HEX` over the body, with the secret's characters as the key.
///
/// # Errors
/// When the header is missing or wrong.
pub fn verify_page(request: &Request, secret: &str) -> Result<(), String> {
    let header = header(request, "X-Vellocity-Signature")?;
    let hex = header
        .strip_prefix("sha256=")
        .ok_or_else(|| format!("X-Vellocity-Signature is {header:?}"))?;
    let signature = hex::decode(hex).map_err(|e| format!("X-Vellocity-Signature: {e}"))?;
    mac(secret, &[&request.body])
        .verify_slice(&signature)
        .map_err(|_| "X-Vellocity-Signature does not match the body".to_owned())
}

/// `webhook-signature: v1,BASE64` over `id.timestamp.body`, with a fresh timestamp.
///
/// # Errors
/// When one of the three headers is missing or wrong.
pub fn verify_standard(request: &Request, secret: &str) -> Result<(), String> {
    let id = header(request, "webhook-id")?;
    let timestamp = header(request, "webhook-timestamp")?;
    let at: i64 = timestamp
        .parse()
        .map_err(|_| format!("webhook-timestamp is {timestamp:?}"))?;
    if (Utc::now().timestamp() - at).unsigned_abs() > TOLERANCE.as_secs() {
        return Err(format!("webhook-timestamp {timestamp} is not of now"));
    }
    let key = mac(
        secret,
        &[
            id.as_bytes(),
            b".",
            timestamp.as_bytes(),
            b".",
            &request.body,
        ],
    );
    let header = header(request, "webhook-signature")?;
    let right = header
        .split(' ')
        .filter_map(|signature| signature.strip_prefix("v1,"))
        .filter_map(|encoded| STANDARD.decode(encoded).ok())
        .any(|signature| key.clone().verify_slice(&signature).is_ok());
    if right {
        Ok(())
    } else {
        Err(format!("webhook-signature {header:?} does not match"))
    }
}

fn header<'a>(request: &'a Request, name: &str) -> Result<&'a str, String> {
    request
        .header(name)
        .ok_or_else(|| format!("there is no header {name}"))
}

fn mac(secret: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}
