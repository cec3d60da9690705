//! A partner's change of a webhook.

use diesel::sql_types::{Array, BigInt, Bool, Integer, Nullable, Text};
use diesel::{OptionalExtension as _, QueryableByName, sql_query};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use domain::event::EventType;
use domain::id::{PartnerId, WebhookId};
use domain::webhook::Description;
use domain::webhook_url::WebhookUrl;

use super::change::{self, Before, Change, ChangeKind, snapshot};
use super::{Webhook, get};
use crate::error::StoreError;

/// What to change; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    pub url: Option<WebhookUrl>,
    pub events: Option<Vec<EventType>>,
    /// `Some(None)` takes the description away.
    pub description: Option<Option<Description>>,
    pub active: Option<bool>,
}

/// The fields that a partner can set.
#[derive(Clone, PartialEq, Eq, QueryableByName)]
struct Fields {
    #[diesel(sql_type = Text)]
    url: String,
    #[diesel(sql_type = Array<Text>)]
    events: Vec<String>,
    #[diesel(sql_type = Nullable<Text>)]
    description: Option<String>,
    #[diesel(sql_type = Bool)]
    active: bool,
}

/// A row under lock.
#[derive(QueryableByName)]
struct Locked {
    #[diesel(embed)]
    fields: Fields,
    #[diesel(embed)]
    snapshot: Before,
}

impl Fields {
    fn with(&self, update: &Update) -> Self {
        let mut new = self.clone();
        if let Some(url) = &update.url {
            url.as_str().clone_into(&mut new.url);
        }
        if let Some(events) = &update.events {
            new.events = events.iter().map(ToString::to_string).collect();
        }
        if let Some(description) = &update.description {
            new.description = description.as_ref().map(|text| text.as_str().to_owned());
        }
        if let Some(active) = update.active {
            new.active = active;
        }
        new
    }
}

/// Changes a webhook of the partner and returns it as it is then; `None` where the partner has no such webhook. An
/// update that changes nothing makes no version. Making it inactive cancels what is pending; enabling it again, or
/// another URL, begins the count of failures and the breaker anew.
///
/// # Errors
/// Those of any query.
pub async fn update(
    conn: &mut AsyncPgConnection,
    partner: PartnerId,
    id: WebhookId,
    update: &Update,
    actor: &str,
) -> Result<Option<Webhook>, StoreError> {
    conn.transaction(async |conn| {
        let Some(locked) = lock(conn, partner, id).await? else {
            return Ok(None);
        };
        let old = locked.fields;
        let new = old.with(update);
        if new != old {
            let enabled = new.active && !old.active;
            let moved = new.url != old.url;
            let change = write(conn, id, new, locked.snapshot).await?;
            if enabled || moved {
                begin_anew(conn, id, change.version).await?;
            }
            change::record(conn, ChangeKind::Updated, &[change], actor).await?;
        }
        get(conn, partner, id).await
    })
    .await
}

async fn lock(
    conn: &mut AsyncPgConnection,
    partner: PartnerId,
    id: WebhookId,
) -> Result<Option<Locked>, StoreError> {
    let locked = sql_query(concat!(
        "SELECT w.url, w.events, w.description, w.active, ",
        snapshot!(),
        "::text AS before
         FROM webhooks w
         WHERE w.id = $1 AND w.partner_id = $2 AND w.deleted_at IS NULL
         FOR UPDATE"
    ))
    .bind::<BigInt, _>(id.0)
    .bind::<BigInt, _>(partner.0)
    .get_result(conn)
    .await
    .optional()?;
    Ok(locked)
}

/// Why it was disabled is forgotten once it is active again, and kept otherwise.
async fn write(
    conn: &mut AsyncPgConnection,
    id: WebhookId,
    new: Fields,
    Before { before }: Before,
) -> Result<Change, StoreError> {
    let change = sql_query(concat!(
        "UPDATE webhooks AS w
         SET url = $2, events = $3, description = $4, active = $5, version = w.version + 1,
             deactivated_version = CASE WHEN w.active AND NOT $5 THEN w.version + 1
                                        ELSE w.deactivated_version END,
             disabled_reason = CASE WHEN NOT $5 THEN w.disabled_reason END,
             disabled_at = CASE WHEN NOT $5 THEN w.disabled_at END,
             updated_at = now()
         WHERE w.id = $1
         RETURNING w.id AS webhook_id, w.partner_id, w.version, $6 AS before, ",
        snapshot!(),
        "::text AS after"
    ))
    .bind::<BigInt, _>(id.0)
    .bind::<Text, _>(new.url)
    .bind::<Array<Text>, _>(new.events)
    .bind::<Nullable<Text>, _>(new.description)
    .bind::<Bool, _>(new.active)
    .bind::<Text, _>(before)
    .get_result(conn)
    .await?;
    Ok(change)
}

/// Forgets the last success, the failures and the breakers; attempts sent by a version before `version` count no more.
/// By another dispatcher's clock a success at the URL before may be later than a failure at this one.
pub(super) async fn begin_anew(
    conn: &mut AsyncPgConnection,
    id: WebhookId,
    version: i32,
) -> Result<(), StoreError> {
    sql_query(
        "UPDATE webhook_health SET since_version = $2, last_success_at = NULL, failure_count = 0, failing_since = NULL
         WHERE webhook_id = $1",
    )
    .bind::<BigInt, _>(id.0)
    .bind::<Integer, _>(version)
    .execute(conn)
    .await?;
    sql_query("DELETE FROM webhook_breakers WHERE webhook_id = $1")
        .bind::<BigInt, _>(id.0)
        .execute(conn)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields {
            url: "https://a.example/".into(),
            events: vec!["a.b".into()],
            description: Some("first".into()),
            active: true,
        }
    }

    #[test]
    fn an_update_touches_what_it_names_only() {
        assert!(fields().with(&Update::default()) == fields());
        let update = Update {
            description: Some(None),
            active: Some(false),
            ..Update::default()
        };
        let new = fields().with(&update);
        assert_eq!((new.description.as_deref(), new.active), (None, false));
        assert_eq!((new.url, new.events), (fields().url, fields().events));
    }

    #[test]
    fn the_order_of_event_types_is_part_of_what_a_partner_sees() {
        let update = |names: [&str; 2]| Update {
            events: Some(names.map(|name| name.parse().unwrap()).to_vec()),
            ..Update::default()
        };
        let new = fields().with(&update(["x.y", "a.b"]));
        assert_eq!(new.events, ["x.y", "a.b"]);
        assert!(new.with(&update(["x.y", "a.b"])) == new);
    }
}
