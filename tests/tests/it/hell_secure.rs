//! A stack whose dispatcher trusts an authority of the test's and finds its host on loopback.

use tests::dns::NameServer;
use tests::receiver::Authority;

use super::hell_fixture::Hell;

/// The host of all certificates that are in order.
pub const HOST: &str = "hooks.example.com";

pub struct Secure {
    pub hell: Hell,
    pub authority: Authority,
    _names: NameServer,
}

impl Secure {
    pub async fn start() -> Self {
        let (authority, names) = (Authority::new("Ours"), NameServer::start().await);
        names.set(HOST, &["127.0.0.1"]);
        let hell = Hell::start_with(&[
            ("network.name_servers", &names.address().to_string()),
            (
                "dispatcher.deliver.extra_ca_file",
                authority.file().to_str().unwrap(),
            ),
        ])
        .await;
        Self {
            hell,
            authority,
            _names: names,
        }
    }
}
