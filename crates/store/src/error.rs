//! What can go wrong with Postgres, told apart by what a caller does about it.

use diesel::result::{DatabaseErrorKind, Error};

/// Whatever a source is: the pool, the driver or diesel.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, or none that works: wait and ask again. What was sent may have been committed all the same.
    #[error("Postgres is not available")]
    Unavailable(#[source] Cause),
    /// A deadlock, a failed serialization or a lock that took too long: run the whole transaction again.
    #[error("Postgres gave the transaction up")]
    Transient(#[source] Cause),
    /// A value that Postgres does not take, or no partition for its row: the row is at fault, the others are not.
    #[error("Postgres refused the data")]
    Data(#[source] Error),
    /// A stored value that can't be read back.
    #[error("a stored value can't be read: {0}")]
    Corrupt(String),
    /// Everything else: our statement is wrong.
    #[error("a statement failed")]
    Query(#[source] Error),
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error {
            Error::DatabaseError(kind, ref information) => {
                match classify(kind, information.message()) {
                    Class::Unavailable => Self::Unavailable(Box::new(error)),
                    Class::Transient => Self::Transient(Box::new(error)),
                    Class::Data => Self::Data(error),
                    Class::Other => Self::Query(error),
                }
            }
            // The commit's own error tells more than that of the rollback after it.
            Error::RollbackErrorOnCommit { commit_error, .. } => (*commit_error).into(),
            // Left behind by a connection that broke within a transaction.
            Error::BrokenTransactionManager => Self::Unavailable(Box::new(error)),
            Error::DeserializationError(cause) => Self::Corrupt(cause.to_string()),
            Error::SerializationError(_) | Error::InvalidCString(_) => Self::Data(error),
            other => Self::Query(other),
        }
    }
}

enum Class {
    Unavailable,
    Transient,
    Data,
    Other,
}

/// Most SQLSTATEs don't come through diesel, so that for those only the message is left. It is in English: the servers
/// run with `lc_messages = C`, and in any other language these errors become [`StoreError::Query`].
fn classify(kind: DatabaseErrorKind, message: &str) -> Class {
    const UNAVAILABLE: [&str; 9] = [
        // Nothing is wrong with the row: it can be written as soon as somebody makes the partition of its day.
        "no partition of relation",
        "terminating connection",
        "the database system is",
        "sorry, too many clients",
        "remaining connection slots",
        "too many connections",
        "could not extend file",
        "could not write to file",
        "out of shared memory",
    ];
    // The last one is how a partition looks that is being created or detached beside us.
    const TRANSIENT: [&str; 4] = [
        "deadlock detected",
        "could not serialize access",
        "canceling statement due to",
        "tuple concurrently updated",
    ];
    const DATA: [&str; 12] = [
        "invalid byte sequence",
        "unsupported Unicode escape",
        "invalid input syntax",
        "value too long",
        "out of range",
        "null character not permitted",
        "cannot be cast",
        "malformed array literal",
        "date/time field value",
        "index row size",
        "index row requires",
        "string is too long",
    ];
    let says = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
    match kind {
        DatabaseErrorKind::UnableToSendCommand
        | DatabaseErrorKind::ClosedConnection
        // We talk to a server that is no longer the primary.
        | DatabaseErrorKind::ReadOnlyTransaction => Class::Unavailable,
        DatabaseErrorKind::SerializationFailure => Class::Transient,
        // A row without a partition is reported as a check violation.
        _ if says(&UNAVAILABLE) => Class::Unavailable,
        DatabaseErrorKind::CheckViolation | DatabaseErrorKind::NotNullViolation => Class::Data,
        _ if says(&TRANSIENT) => Class::Transient,
        _ if says(&DATA) => Class::Data,
        _ => Class::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(kind: DatabaseErrorKind, message: &str) -> StoreError {
        Error::DatabaseError(kind, Box::new(message.to_owned())).into()
    }

    #[test]
    fn a_lost_server_a_deadlock_and_bad_data_are_told_apart() {
        use DatabaseErrorKind::{
            CheckViolation, SerializationFailure, UnableToSendCommand, Unknown,
        };
        assert!(matches!(
            database(UnableToSendCommand, "connection closed"),
            StoreError::Unavailable(_)
        ));
        for message in [
            "terminating connection due to administrator command",
            "the database system is starting up",
            "sorry, too many clients already",
            "no partition of relation \"events\" found for row",
        ] {
            assert!(
                matches!(database(Unknown, message), StoreError::Unavailable(_)),
                "{message}"
            );
        }
        for (kind, message) in [
            (Unknown, "deadlock detected"),
            (
                SerializationFailure,
                "could not serialize access due to concurrent update",
            ),
            (Unknown, "canceling statement due to lock timeout"),
            (Unknown, "canceling statement due to statement timeout"),
        ] {
            assert!(
                matches!(database(kind, message), StoreError::Transient(_)),
                "{message}"
            );
        }
        for (kind, message) in [
            (
                CheckViolation,
                "new row for relation \"deliveries\" violates check constraint",
            ),
            (Unknown, "invalid byte sequence for encoding \"UTF8\": 0x00"),
            (Unknown, "integer out of range"),
        ] {
            assert!(
                matches!(database(kind, message), StoreError::Data(_)),
                "{message}"
            );
        }
        assert!(matches!(
            database(Unknown, "relation \"x\" does not exist"),
            StoreError::Query(_)
        ));
    }

    #[test]
    fn a_failed_commit_is_judged_by_the_commit() {
        let error = Error::RollbackErrorOnCommit {
            rollback_error: Box::new(Error::BrokenTransactionManager),
            commit_error: Box::new(Error::DatabaseError(
                DatabaseErrorKind::SerializationFailure,
                Box::new("could not serialize access".to_owned()),
            )),
        };
        assert!(matches!(error.into(), StoreError::Transient(_)));
    }
}
