//! Transactions that their owners can pass around: one for services that join several of our functions, and one whose
//! statements are sent without waiting for each other.

use std::ops::{Deref, DerefMut};

use diesel::sql_query;
use diesel_async::{
    AnsiTransactionManager, AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _,
    SimpleAsyncConnection as _, TransactionManager as _,
};
use futures_util::future::join;

use super::{Connection, Store};
use crate::error::StoreError;
use crate::prepared::Prepare as _;

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

/// A transaction whose statements travel together: those polled at once, [`Pipeline::begin`] first, are one round
/// trip. Until it has ended its connection counts as broken, so that a pool drops the one whose owner was cancelled.
#[must_use]
pub(crate) struct Pipeline<'c>(&'c mut AsyncPgConnection);

impl<'c> Pipeline<'c> {
    pub fn new(connection: &'c mut AsyncPgConnection) -> Self {
        AnsiTransactionManager::transaction_manager_status_mut(connection).set_in_error();
        Self(connection)
    }

    pub fn connection(&self) -> &AsyncPgConnection {
        self.0
    }

    /// Sent when it is first polled. Whatever is polled after it belongs to the transaction.
    pub async fn begin(&self) -> Result<(), StoreError> {
        Ok((&mut &*self.0).batch_execute("BEGIN").await?)
    }

    /// Sends `last`, one prepared statement or none, and the commit together. Where `last` fails nothing is committed.
    pub async fn commit_after(
        self,
        last: impl AsyncFnOnce(&AsyncPgConnection) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut connection = &*self.0;
        // A statement that is not prepared yet is sent only after its answer. Those that are kept prepared wait for
        // their turn at the connection's cache, so as one of them this can't overtake the other.
        let commit = sql_query("COMMIT").prepared().execute(&mut connection);
        let (last, ended) = join(last(self.0), commit).await;
        ended?;
        *self.0.transaction_state() = AnsiTransactionManager::default();
        last
    }

    pub async fn rollback(self) -> Result<(), StoreError> {
        (&mut &*self.0).batch_execute("ROLLBACK").await?;
        *self.0.transaction_state() = AnsiTransactionManager::default();
        Ok(())
    }
}
