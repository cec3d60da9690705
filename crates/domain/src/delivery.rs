//! A delivery's states: one event on its way to one webhook.
//!
//! ```text
//! pending ──> in_flight ──> delivered
//!    ▲            │  └────> exhausted
//!    └────────────┘
//! pending, in_flight ─────> cancelled
//! ```

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryStatus {
    /// Waits for its next attempt.
    Pending,
    /// An attempt is under way, until its lease ends at the latest.
    InFlight,
    Delivered,
    /// No attempts left, or too old, or the receiver is gone.
    Exhausted,
    /// Its webhook was made inactive, disabled or deleted, or its partner suspended.
    Cancelled,
}

impl DeliveryStatus {
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::InFlight,
        Self::Delivered,
        Self::Exhausted,
        Self::Cancelled,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InFlight => "in_flight",
            Self::Delivered => "delivered",
            Self::Exhausted => "exhausted",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen to the delivery.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::InFlight => false,
            Self::Delivered | Self::Exhausted | Self::Cancelled => true,
        }
    }
}

impl fmt::Display for DeliveryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no delivery status: pending, in_flight, delivered, exhausted or cancelled")]
pub struct UnknownStatus(pub String);

impl FromStr for DeliveryStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

/// Why a delivery waits without an attempt having been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParkReason {
    /// The webhook's breaker is open.
    BreakerOpen,
    /// The webhook has as many requests in flight as it keeps up with.
    Cap,
    /// Webhooks under suspicion, or its partner, hold their share of the budget.
    Budget,
    /// Our own network is held to be at fault.
    Network,
    /// This process stops, or lost its hold on the broker.
    HandedOver,
    /// The webhook can't be used for a reason of ours, such as a secret whose key is missing.
    Unreadable,
}

impl ParkReason {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker_open",
            Self::Cap => "cap",
            Self::Budget => "budget",
            Self::Network => "network",
            Self::HandedOver => "handed_over",
            Self::Unreadable => "unreadable",
        }
    }
}
