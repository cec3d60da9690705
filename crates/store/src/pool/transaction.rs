//! A transaction that its owner can pass around, for services that join several of our functions.

use std::ops::{Deref, DerefMut};

use diesel_async::{AnsiTransactionManager, AsyncPgConnection, TransactionManager as _};

use super::{Connection, Store};
use crate::error::StoreError;

/// An open transaction. Dropped without [`Transaction::commit`] it is undone: its connection is closed, so that
/// [`Transaction::rollback`] is the cheaper way where one has the choice.
#[must_use]
pub struct Transaction(Connection);

impl Store {
    /// Takes a connection and opens a transaction on it. Functions that open one themselves nest in it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no connection within the time-out.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        let mut connection = self.get().await?;
        AnsiTransactionManager::begin_transaction(&mut *connection).await?;
        Ok(Transaction(connection))
    }
}

impl Transaction {
    /// # Errors
    /// Where [`StoreError::Unavailable`] says that the answer was lost, the transaction may be committed all the same.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        Ok(AnsiTransactionManager::commit_transaction(&mut *self.0).await?)
    }

    /// # Errors
    /// Whatever the error, nothing is committed.
    pub async fn rollback(mut self) -> Result<(), StoreError> {
        Ok(AnsiTransactionManager::rollback_transaction(&mut *self.0).await?)
    }
}

impl Deref for Transaction {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        &self.0
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        &mut self.0
    }
}
