//! API keys: made, listed and revoked. A key itself is shown once and kept nowhere.

use std::time::Duration;

use domain::api_key::ApiKey;
use domain::id::PartnerId;
use serde_json::{Value, json};
use store::api_key::{self, ApiKey as Row, NewApiKey, Scope};

use crate::answer::{Answer, Table, or_dash};
use crate::arguments::Key;
use crate::environment::Environment;
use crate::error::Error;
use crate::shown;

/// Keys listed at most.
const LIST_MAX: u32 = 10_000;

pub async fn run(command: Key, environment: &Environment) -> Result<Answer, Error> {
    match command {
        Key::Create {
            partner,
            scopes,
            expires,
        } => create(PartnerId(partner), scopes, expires, environment).await,
        Key::List { partner } => list(partner.map(PartnerId), environment).await,
        Key::Revoke { id } => revoke(id, environment).await,
    }
}

/// A key from the system's random source.
///
/// # Errors
/// When there is none.
pub fn random() -> Result<ApiKey, Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::Failed(format!("the system's random source failed: {error}")))?;
    Ok(ApiKey::from_random(bytes))
}

async fn create(
    partner_id: PartnerId,
    mut scopes: Vec<Scope>,
    expires_in: Option<Duration>,
    environment: &Environment,
) -> Result<Answer, Error> {
    if scopes.is_empty() {
        scopes = Scope::ALL.to_vec();
    }
    scopes.sort_unstable();
    scopes.dedup();
    let key = random()?;
    let new = NewApiKey {
        partner_id,
        prefix: key.prefix(),
        hash: &key.hash(),
        scopes: &scopes,
        expires_in,
    };
    let mut conn = environment.postgres().await?;
    let row = api_key::create(&mut conn, &new)
        .await?
        .ok_or_else(|| Error::NotFound(format!("partner {partner_id}")))?;
    let text = format!(
        "key {} of partner {partner_id}, scopes {}\nAPI key, shown only now: {}\n",
        row.id,
        words(&row.scopes),
        key.reveal()
    );
    let mut document = document(&row);
    if let Some(object) = document.as_object_mut() {
        object.insert("api_key".to_owned(), key.reveal().into());
    }
    Ok(Answer::new(document, text))
}

async fn list(partner: Option<PartnerId>, environment: &Environment) -> Result<Answer, Error> {
    let mut conn = environment.postgres().await?;
    let keys = api_key::list(&mut conn, partner, LIST_MAX).await?;
    let mut table = Table::new([
        "id",
        "partner",
        "begins with",
        "scopes",
        "expires",
        "revoked",
        "last used",
    ]);
    for key in &keys {
        table.row([
            key.id.to_string(),
            key.partner_id.to_string(),
            key.prefix.clone(),
            words(&key.scopes),
            or_dash(key.expires_at.map(shown::ms)),
            or_dash(key.revoked_at.map(shown::ms)),
            or_dash(key.last_used_at.map(shown::ms)),
        ]);
    }
    let document = Value::Array(keys.iter().map(document).collect());
    Ok(Answer::new(document, table.render_or("no keys")))
}

async fn revoke(id: i64, environment: &Environment) -> Result<Answer, Error> {
    let mut conn = environment.postgres().await?;
    let row = api_key::revoke(&mut conn, id)
        .await?
        .ok_or_else(|| Error::NotFound(format!("key {id}")))?;
    let text = format!("key {} of partner {} is revoked\n", row.id, row.partner_id);
    Ok(Answer::new(document(&row), text))
}

fn document(key: &Row) -> Value {
    json!({
        "key_id": key.id,
        "partner_id": key.partner_id,
        "prefix": key.prefix,
        "scopes": key.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>(),
        "created_at": shown::ms(key.created_at),
        "expires_at": key.expires_at.map(shown::ms),
        "revoked_at": key.revoked_at.map(shown::ms),
        "last_used_at": key.last_used_at.map(shown::ms),
    })
}

fn words(scopes: &[Scope]) -> String {
    let words: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
    words.join(",")
}
