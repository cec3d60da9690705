//! A virtual host of RabbitMQ of its own for each test, made and removed over the management plugin's HTTP.

use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::{client, ending, owner};

const PREFIX: &str = "test";

pub struct Vhost {
    name: String,
    amqp_url: String,
    management: Management,
    removed_at_the_end: bool,
}

impl Vhost {
    /// An empty one on the server of the test run.
    pub async fn create() -> Self {
        let management = Management::of_the_run();
        management.remove_orphans().await;
        let name = owner::new_name(PREFIX);
        management.create(&name).await;
        Self {
            amqp_url: format!(
                "{}/{name}",
                variable("TEST_RABBITMQ_URL").trim_end_matches('/')
            ),
            name,
            management,
            removed_at_the_end: true,
        }
    }

    /// The one that a private server came with; it goes with its server.
    #[must_use]
    pub fn of_private_server(amqp_url: &str, management_url: &str) -> Self {
        Self {
            name: "/".to_owned(),
            amqp_url: format!("{}/%2f", amqp_url.trim_end_matches('/')),
            management: Management::new(management_url),
            removed_at_the_end: false,
        }
    }

    /// `amqp://user:password@host:port/name`
    #[must_use]
    pub fn url(&self) -> &str {
        &self.amqp_url
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the management plugin says, such as `queues/VHOST` or `exchanges/VHOST/NAME`; numbers may be 5 s old.
    pub async fn ask(&self, path: &str) -> Value {
        let vhost = urlencoded(&self.name);
        let path = path.replace("VHOST", &vhost);
        let (status, body) = self.management.call(Method::GET, &path, None).await;
        assert!(status.is_success(), "GET {path}: {status} {body}");
        body
    }

    /// A call that changes something, such as a policy. `VHOST` in the path is this one's name.
    pub async fn change(&self, method: Method, path: &str, body: Value) {
        let (status, answer) = self.try_change(method, path, body).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
    }

    /// A call that may fail, such as one about a thing that may be gone already.
    pub async fn try_change(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let path = path.replace("VHOST", &urlencoded(&self.name));
        self.management.call(method, &path, Some(body)).await
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        if self.removed_at_the_end {
            ending::run(|| self.management.remove(&self.name));
        }
    }
}

/// The HTTP API of one server.
struct Management {
    base: Url,
    user: String,
    password: String,
}

impl Management {
    fn of_the_run() -> Self {
        Self::new(&variable("TEST_RABBITMQ_MANAGEMENT_URL"))
    }

    fn new(url: &str) -> Self {
        let mut base: Url = url.parse().unwrap();
        let user = base.username().to_owned();
        let password = base.password().unwrap_or_default().to_owned();
        base.set_username("").unwrap();
        base.set_password(None).unwrap();
        Self {
            base,
            user,
            password,
        }
    }

    async fn create(&self, name: &str) {
        let (status, answer) = self
            .call(Method::PUT, &format!("vhosts/{name}"), None)
            .await;
        assert!(status.is_success(), "vhost {name}: {status} {answer}");
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        let path = format!("permissions/{name}/{}", self.user);
        let (status, answer) = self.call(Method::PUT, &path, Some(all)).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
    }

    async fn remove(&self, name: &str) {
        let _gone = self
            .call(Method::DELETE, &format!("vhosts/{name}"), None)
            .await;
    }

    /// Once for this process.
    async fn remove_orphans(&self) {
        static DONE: OnceCell<()> = OnceCell::const_new();
        DONE.get_or_init(async || {
            let (_, vhosts) = self.call(Method::GET, "vhosts?columns=name", None).await;
            let names = vhosts.as_array().into_iter().flatten();
            for name in names.filter_map(|vhost| vhost["name"].as_str()) {
                if owner::is_orphan(PREFIX, name) {
                    self.remove(name).await;
                }
            }
        })
        .await;
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let url = format!("{}api/{path}", self.base);
        let mut request = client::http()
            .request(method, url)
            .basic_auth(&self.user, Some(&self.password));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("RabbitMQ's management answers");
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }
}

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests with `make test`"))
}

/// Names of ours need no encoding; the default virtual host does.
fn urlencoded(name: &str) -> String {
    name.replace('/', "%2F")
}
