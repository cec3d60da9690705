//! A webhook's signing secret.

use std::fmt;

/// 64 lower-case hexadecimal characters. It can't be printed by accident: `Debug` hides it and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret from 32 bytes of the system's random source.
    #[must_use]
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(hex::encode(bytes))
    }

    /// A secret that was stored before.
    ///
    /// # Errors
    /// When the text is not 64 lower-case hexadecimal characters.
    pub fn parse(text: String) -> Result<Self, InvalidSecret> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(hex) {
            Ok(Self(text))
        } else {
            Err(InvalidSecret)
        }
    }

    /// The characters, to sign with or to show once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a signing secret is 64 lower-case hexadecimal characters")]
pub struct InvalidSecret;
