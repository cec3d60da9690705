//! What the statements of `record` return of a delivery.

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use domain::delivery::DeliveryStatus;
use domain::id::{DeliveryId, PartnerId, WebhookId};
use uuid::Uuid;

use super::{Scheduled, Trace};

#[derive(QueryableByName)]
pub(super) struct ScheduledRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = BigInt)]
    webhook_id: i64,
    #[diesel(sql_type = BigInt)]
    partner_id: i64,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Integer)]
    turn: i32,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    next_attempt_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Integer)]
    parkings: i32,
    #[diesel(sql_type = Nullable<Text>)]
    park_reason: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    traceparent: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    tracestate: Option<String>,
}

/// The columns of a [`ScheduledRow`], for `RETURNING`.
macro_rules! scheduled_columns {
    ($alias:literal) => {
        concat!(
            $alias,
            ".id, ",
            $alias,
            ".webhook_id, ",
            $alias,
            ".partner_id, ",
            $alias,
            ".status, ",
            $alias,
            ".turn, ",
            $alias,
            ".next_attempt_at, ",
            $alias,
            ".attempts, ",
            $alias,
            ".parkings, ",
            $alias,
            ".park_reason, ",
            $alias,
            ".traceparent, ",
            $alias,
            ".tracestate"
        )
    };
}
pub(super) use scheduled_columns;

impl ScheduledRow {
    /// The delivery, and the turn that it had until now.
    pub fn applied(&self) -> (DeliveryId, i32) {
        (DeliveryId(self.id), self.turn - 1)
    }

    /// `None` when there is nothing to announce: it is final, or an attempt is under way.
    pub fn into_scheduled(self) -> Option<Scheduled> {
        let next_attempt_at = self
            .next_attempt_at
            .filter(|_| self.status == DeliveryStatus::Pending.as_str())?;
        Some(Scheduled {
            delivery_id: DeliveryId(self.id),
            webhook_id: WebhookId(self.webhook_id),
            partner_id: PartnerId(self.partner_id),
            turn: self.turn,
            next_attempt_at,
            attempts: self.attempts,
            parkings: self.parkings,
            parked: self.park_reason.is_some(),
            trace: Trace {
                traceparent: self.traceparent,
                tracestate: self.tracestate,
            },
        })
    }
}
