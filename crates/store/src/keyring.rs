//! Seals what must not be read by whoever gets at the database: signing secrets, and answers that held one.
//!
//! XChaCha20-Poly1305 with a random nonce. What is sealed is bound to a context (whose secret it is, and what for), so
//! that a row copied to another owner can't be opened. The key's id is stored beside it: a new key becomes the active
//! one, and the old ones go on opening what they sealed.

use std::collections::BTreeMap;
use std::fmt;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use domain::id::PartnerId;
use domain::secret::Secret;
use serde::Deserialize;

use crate::error::StoreError;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// Section `[secrets]` of the configuration.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Keys by their ids: 64 hexadecimal characters each. An id is stored with what its key sealed, so it stays.
    pub keys: BTreeMap<String, String>,
    /// Id of the key that seals; the others only open.
    pub active_key: String,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("keys", &self.keys.keys().collect::<Vec<_>>())
            .field("active_key", &self.active_key)
            .finish()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error(
        "secrets.keys holds no key; secrets need one, 64 hexadecimal characters (openssl rand -hex 32)"
    )]
    NoKey,
    #[error("secrets.keys.{0} is not 64 hexadecimal characters")]
    MalformedKey(String),
    #[error("secrets.active_key is {0:?}, which is not among secrets.keys")]
    UnknownActiveKey(String),
    /// The key was taken out of the configuration too early.
    #[error("it was sealed with the key {0:?}, which is not among secrets.keys")]
    UnknownKey(String),
    #[error("it was changed, or sealed for something else, or with another key of that id")]
    Unreadable,
    #[error("the system's random source failed: {0}")]
    Random(String),
}

impl From<KeyringError> for StoreError {
    fn from(error: KeyringError) -> Self {
        match error {
            KeyringError::Random(_) => Self::Unavailable(Box::new(error)),
            _ => Self::Corrupt(error.to_string()),
        }
    }
}

/// A sealed value, as two columns hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub key_id: String,
    /// The nonce, the ciphertext and its tag.
    pub bytes: Vec<u8>,
}

/// The keys, ready to use.
#[derive(Clone)]
pub struct Keyring {
    ciphers: BTreeMap<String, XChaCha20Poly1305>,
    active: (String, XChaCha20Poly1305),
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("keys", &self.ciphers.keys().collect::<Vec<_>>())
            .field("active", &self.active.0)
            .finish()
    }
}

impl Keyring {
    /// # Errors
    /// When there is no key, one is malformed, or the active one is none of them; the start is refused.
    pub fn new(config: &Config) -> Result<Self, KeyringError> {
        if config.keys.is_empty() {
            return Err(KeyringError::NoKey);
        }
        let mut ciphers = BTreeMap::new();
        for (id, text) in &config.keys {
            let mut key = [0; KEY_BYTES];
            hex::decode_to_slice(text, &mut key)
                .map_err(|_| KeyringError::MalformedKey(id.clone()))?;
            ciphers.insert(id.clone(), XChaCha20Poly1305::new(&key.into()));
        }
        let active = ciphers
            .get_key_value(&config.active_key)
            .map(|(id, cipher)| (id.clone(), cipher.clone()))
            .ok_or_else(|| KeyringError::UnknownActiveKey(config.active_key.clone()))?;
        Ok(Self { ciphers, active })
    }

    /// Seals `plain` with the active key, for `context` only.
    ///
    /// # Errors
    /// When the system's random source fails.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Sealed, KeyringError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|error| KeyringError::Random(error.to_string()))?;
        let (key_id, cipher) = &self.active;
        let payload = Payload {
            msg: plain,
            aad: context,
        };
        // Only a text of 256 GiB is too long for the cipher.
        let encrypted = cipher
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| KeyringError::Unreadable)?;
        let mut bytes = nonce.to_vec();
        bytes.extend_from_slice(&encrypted);
        Ok(Sealed {
            key_id: key_id.clone(),
            bytes,
        })
    }

    /// Opens what was sealed for the same `context`, with whichever key.
    ///
    /// # Errors
    /// [`KeyringError::UnknownKey`] or [`KeyringError::Unreadable`].
    pub fn open(&self, context: &[u8], sealed: &Sealed) -> Result<Vec<u8>, KeyringError> {
        let cipher = self
            .ciphers
            .get(&sealed.key_id)
            .ok_or_else(|| KeyringError::UnknownKey(sealed.key_id.clone()))?;
        let (nonce, encrypted) = sealed
            .bytes
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(KeyringError::Unreadable)?;
        let payload = Payload {
            msg: encrypted,
            aad: context,
        };
        cipher
            .decrypt(&XNonce::from(*nonce), payload)
            .map_err(|_| KeyringError::Unreadable)
    }

    /// Seals the signing secret of one of the partner's webhooks.
    ///
    /// # Errors
    /// Those of [`Keyring::seal`].
    pub fn seal_secret(&self, partner: PartnerId, secret: &Secret) -> Result<Sealed, KeyringError> {
        self.seal(&secret_context(partner), secret.reveal().as_bytes())
    }

    /// Opens the signing secret of one of the partner's webhooks.
    ///
    /// # Errors
    /// Those of [`Keyring::open`].
    pub fn open_secret(&self, partner: PartnerId, sealed: &Sealed) -> Result<Secret, KeyringError> {
        let plain = self.open(&secret_context(partner), sealed)?;
        String::from_utf8(plain)
            .ok()
            .and_then(|text| Secret::parse(text).ok())
            .ok_or(KeyringError::Unreadable)
    }
}

fn secret_context(partner: PartnerId) -> Vec<u8> {
    format!("webhook-secret/partner/{partner}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(keys: &[(&str, char)], active: &str) -> Config {
        Config {
            keys: keys
                .iter()
                .map(|(id, digit)| ((*id).to_owned(), digit.to_string().repeat(64)))
                .collect(),
            active_key: active.to_owned(),
        }
    }

    fn keyring(keys: &[(&str, char)], active: &str) -> Keyring {
        Keyring::new(&config(keys, active)).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_in_its_own_context_only() {
        let keyring = keyring(&[("a", '1')], "a");
        let sealed = keyring.seal(b"context", b"plain").unwrap();
        assert_eq!(sealed.key_id, "a");
        assert_eq!(keyring.open(b"context", &sealed).unwrap(), b"plain");
        assert_eq!(
            keyring.open(b"another", &sealed),
            Err(KeyringError::Unreadable)
        );
    }

    #[test]
    fn the_same_text_is_sealed_differently_each_time() {
        let keyring = keyring(&[("a", '1')], "a");
        assert_ne!(
            keyring.seal(b"", b"x").unwrap(),
            keyring.seal(b"", b"x").unwrap()
        );
    }

    #[test]
    fn an_old_key_still_opens_and_a_missing_or_another_one_does_not() {
        let sealed = keyring(&[("old", '1')], "old")
            .seal(b"c", b"plain")
            .unwrap();
        let rotated = keyring(&[("old", '1'), ("new", '2')], "new");
        assert_eq!(rotated.open(b"c", &sealed).unwrap(), b"plain");
        assert_eq!(rotated.seal(b"c", b"plain").unwrap().key_id, "new");
        assert_eq!(
            keyring(&[("new", '2')], "new").open(b"c", &sealed),
            Err(KeyringError::UnknownKey("old".into()))
        );
        assert_eq!(
            keyring(&[("old", '2')], "old").open(b"c", &sealed),
            Err(KeyringError::Unreadable)
        );
    }

    #[test]
    fn a_change_of_any_byte_is_noticed() {
        let keyring = keyring(&[("a", '1')], "a");
        let sealed = keyring.seal(b"c", b"plain").unwrap();
        for i in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[i] ^= 1;
            assert_eq!(keyring.open(b"c", &changed), Err(KeyringError::Unreadable));
        }
        let cut = Sealed {
            bytes: sealed.bytes[..10].to_vec(),
            ..sealed
        };
        assert_eq!(keyring.open(b"c", &cut), Err(KeyringError::Unreadable));
    }

    #[test]
    fn a_secret_belongs_to_its_partner() {
        let keyring = keyring(&[("a", '1')], "a");
        let secret = Secret::from_random([7; 32]);
        let sealed = keyring.seal_secret(PartnerId(1), &secret).unwrap();
        assert_eq!(keyring.open_secret(PartnerId(1), &sealed), Ok(secret));
        assert!(keyring.open_secret(PartnerId(2), &sealed).is_err());
    }

    #[test]
    fn a_keyring_without_a_good_active_key_is_refused() {
        assert_eq!(
            Keyring::new(&Config::default()).unwrap_err(),
            KeyringError::NoKey
        );
        assert_eq!(
            Keyring::new(&config(&[("a", '1')], "b")).unwrap_err(),
            KeyringError::UnknownActiveKey("b".into())
        );
        for bad in ["", "12", &"g".repeat(64), &"1".repeat(66)] {
            let mut config = config(&[("a", '1')], "a");
            config.keys.insert("z".into(), bad.to_owned());
            assert_eq!(
                Keyring::new(&config).unwrap_err(),
                KeyringError::MalformedKey("z".into()),
                "{bad}"
            );
        }
    }

    #[test]
    fn debug_output_shows_ids_and_no_keys() {
        let config = config(&[("a", '7')], "a");
        let keyring = Keyring::new(&config).unwrap();
        for shown in [format!("{config:?}"), format!("{keyring:?}")] {
            assert!(shown.contains("\"a\"") && !shown.contains("777"), "{shown}");
        }
    }
}
