//! What a partner has paid for: how many webhooks, and how many requests a minute.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A partner's plan, named as on the public page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Plan {
    Starter,
    Accelerate,
    #[serde(rename = "Command+")]
    CommandPlus,
    Enterprise,
}

impl Plan {
    pub const ALL: [Self; 4] = [
        Self::Starter,
        Self::Accelerate,
        Self::CommandPlus,
        Self::Enterprise,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starter => "Starter",
            Self::Accelerate => "Accelerate",
            Self::CommandPlus => "Command+",
            Self::Enterprise => "Enterprise",
        }
    }

    /// Most webhooks at a time; deactivated ones count, deleted ones don't.
    #[must_use]
    pub fn webhooks_max(self) -> u32 {
        match self {
            Self::Starter => 2,
            Self::Accelerate => 5,
            Self::CommandPlus => 20,
            Self::Enterprise => 100,
        }
    }

    /// Most API requests in a window of 60 s.
    #[must_use]
    pub fn requests_per_minute(self) -> u32 {
        match self {
            Self::Starter => 60,
            Self::Accelerate => 300,
            Self::CommandPlus => 600,
            Self::Enterprise => 1000,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A string that names no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no plan: Starter, Accelerate, Command+ or Enterprise")]
pub struct UnknownPlan(pub String);

impl FromStr for Plan {
    type Err = UnknownPlan;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|p| p.name() == text)
            .ok_or_else(|| UnknownPlan(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_is_found_by_its_name_and_no_other_spelling_is() {
        for plan in Plan::ALL {
            assert_eq!(plan.name().parse(), Ok(plan));
            assert_eq!(serde_json::to_value(plan).unwrap(), plan.name());
        }
        assert!("starter".parse::<Plan>().is_err());
    }
}
