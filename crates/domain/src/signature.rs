//! Signatures of a delivery: the page's own, and the Standard Webhooks one, both with the same key.
//!
//! The key is the secret's 64 characters as ASCII bytes, so `whsec_` + base64 of them is the same key for a
//! Standard Webhooks library.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::secret::Secret;

/// A keyed signer. Keying costs two hash blocks, so it is done once a webhook and cloned for each signature.
#[derive(Clone)]
pub struct Signer(Hmac<Sha256>);

impl Signer {
    #[must_use]
    pub fn new(secret: &Secret) -> Self {
        Self::from_key(secret.reveal().as_bytes())
    }

    fn from_key(key: &[u8]) -> Self {
        match Hmac::new_from_slice(key) {
            Ok(mac) => Self(mac),
            Err(_) => unreachable!("HMAC takes keys of any length"),
        }
    }

    /// Value of `X-Vellocity-Signature`: `sha256=` and the lower-case hex HMAC-SHA256 of the body.
    #[must_use]
    pub fn sign_body(&self, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(body);
        format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
    }

    /// Value of `webhook-signature`: `v1,` and the base64 HMAC-SHA256 of `id.timestamp.body`.
    #[must_use]
    pub fn sign_standard(&self, id: &str, timestamp_s: i64, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp_s.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(whsec: &str) -> Signer {
        Signer::from_key(&STANDARD.decode(whsec).unwrap())
    }

    #[test]
    fn agrees_with_githubs_documented_example() {
        let signer = Signer::from_key(b"It's a Secret to Everybody");
        assert_eq!(
            signer.sign_body(b"Hello, World!"),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }

    #[test]
    fn agrees_with_the_vectors_of_the_standard_webhooks_libraries() {
        let rust = decoded("C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        assert_eq!(
            rust.sign_standard("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
        assert_eq!(
            rust.sign_body(body),
            "sha256=83cc2611bccec7432b7f4733ec80ac7f9ad46f3f29bdcc391d40214349bc71cf"
        );
        let go = decoded("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        assert_eq!(
            go.sign_standard(
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn the_key_is_the_secrets_characters_and_not_its_bytes() {
        let secret = Secret::from_random([0xab; 32]);
        let by_characters = Signer::from_key("ab".repeat(32).as_bytes());
        assert_eq!(
            Signer::new(&secret).sign_body(b"x"),
            by_characters.sign_body(b"x")
        );
    }
}
