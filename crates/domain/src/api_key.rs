//! A key for the public API: how one looks, what is kept of it, and how people recognise it. `hookctl` makes keys, the
//! management API reads them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// What every key begins with, so that people and secret scanners know what they have found.
const PREFIX: &str = "vel_";
const RANDOM_BYTES: usize = 32;
/// 32 bytes in base64.
const ENCODED_CHARS: usize = 43;
/// Characters by which a person recognises a key. Eight of them are random, which gives nothing away.
const SHOWN_CHARS: usize = PREFIX.len() + 8;

/// `vel_` and 43 characters of `A-Z a-z 0-9 _ -`. It can't be printed by accident: `Debug` hides it and there is no
/// `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// A new key from 32 bytes of the system's random source.
    #[must_use]
    pub fn from_random(bytes: [u8; RANDOM_BYTES]) -> Self {
        Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Reads what a client sent.
    ///
    /// # Errors
    /// When it does not look like a key.
    pub fn parse(text: &str) -> Result<Self, MalformedApiKey> {
        let encoded = text.strip_prefix(PREFIX).ok_or(MalformedApiKey)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if encoded.len() == ENCODED_CHARS && encoded.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(MalformedApiKey)
        }
    }

    /// The characters, to show once or to send.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The first characters, which are kept in plain text.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.0.get(..SHOWN_CHARS).unwrap_or_default()
    }

    /// SHA-256 of the whole key: all that is kept of it. Keys are random, so no salt and no slow hash are needed.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an API key is {PREFIX} and {ENCODED_CHARS} characters of A-Z, a-z, 0-9, _ and -")]
pub struct MalformedApiKey;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_can_be_read_again() {
        let key = ApiKey::from_random([0xfb; 32]);
        assert_eq!(ApiKey::parse(key.reveal()).as_ref(), Ok(&key));
        assert_eq!(key.reveal().len(), 47);
        assert!(key.reveal().starts_with(key.prefix()));
        assert_eq!(key.prefix().len(), 12);
        assert_ne!(key.hash(), ApiKey::from_random([0xfa; 32]).hash());
    }

    #[test]
    fn what_does_not_look_like_a_key_is_refused() {
        let good = ApiKey::from_random([7; 32]).reveal().to_owned();
        for bad in [
            "",
            "vel_",
            &good[..46],
            &format!("{good}A"),
            &good.replace("vel_", "VEL_"),
            &format!("vel_{}", "+".repeat(43)),
            &format!("vel_{}", "é".repeat(43)),
            &format!(" {good}"),
        ] {
            assert_eq!(ApiKey::parse(bad), Err(MalformedApiKey), "{bad}");
        }
    }

    #[test]
    fn a_key_is_not_printed_by_accident() {
        assert_eq!(format!("{:?}", ApiKey::from_random([1; 32])), "ApiKey(…)");
    }
}
