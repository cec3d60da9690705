//! Why an event can't be used: a code for programs and a sentence for the team that published it.

use std::fmt;

/// The code that stands in the rejected message's header, in its row, and as a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectionCode {
    UnsupportedContentType,
    InvalidJson,
    InvalidEnvelope,
    InvalidId,
    InvalidTimestamp,
    InvalidData,
    UnknownType,
    UnknownPartner,
    TypeMismatch,
    PartnerMismatch,
    SchemaViolation,
    TooLarge,
    IdConflict,
}

impl RejectionCode {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnsupportedContentType => "unsupported_content_type",
            Self::InvalidJson => "invalid_json",
            Self::InvalidEnvelope => "invalid_envelope",
            Self::InvalidId => "invalid_id",
            Self::InvalidTimestamp => "invalid_timestamp",
            Self::InvalidData => "invalid_data",
            Self::UnknownType => "unknown_type",
            Self::UnknownPartner => "unknown_partner",
            Self::TypeMismatch => "type_mismatch",
            Self::PartnerMismatch => "partner_mismatch",
            Self::SchemaViolation => "schema_violation",
            Self::TooLarge => "too_large",
            Self::IdConflict => "id_conflict",
        }
    }
}

impl fmt::Display for RejectionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rejected event's code and reason. The reason is one sentence, without the event's data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct Rejection {
    pub code: RejectionCode,
    pub reason: String,
}

impl Rejection {
    #[must_use]
    pub fn new(code: RejectionCode, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }
}
