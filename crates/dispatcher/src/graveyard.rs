//! Where messages go that nobody can use: rejected events, and dead messages.
//!
//! Publishes them with a code and a sentence. Where the broker refuses, the row that the retry service would have made
//! is written here. What nobody keeps is held and tried again, never given back: a queue is no place to wait.

use broker::dead_letter::{self, DeadLetter};
use broker::{Link, Publisher};
use runtime::Backoff;
use store::dead_letter::{Line, NewDeadLetter};
use store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
pub struct Graveyard {
    pub publisher: Publisher,
    pub store: Store,
    /// Nothing is waited for once this is cancelled.
    pub draining: CancellationToken,
}

impl Graveyard {
    /// Keeps a letter, however long that takes. `false` when the link that brought its message is lost, or the process
    /// stops: the broker has the message then, or gets it back.
    pub async fn keep(&self, letter: &DeadLetter, link: &Link) -> bool {
        let mut backoff = Backoff::default();
        loop {
            if self.is_kept(letter).await {
                return true;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay()) => {}
                () = link.lost() => return false,
                () = self.draining.cancelled() => return false,
            }
        }
    }

    async fn is_kept(&self, letter: &DeadLetter) -> bool {
        let Err(refused) = self.publisher.publish(letter.message()).await else {
            return true;
        };
        match self.write(letter).await {
            Ok(()) => true,
            Err(error) => {
                let error = runtime::exit::chain(&error);
                tracing::warn!(%refused, error, code = letter.code, "nobody keeps a message");
                false
            }
        }
    }

    async fn write(&self, letter: &DeadLetter) -> Result<(), StoreError> {
        let mut connection = self.store.get().await?;
        store::dead_letter::insert(&mut connection, &[row(letter)]).await?;
        Ok(())
    }
}

fn row(letter: &DeadLetter) -> NewDeadLetter {
    NewDeadLetter {
        line: match letter.line {
            dead_letter::Line::Rejected => Line::Rejected,
            dead_letter::Line::Dead => Line::Dead,
        },
        message_id: letter.message_id.clone(),
        code: letter.code.clone(),
        reason: letter.reason.clone(),
        exchange: letter.exchange.clone(),
        routing_key: letter.routing_key.clone(),
        event_id: letter.event_id.clone(),
        event_type: letter.event_type.clone(),
        partner_id: letter.partner_id.clone(),
        app_id: letter.app_id.clone(),
        content_type: letter.content_type.clone(),
        traceparent: letter.trace.traceparent().map(str::to_owned),
        tracestate: letter.trace.tracestate().map(str::to_owned),
        body: letter.body.to_vec(),
    }
}
