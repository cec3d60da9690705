//! The catalogue of event types.
//!
//! Reads `event_types`. The management API lists it and checks subscriptions against it; dispatchers validate events.

use diesel::sql_types::{Array, Nullable, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use domain::event::EventType;
use serde_json::value::RawValue;

use crate::error::StoreError;

/// A kind of event that product teams publish and partners subscribe to.
#[derive(Clone, Debug)]
pub struct CatalogueEntry {
    pub name: EventType,
    pub description: String,
    /// The very text that was stored: its members' order is part of what partners see.
    pub payload_example: Option<Box<RawValue>>,
    /// JSON Schema of an event's `data`.
    pub schema: Box<RawValue>,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    description: String,
    #[diesel(sql_type = Nullable<Text>)]
    payload_example: Option<String>,
    #[diesel(sql_type = Text)]
    schema: String,
}

impl TryFrom<Row> for CatalogueEntry {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |cause: &dyn std::fmt::Display| {
            StoreError::Corrupt(format!("event type {:?}: {cause}", row.name))
        };
        Ok(Self {
            name: row.name.parse().map_err(|error| corrupt(&error))?,
            payload_example: row
                .payload_example
                .map(RawValue::from_string)
                .transpose()
                .map_err(|error| corrupt(&error))?,
            schema: RawValue::from_string(row.schema).map_err(|error| corrupt(&error))?,
            description: row.description,
        })
    }
}

/// The whole catalogue in the public order.
///
/// # Errors
/// Those of any query.
pub async fn list(conn: &mut AsyncPgConnection) -> Result<Vec<CatalogueEntry>, StoreError> {
    let rows: Vec<Row> = sql_query(
        "SELECT name, description, payload_example::text AS payload_example, schema::text AS schema
         FROM event_types
         ORDER BY position, name",
    )
    .load(conn)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// One type; `None` where the catalogue lacks it.
///
/// # Errors
/// Those of any query.
pub async fn get(
    conn: &mut AsyncPgConnection,
    name: &EventType,
) -> Result<Option<CatalogueEntry>, StoreError> {
    let rows: Vec<Row> = sql_query(
        "SELECT name, description, payload_example::text AS payload_example, schema::text AS schema
         FROM event_types
         WHERE name = $1",
    )
    .bind::<Text, _>(name.as_str())
    .load(conn)
    .await?;
    rows.into_iter().next().map(TryInto::try_into).transpose()
}

#[derive(QueryableByName)]
struct NameRow {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Those of `names` that the catalogue lacks, in their own order.
///
/// # Errors
/// Those of any query.
pub async fn unknown(
    conn: &mut AsyncPgConnection,
    names: &[EventType],
) -> Result<Vec<EventType>, StoreError> {
    let known: Vec<NameRow> = sql_query("SELECT name FROM event_types WHERE name = ANY($1)")
        .bind::<Array<Text>, _>(names.iter().map(EventType::as_str).collect::<Vec<_>>())
        .load(conn)
        .await?;
    Ok(names
        .iter()
        .filter(|name| known.iter().all(|row| row.name != name.as_str()))
        .cloned()
        .collect())
}
