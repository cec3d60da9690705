//! Why the retry service does not start, or ends other than in order.

use runtime::Failure;
use runtime::config::ConfigError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Policy(#[from] domain::retry_policy::InvalidRetryPolicy),
    #[error(transparent)]
    Postgres(#[from] store::pool::InvalidConfig),
    #[error(transparent)]
    RabbitMq(#[from] broker::BrokerError),
    #[error(transparent)]
    Admin(#[from] runtime::probes::BindError),
    #[error("metrics can't be registered")]
    Metrics(#[from] prometheus::Error),
    /// One of the tasks ended by itself: a mistake of ours, and a reason to be started anew.
    #[error("the task {0} ended by itself")]
    Task(&'static str),
    #[error("a task failed")]
    Panic(#[from] tokio::task::JoinError),
}

impl Error {
    /// Whether a start with the same configuration would fail again.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Config(_) | Self::Policy(_) | Self::Postgres(_) | Self::RabbitMq(_) => true,
            Self::Admin(_) | Self::Metrics(_) | Self::Task(_) | Self::Panic(_) => false,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.is_configuration() {
            Self::config(&error)
        } else {
            Self::other(&error)
        }
    }
}
