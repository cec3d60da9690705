//! Why a command did not do what it was asked to. Each kind has its exit code, so that scripts can tell them apart.

use broker::{BrokerError, PublishError};
use store::StoreError;

/// What a command ends with that was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The line itself makes no sense.
    #[error("{0}")]
    Usage(String),
    #[error("{0} was not found")]
    NotFound(String),
    /// RabbitMQ did not take the message.
    #[error(transparent)]
    NotConfirmed(PublishError),
    /// Postgres or RabbitMQ is away.
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Failed(String),
}

/// Exit codes, as the help tells them.
pub mod exit {
    pub const OK: u8 = 0;
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const NOT_FOUND: u8 = 3;
    pub const REFUSED: u8 = 4;
    pub const UNAVAILABLE: u8 = 69;
}

impl Error {
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::NotFound(_) => exit::NOT_FOUND,
            Self::NotConfirmed(PublishError::Unavailable(_)) | Self::Unavailable(_) => {
                exit::UNAVAILABLE
            }
            Self::NotConfirmed(PublishError::TooLong(_)) => exit::USAGE,
            Self::NotConfirmed(
                PublishError::Refused | PublishError::Returned(_) | PublishError::Timeout(_),
            ) => exit::REFUSED,
            Self::Failed(_) => exit::FAILED,
        }
    }

    /// The word for it in a JSON answer.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.exit_code() {
            exit::USAGE => "usage",
            exit::NOT_FOUND => "not_found",
            exit::REFUSED => "not_confirmed",
            exit::UNAVAILABLE => "unavailable",
            _ => "failed",
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let line = runtime::exit::chain(&error);
        match error {
            StoreError::Unavailable(_) | StoreError::Transient(_) => Self::Unavailable(line),
            StoreError::Data(_) | StoreError::Corrupt(_) | StoreError::Query(_) => {
                Self::Failed(line)
            }
        }
    }
}

impl From<store::pool::InvalidConfig> for Error {
    fn from(_: store::pool::InvalidConfig) -> Self {
        Self::Usage(
            "the database URL must look like postgres://user:password@host:port/database"
                .to_owned(),
        )
    }
}

impl From<BrokerError> for Error {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Config(_) => Self::Usage(
                "the AMQP URL must look like amqp://user:password@host:port/vhost".to_owned(),
            ),
            BrokerError::Malformed { .. } => Self::Failed(error.line()),
            BrokerError::Lost(_) | BrokerError::Amqp { .. } | BrokerError::Timeout { .. } => {
                Self::Unavailable(error.line())
            }
        }
    }
}

impl From<PublishError> for Error {
    fn from(error: PublishError) -> Self {
        Self::NotConfirmed(error)
    }
}
