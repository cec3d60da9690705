//! What the services of the fleet are told beside their defaults: waits of seconds instead of hours, so that all settles
//! while somebody looks on. Nothing about durability, batches or limits.

use super::Length;
use crate::fleet::Fleet;

pub(super) fn apply(fleet: &mut Fleet, length: Length) {
    for (key, value) in [
        // Enough attempts for a receiver that fails in one of seven, and for one that is away for a while.
        (
            "retry_policy.schedule_s",
            "1,1,2,2,3,3,5,5,5,5,5,10,10,10,10,10",
        ),
        ("dispatcher.isolation.breaker_open_for_s", "1"),
        ("dispatcher.isolation.breaker_open_for_max_s", "5"),
        ("dispatcher.isolation.backlog_spread_max_s", "5"),
    ] {
        fleet.set(key, value);
    }
    if length == Length::Short {
        for (key, value) in [
            // Overdue deliveries are announced again after seconds.
            ("retry.sweep_overdue_s", "3"),
            ("retry.sweep_every_ms", "500"),
            ("rabbitmq.heartbeat_s", "5"),
            ("dispatcher.lease_margin_ms", "2000"),
        ] {
            fleet.set(key, value);
        }
    }
}
