//! What the dispatcher must know of a partner's webhooks, to match events and to sign what it sends.
//!
//! Reads `partners` and `webhooks`. The dispatcher's cache calls it for partners that it does not hold; a subscription
//! change announced on the broker makes it ask again.

use std::collections::HashMap;

use diesel::sql_types::{Array, BigInt, Binary, Bool, Integer, Nullable, Text};
use diesel::{OptionalExtension as _, QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::id::{PartnerId, WebhookId};
use domain::signature::Signer;
use domain::webhook::{HealthVersion, Subscription};
use domain::webhook_url::WebhookUrl;

use crate::error::StoreError;
use crate::keyring::{Keyring, Sealed};
use crate::prepared::Prepare as _;

/// All that matching needs to know about a partner that exists.
#[derive(Clone, Debug)]
pub struct PartnerSubscriptions {
    /// A suspended partner's events match nothing.
    pub suspended: bool,
    /// Those that are active, in the order of their ids.
    pub subscriptions: Vec<Subscription>,
    /// Active webhooks that can't be used because a stored value can't be read: a secret whose key is missing, for
    /// one. They are an error of ours and must be seen, but the partner's others go on.
    pub unreadable: Vec<Unreadable>,
}

/// A webhook that can't be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub webhook_id: WebhookId,
    pub version: i32,
    pub health_version: HealthVersion,
    /// What it subscribes to, so that an event for it is not taken for one without a receiver.
    pub events: Vec<String>,
    pub reason: String,
}

/// The columns of a webhook that make a subscription.
#[derive(Clone, Debug, QueryableByName)]
pub struct Stored {
    #[diesel(sql_type = BigInt)]
    pub webhook_id: i64,
    #[diesel(sql_type = BigInt)]
    pub partner_id: i64,
    #[diesel(sql_type = Integer)]
    pub version: i32,
    #[diesel(sql_type = Integer)]
    pub health_version: i32,
    #[diesel(sql_type = Text)]
    pub url: String,
    #[diesel(sql_type = Array<Text>)]
    pub events: Vec<String>,
    #[diesel(sql_type = Nullable<Binary>)]
    pub secret: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Text>)]
    pub sealing_key_id: Option<String>,
}

/// Makes a subscription of stored columns.
///
/// # Errors
/// [`StoreError::Corrupt`] when the URL or an event type is malformed, or the secret is missing or can't be opened.
pub fn read(keyring: &Keyring, stored: Stored) -> Result<Subscription, StoreError> {
    let partner_id = PartnerId(stored.partner_id);
    let corrupt = |what: &str, cause: &dyn std::fmt::Display| {
        StoreError::Corrupt(format!("{what} of webhook {}: {cause}", stored.webhook_id))
    };
    let sealed = match (stored.secret, stored.sealing_key_id) {
        (Some(bytes), Some(key_id)) => Sealed { key_id, bytes },
        _ => return Err(corrupt("the secret", &"it was wiped")),
    };
    let secret = keyring
        .open_secret(partner_id, &sealed)
        .map_err(|error| corrupt("the secret", &error))?;
    let events = stored
        .events
        .into_iter()
        .map(TryInto::try_into)
        .collect::<Result<_, _>>()
        .map_err(|error| corrupt("an event type", &error))?;
    Ok(Subscription {
        webhook_id: WebhookId(stored.webhook_id),
        partner_id,
        version: stored.version,
        health_version: HealthVersion(stored.health_version),
        url: WebhookUrl::parse_stored(&stored.url).map_err(|error| corrupt("the URL", &error))?,
        events,
        signer: Signer::new(&secret),
    })
}

#[derive(QueryableByName)]
struct PartnerRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Bool)]
    suspended: bool,
}

/// The subscriptions of one partner, or `None` where there is no such partner.
///
/// # Errors
/// Those of any query.
pub async fn load(
    conn: &mut AsyncPgConnection,
    keyring: &Keyring,
    partner: PartnerId,
) -> Result<Option<PartnerSubscriptions>, StoreError> {
    Ok(load_many(conn, keyring, &[partner]).await?.remove(&partner))
}

/// The subscriptions of several partners. Those that don't exist are missing in the answer.
///
/// # Errors
/// Those of any query.
pub async fn load_many(
    conn: &mut AsyncPgConnection,
    keyring: &Keyring,
    partners: &[PartnerId],
) -> Result<HashMap<PartnerId, PartnerSubscriptions>, StoreError> {
    let ids: Vec<i64> = partners.iter().map(|partner| partner.0).collect();
    // Partners first: a webhook made between the two statements is found, one of an unseen partner is not.
    let partners: Vec<PartnerRow> = sql_query(
        "SELECT id, suspended_at IS NOT NULL AS suspended FROM partners WHERE id = ANY($1)",
    )
    .bind::<Array<BigInt>, _>(&ids)
    .prepared()
    .load(conn)
    .await?;
    let webhooks: Vec<Stored> = sql_query(
        "SELECT w.id AS webhook_id, w.partner_id, w.version, w.url, w.events, w.secret, w.sealing_key_id,
             coalesce((SELECT h.since_version FROM webhook_health AS h WHERE h.webhook_id = w.id), 1) AS health_version
         FROM webhooks AS w
         WHERE w.partner_id = ANY($1) AND w.active AND w.deleted_at IS NULL
         ORDER BY w.id",
    )
    .bind::<Array<BigInt>, _>(&ids)
    .prepared().load(conn)
    .await?;
    let mut found: HashMap<PartnerId, PartnerSubscriptions> = partners
        .into_iter()
        .map(|row| {
            let subscriptions = PartnerSubscriptions {
                suspended: row.suspended,
                subscriptions: Vec::new(),
                unreadable: Vec::new(),
            };
            (PartnerId(row.id), subscriptions)
        })
        .collect();
    for stored in webhooks {
        let Some(partner) = found.get_mut(&PartnerId(stored.partner_id)) else {
            continue;
        };
        let (webhook_id, events) = (WebhookId(stored.webhook_id), stored.events.clone());
        let (version, health_version) = (stored.version, HealthVersion(stored.health_version));
        match read(keyring, stored) {
            Ok(subscription) => partner.subscriptions.push(subscription),
            Err(error) => partner.unreadable.push(Unreadable {
                webhook_id,
                version,
                health_version,
                events,
                reason: error.to_string(),
            }),
        }
    }
    Ok(found)
}

/// One webhook of the partner, active or not, for a test call; `None` where the partner has no such webhook.
///
/// # Errors
/// [`StoreError::Corrupt`] when it can't be used, and those of any query.
pub async fn load_one(
    conn: &mut AsyncPgConnection,
    keyring: &Keyring,
    partner: PartnerId,
    webhook: WebhookId,
) -> Result<Option<Subscription>, StoreError> {
    sql_query(
        "SELECT w.id AS webhook_id, w.partner_id, w.version, w.url, w.events, w.secret, w.sealing_key_id,
             coalesce((SELECT h.since_version FROM webhook_health AS h WHERE h.webhook_id = w.id), 1) AS health_version
         FROM webhooks AS w
         WHERE w.id = $1 AND w.partner_id = $2 AND w.deleted_at IS NULL",
    )
    .bind::<BigInt, _>(webhook.0)
    .bind::<BigInt, _>(partner.0)
    .get_result::<Stored>(conn)
    .await
    .optional()?
    .map(|stored| read(keyring, stored))
    .transpose()
}
