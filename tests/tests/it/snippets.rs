//! The public page's verification snippets, unchanged, say yes to what we deliver, and no to anything else.
//!
//! `tests/data/webhooks-api.txt` is the page; the snippets are cut out of it and run by Python, Node and PHP with a few
//! lines around them that read the captured delivery.

use std::path::PathBuf;
use std::process::Command;

use tests::receiver::Request;
use tests::{Process, Receiver, Stack};

const PAGE: &str = include_str!("../../data/webhooks-api.txt");

/// From a line of the page to the one before another.
fn cut(from: &str, before: &str) -> &'static str {
    let start = PAGE
        .find(from)
        .unwrap_or_else(|| panic!("{from:?} on the page"));
    let length = PAGE[start..]
        .find(before)
        .unwrap_or_else(|| panic!("{before:?} on the page"));
    &PAGE[start..start + length]
}

/// The snippet's function as it stands on the page, and lines of ours that call it with three arguments: the file of
/// the body, the signature, the secret. They print `yes` or `no`.
fn snippets() -> [(&'static str, &'static str, String); 3] {
    let python = cut("import hmac", "# In your webhook handler:");
    let node = cut("const crypto", "function verifyWebhook(string $payload");
    let php = cut("function verifyWebhook(string $payload", "\nUse Cases");
    [
        (
            "python3",
            "py",
            format!(
                "{python}\nimport sys\nbody, signature, secret = sys.argv[1:]\n\
                 print('yes' if verify_webhook(open(body, 'rb').read(), signature, secret) else 'no')\n"
            ),
        ),
        (
            "node",
            "js",
            format!(
                "{node}\nconst [body, signature, secret] = process.argv.slice(2);\n\
                 const payload = require(\"fs\").readFileSync(body);\n\
                 console.log(verifyWebhook(payload, signature, secret) ? \"yes\" : \"no\");\n"
            ),
        ),
        (
            "php",
            "php",
            format!(
                "<?php\n{php}\n[, $body, $signature, $secret] = $argv;\n\
                 echo verifyWebhook(file_get_contents($body), $signature, $secret) ? \"yes\" : \"no\", \"\\n\";\n"
            ),
        ),
    ]
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(tests::owner::new_name("vellocity_snippets"));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let file = self.0.join(name);
        std::fs::write(&file, content).unwrap();
        file
    }
}

#[tokio::test]
async fn the_pages_snippets_verify_a_captured_delivery() {
    let stack = Stack::start().await;
    let (partner, receiver) = (stack.partner().await, Receiver::start().await);
    let webhook = partner
        .create_webhook(&receiver.url("/"), &["listing.updated"])
        .await;
    let data = r#"{"listing_id":123,"b":1.0,"a":12345678901234567890,"s":"\u00e9 é 😀"}"#;
    let id = stack.publish(&partner, "listing.updated", data).await;
    let delivery = receiver.wait_for_delivery(&id).await;
    stack.until_delivery_is(&id, "delivered").await;

    let folder = Folder::new();
    for (program, extension, code) in snippets() {
        let script = folder.write(&format!("verify.{extension}"), code.as_bytes());
        let says = async |request: &Request, secret: &str| {
            let body = folder.write("body", &request.body);
            let mut command = Command::new(program);
            let signature = request.header("X-Vellocity-Signature").unwrap();
            command.arg(&script).arg(&body).arg(signature).arg(secret);
            let mut process = Process::spawn(program, command);
            let status = process.exited().await;
            assert!(status.success(), "{program}: {}", process.output());
            process.output()
        };
        assert_eq!(says(&delivery, &webhook.secret).await, "yes", "{program}");
        let mut forged = delivery.clone();
        forged.body[10] ^= 1;
        assert_eq!(says(&forged, &webhook.secret).await, "no", "{program}");
        assert_eq!(says(&delivery, &"0".repeat(64)).await, "no", "{program}");
    }
    stack.finish().await;
}
