//! Partners: who they are, what they have paid for, and whether they are suspended.
//!
//! Reads and writes `partners`; suspending and resuming also write the partner's webhooks, as changes of their own.
//! Called by `hookctl`; dispatchers hear of it through the outbox.

use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::sql_types::Timestamptz;
use diesel::{
    ExpressionMethods as _, IntoSql as _, NullableExpressionMethods as _, OptionalExtension as _,
    QueryDsl as _, Queryable, Selectable, SelectableHelper as _,
};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use domain::id::PartnerId;
use domain::plan::Plan;

use crate::error::StoreError;
use crate::schema::partners;
use crate::webhook::change::{self, ChangeKind};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partner {
    pub id: PartnerId,
    pub name: String,
    pub plan: Plan,
    /// Suspended since then: matches nothing, may call nothing, and its pending deliveries are cancelled.
    pub suspended_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = partners)]
struct Row {
    id: i64,
    name: String,
    plan: String,
    suspended_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl TryFrom<Row> for Partner {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: PartnerId(row.id),
            plan: read_plan(row.id, &row.plan)?,
            name: row.name,
            suspended_at: row.suspended_at,
            created_at: row.created_at,
        })
    }
}

pub(crate) fn read_plan(partner: i64, text: &str) -> Result<Plan, StoreError> {
    text.parse()
        .map_err(|error| StoreError::Corrupt(format!("the plan of partner {partner}: {error}")))
}

/// # Errors
/// [`StoreError::Data`] when the name holds the character U+0000.
pub async fn create(
    conn: &mut AsyncPgConnection,
    name: &str,
    plan: Plan,
) -> Result<Partner, StoreError> {
    diesel::insert_into(partners::table)
        .values((partners::name.eq(name), partners::plan.eq(plan.name())))
        .returning(Row::as_returning())
        .get_result(conn)
        .await?
        .try_into()
}

/// Up to `limit` partners in the order of their ids, those after `after`.
///
/// # Errors
/// Those of any query.
pub async fn list(
    conn: &mut AsyncPgConnection,
    after: PartnerId,
    limit: u32,
) -> Result<Vec<Partner>, StoreError> {
    partners::table
        .filter(partners::id.gt(after.0))
        .order(partners::id)
        .limit(limit.into())
        .select(Row::as_select())
        .load(conn)
        .await?
        .into_iter()
        .map(TryInto::try_into)
        .collect()
}

/// # Errors
/// Those of any query.
pub async fn get(
    conn: &mut AsyncPgConnection,
    id: PartnerId,
) -> Result<Option<Partner>, StoreError> {
    partners::table
        .find(id.0)
        .select(Row::as_select())
        .first(conn)
        .await
        .optional()?
        .map(TryInto::try_into)
        .transpose()
}

/// Gives the partner another plan; `None` where there is no such partner. Webhooks beyond a smaller plan's limit stay.
///
/// # Errors
/// Those of any query.
pub async fn set_plan(
    conn: &mut AsyncPgConnection,
    id: PartnerId,
    plan: Plan,
) -> Result<Option<Partner>, StoreError> {
    diesel::update(partners::table.find(id.0))
        .set(partners::plan.eq(plan.name()))
        .returning(Row::as_returning())
        .get_result(conn)
        .await
        .optional()?
        .map(TryInto::try_into)
        .transpose()
}

/// Suspends the partner; `None` where there is no such partner. Each webhook gets a version that cancels what matched
/// before. Suspending twice changes nothing.
///
/// # Errors
/// Those of any query.
pub async fn suspend(
    conn: &mut AsyncPgConnection,
    id: PartnerId,
    actor: &str,
) -> Result<Option<Partner>, StoreError> {
    conn.transaction(async |conn| {
        let suspended = diesel::update(partners::table.find(id.0))
            .filter(partners::suspended_at.is_null())
            .set(partners::suspended_at.eq(now.into_sql::<Timestamptz>().nullable()))
            .execute(conn)
            .await?;
        if suspended > 0 {
            change::of_partner(conn, id, ChangeKind::Suspended, actor).await?;
        }
        get(conn, id).await
    })
    .await
}

/// Ends a suspension; `None` where there is no such partner. The days of failure after which a webhook is disabled
/// ([`crate::webhook::failing`]) count from now, since nothing was tried meanwhile. Resuming twice changes nothing.
///
/// # Errors
/// Those of any query.
pub async fn resume(
    conn: &mut AsyncPgConnection,
    id: PartnerId,
    actor: &str,
) -> Result<Option<Partner>, StoreError> {
    conn.transaction(async |conn| {
        let resumed = diesel::update(partners::table.find(id.0))
            .filter(partners::suspended_at.is_not_null())
            .set((
                partners::suspended_at.eq(None::<DateTime<Utc>>),
                partners::resumed_at.eq(now.into_sql::<Timestamptz>().nullable()),
            ))
            .execute(conn)
            .await?;
        if resumed > 0 {
            change::of_partner(conn, id, ChangeKind::Resumed, actor).await?;
        }
        get(conn, id).await
    })
    .await
}
