//! The limits of isolation: what an operator may set, and what of that fits together.

use std::time::Duration;

use serde::Deserialize;

/// Part `isolation` of section `[dispatcher]`. All limits are for one dispatcher process.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// First attempts in flight at the same time.
    pub in_flight_max: u32,
    /// Due retries and parked deliveries in flight at the same time, besides the first attempts.
    pub due_in_flight_max: u32,
    /// Requests in flight that every webhook may have, however badly it answers, unless its breaker is open.
    pub cap_min: u32,
    /// Requests in flight that no webhook may pass, however well it answers.
    pub cap_max: u32,
    /// Milliseconds that a delivery waits behind its own webhook before it is parked.
    pub wait_for_slot_ms: u32,
    /// Failures in a row that open a webhook's breaker.
    pub breaker_failures_in_row: u32,
    /// Share of failures, over 0 and up to 1, that opens it too, when there were enough requests.
    pub breaker_error_share: f64,
    /// Requests that are enough for a share to mean something.
    pub breaker_requests_min: u32,
    /// Seconds over which requests and failures are counted for the share.
    pub breaker_window_s: u32,
    /// Seconds for which the breaker opens at first; each failed probe doubles them.
    pub breaker_open_for_s: u32,
    /// Seconds at which the doubling ends.
    pub breaker_open_for_max_s: u32,
    /// Share of each budget, over 0 and up to 1, that all webhooks under suspicion may hold together.
    pub suspect_share: f64,
    /// Share of each budget, over 0 and up to 1, that one partner may hold while others wait. That much of the
    /// budget also stays out of reach of any single partner at all times.
    pub partner_share: f64,
    /// Milliseconds for an answer, or without one, from which on a webhook is under suspicion.
    pub slow_ms: u32,
    /// Partners whose webhooks must have failed at the transport level before our own network is blamed.
    pub egress_partners: u32,
    /// Seconds without any answer before our own network is blamed.
    pub egress_quiet_s: u32,
    /// Milliseconds between attempts while our own network is blamed.
    pub egress_probe_every_ms: u32,
    /// Webhooks remembered at the same time (about 400 bytes each). Those with nothing to remember are forgotten
    /// first; those with an open breaker are kept until there are twice as many.
    pub tracked_webhooks_max: u32,
    /// Seconds over which a webhook's backlog is spread at most, however slowly it drains.
    pub backlog_spread_max_s: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            in_flight_max: 1024,
            due_in_flight_max: 256,
            cap_min: 16,
            cap_max: 512,
            wait_for_slot_ms: 250,
            breaker_failures_in_row: 5,
            breaker_error_share: 0.5,
            breaker_requests_min: 20,
            breaker_window_s: 30,
            breaker_open_for_s: 30,
            breaker_open_for_max_s: 900,
            suspect_share: 0.25,
            partner_share: 0.25,
            slow_ms: 1000,
            egress_partners: 20,
            egress_quiet_s: 10,
            egress_probe_every_ms: 1000,
            tracked_webhooks_max: 100_000,
            backlog_spread_max_s: 3600,
        }
    }
}

/// Limits that fit together.
#[derive(Clone, Debug)]
pub struct Limits {
    pub(super) in_flight_max: u32,
    pub(super) due_in_flight_max: u32,
    pub(super) suspect_share: f64,
    pub(super) partner_share: f64,
    pub(super) wait_for_slot: Duration,
    pub(super) slow: Duration,
    pub(super) cap: super::cap::Bounds,
    pub(super) breaker: super::breaker::Rules,
    pub(super) egress: super::egress::Rules,
    pub(super) tracked_max: usize,
    pub(super) backlog_spread_max: Duration,
}

/// Limits that do not fit together; the start is refused. Keys are those below `dispatcher.isolation`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimits {
    #[error("dispatcher.isolation.{key} must be at least 1")]
    Zero { key: &'static str },
    #[error("dispatcher.isolation.{key} must be over 0 and at most 1")]
    Share { key: &'static str },
    #[error(
        "dispatcher.isolation.{key} ({value}) must not be greater than dispatcher.isolation.{limit_key} ({limit})"
    )]
    Greater {
        key: &'static str,
        value: u32,
        limit_key: &'static str,
        limit: u32,
    },
    #[error(
        "dispatcher.isolation.suspect_share and partner_share must each come to at least one request of in_flight_max and of due_in_flight_max"
    )]
    NoRoom,
    #[error(
        "dispatcher.isolation.tracked_webhooks_max ({tracked}) must be at least twice in_flight_max and due_in_flight_max together ({needed})"
    )]
    TooFewTracked { tracked: u32, needed: u64 },
}

impl TryFrom<&Config> for Limits {
    type Error = InvalidLimits;

    fn try_from(config: &Config) -> Result<Self, Self::Error> {
        config.check_counts()?;
        config.check_shares()?;
        config.check_order()?;
        let ms = |n: u32| Duration::from_millis(n.into());
        let s = |n: u32| Duration::from_secs(n.into());
        Ok(Self {
            in_flight_max: config.in_flight_max,
            due_in_flight_max: config.due_in_flight_max,
            suspect_share: config.suspect_share,
            partner_share: config.partner_share,
            wait_for_slot: ms(config.wait_for_slot_ms),
            slow: ms(config.slow_ms),
            cap: super::cap::Bounds {
                min: config.cap_min,
                max: config.cap_max,
                slow: ms(config.slow_ms),
            },
            breaker: super::breaker::Rules {
                failures_in_row: config.breaker_failures_in_row,
                error_share: config.breaker_error_share,
                requests_min: config.breaker_requests_min,
                window: s(config.breaker_window_s),
                open_for: s(config.breaker_open_for_s),
                open_for_max: s(config.breaker_open_for_max_s),
            },
            egress: super::egress::Rules {
                partners: config.egress_partners as usize,
                quiet: s(config.egress_quiet_s),
                probe_every: ms(config.egress_probe_every_ms),
            },
            tracked_max: config.tracked_webhooks_max as usize,
            backlog_spread_max: s(config.backlog_spread_max_s),
        })
    }
}

impl Config {
    fn check_counts(&self) -> Result<(), InvalidLimits> {
        let at_least_one = [
            ("in_flight_max", self.in_flight_max),
            ("due_in_flight_max", self.due_in_flight_max),
            ("cap_min", self.cap_min),
            ("wait_for_slot_ms", self.wait_for_slot_ms),
            ("breaker_failures_in_row", self.breaker_failures_in_row),
            ("breaker_requests_min", self.breaker_requests_min),
            ("breaker_window_s", self.breaker_window_s),
            ("breaker_open_for_s", self.breaker_open_for_s),
            ("slow_ms", self.slow_ms),
            ("egress_partners", self.egress_partners),
            ("egress_quiet_s", self.egress_quiet_s),
            ("egress_probe_every_ms", self.egress_probe_every_ms),
            ("backlog_spread_max_s", self.backlog_spread_max_s),
        ];
        match at_least_one.into_iter().find(|&(_, value)| value == 0) {
            Some((key, _)) => Err(InvalidLimits::Zero { key }),
            None => Ok(()),
        }
    }

    fn check_shares(&self) -> Result<(), InvalidLimits> {
        let shares = [
            ("breaker_error_share", self.breaker_error_share),
            ("suspect_share", self.suspect_share),
            ("partner_share", self.partner_share),
        ];
        // Written so that NaN is refused too.
        let fits = |share: f64| share > 0.0 && share <= 1.0;
        if let Some((key, _)) = shares.into_iter().find(|&(_, share)| !fits(share)) {
            return Err(InvalidLimits::Share { key });
        }
        let smallest = f64::from(self.in_flight_max.min(self.due_in_flight_max));
        if smallest * self.suspect_share < 1.0 || smallest * self.partner_share < 1.0 {
            return Err(InvalidLimits::NoRoom);
        }
        Ok(())
    }

    fn check_order(&self) -> Result<(), InvalidLimits> {
        let pairs = [
            ("cap_min", self.cap_min, "cap_max", self.cap_max),
            ("cap_max", self.cap_max, "in_flight_max", self.in_flight_max),
            (
                "breaker_open_for_s",
                self.breaker_open_for_s,
                "breaker_open_for_max_s",
                self.breaker_open_for_max_s,
            ),
        ];
        for (key, value, limit_key, limit) in pairs {
            if value > limit {
                return Err(InvalidLimits::Greater {
                    key,
                    value,
                    limit_key,
                    limit,
                });
            }
        }
        let needed = 2 * (u64::from(self.in_flight_max) + u64::from(self.due_in_flight_max));
        if u64::from(self.tracked_webhooks_max) < needed {
            return Err(InvalidLimits::TooFewTracked {
                tracked: self.tracked_webhooks_max,
                needed,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: fn(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        Limits::try_from(&config)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_defaults_fit_together() {
        assert!(Limits::try_from(&Config::default()).is_ok());
    }

    #[test]
    fn limits_that_do_not_fit_are_refused_by_the_names_of_their_keys() {
        type Case = (fn(&mut Config), &'static [&'static str]);
        let cases: [Case; 9] = [
            (|c| c.cap_min = 0, &["isolation.cap_min", "at least 1"]),
            (|c| c.cap_min = 513, &["cap_min (513)", "cap_max (512)"]),
            (|c| c.cap_max = 2000, &["cap_max", "in_flight_max (1024)"]),
            (|c| c.suspect_share = 0.0, &["suspect_share"]),
            (|c| c.partner_share = 1.1, &["partner_share"]),
            (
                |c| c.breaker_error_share = f64::NAN,
                &["breaker_error_share"],
            ),
            (
                |c| c.due_in_flight_max = 3,
                &["due_in_flight_max", "suspect_share"],
            ),
            (
                |c| c.breaker_open_for_s = 901,
                &["breaker_open_for_s", "breaker_open_for_max_s"],
            ),
            (
                |c| c.tracked_webhooks_max = 100,
                &["tracked_webhooks_max (100)", "2560"],
            ),
        ];
        for (change, words) in cases {
            let text = refusal(change);
            assert!(words.iter().all(|w| text.contains(w)), "{text}");
        }
    }
}
