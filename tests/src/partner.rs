//! A partner of the test, and what it does over REST.

use domain::api_key::ApiKey;
use domain::id::PartnerId;
use domain::plan::Plan;
use rand::Rng as _;
use serde_json::{Value, json};
use store::api_key::{NewApiKey, Scope};

use crate::client::{Client, Response};

/// A partner with a key that may do everything.
#[derive(Clone, Debug)]
pub struct Partner {
    pub id: i64,
    pub key: String,
    /// Calls the API with that key.
    pub api: Client,
}

/// A webhook that was created over REST.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub id: i64,
    /// Shown once: 64 hexadecimal characters.
    pub secret: String,
}

impl Partner {
    /// Makes one behind the API's back. `origin` is where the API is.
    pub async fn create(store: &store::Store, origin: &str, plan: Plan) -> Self {
        let mut conn = store.get().await.unwrap();
        let partner = store::partner::create(&mut conn, "Test partner", plan)
            .await
            .unwrap();
        drop(conn);
        let key = new_key(store, partner.id, &Scope::ALL).await;
        Self {
            id: partner.id.0,
            api: Client::new(origin, Some(&key)),
            key,
        }
    }

    /// The path of all webhooks.
    pub const WEBHOOKS: &str = "/partners/webhooks";

    /// The path of one webhook.
    #[must_use]
    pub fn webhook_path(id: i64) -> String {
        format!("{}/{id}", Self::WEBHOOKS)
    }

    /// Creates an active webhook.
    ///
    /// # Panics
    /// When the API refuses.
    pub async fn create_webhook(&self, url: &str, events: &[&str]) -> Webhook {
        self.create_webhook_from(&json!({"url": url, "events": events}))
            .await
    }

    /// Creates a webhook from any body.
    ///
    /// # Panics
    /// When the API refuses.
    pub async fn create_webhook_from(&self, body: &Value) -> Webhook {
        let created = self.api.post(Self::WEBHOOKS, body).await.expect(201).body;
        Webhook {
            id: created["data"]["id"].as_i64().expect("an id"),
            secret: created["meta"]["secret"]
                .as_str()
                .expect("a secret")
                .to_owned(),
        }
    }

    /// Deletes a webhook.
    ///
    /// # Panics
    /// When the API refuses.
    pub async fn delete_webhook(&self, webhook: &Webhook) {
        self.api
            .delete(&Self::webhook_path(webhook.id))
            .await
            .expect(204);
    }

    /// Changes a webhook; returns its attributes.
    ///
    /// # Panics
    /// When the API refuses.
    pub async fn update_webhook(&self, webhook: &Webhook, body: &Value) -> Value {
        let path = Self::webhook_path(webhook.id);
        let answer = self.api.patch(&path, body).await.expect(200);
        answer.body["data"]["attributes"].clone()
    }

    /// A webhook's attributes.
    ///
    /// # Panics
    /// When the API does not know it.
    pub async fn show_webhook(&self, webhook: &Webhook) -> Value {
        let path = Self::webhook_path(webhook.id);
        let answer = self.api.get(&path).await.expect(200);
        answer.body["data"]["attributes"].clone()
    }

    /// The test call.
    pub async fn test_webhook(&self, webhook: &Webhook) -> Response {
        let body = json!({"webhook_id": webhook.id});
        self.api.post("/partners/webhooks/test", &body).await
    }
}

/// A further key for a partner.
pub async fn new_key(store: &store::Store, partner_id: PartnerId, scopes: &[Scope]) -> String {
    let key = ApiKey::from_random(rand::rng().random());
    let mut conn = store.get().await.unwrap();
    let new = NewApiKey {
        partner_id,
        prefix: key.prefix(),
        hash: &key.hash(),
        scopes,
        expires_in: None,
    };
    let stored = store::api_key::create(&mut conn, &new).await.unwrap();
    assert!(stored.is_some(), "there is no partner {partner_id}");
    key.reveal().to_owned()
}
