//! Rejected events and dead messages: listed, sent again, dropped.
//!
//! Reads and deletes rows of `dead_letters`, which the retry service makes of the messages in the queues. Sending
//! again publishes to where the message came from, with our own headers only, and deletes the row once RabbitMQ has
//! confirmed; should that deletion fail, the message may be sent a second time, which the claims of events recognise.

use broker::trace::Trace;
use broker::{DeadLetter, Line, Publisher};
use futures_util::future::join_all;
use serde_json::{Value, json};
use store::Store;
use store::dead_letter::{self, DeadLetter as Row, Summary};

use crate::answer::{Answer, Table, or_dash};
use crate::arguments::{DeadLetters, Which};
use crate::environment::Environment;
use crate::error::{Error, exit};
use crate::shown;

/// Rows that are read, with their bodies, and sent at a time.
const BATCH: usize = 50;
/// Ids read by one statement for `--all`.
const PAGE: u32 = 1000;
/// Shards play no part here.
const SHARDS: u16 = 1;

pub async fn run(
    line: Line,
    command: DeadLetters,
    environment: &Environment,
) -> Result<Answer, Error> {
    match command {
        DeadLetters::List {
            limit,
            before,
            bodies,
        } => list(line, limit, before, bodies, environment).await,
        DeadLetters::Requeue(which) => requeue(line, which, environment).await,
        DeadLetters::Drop(which) => drop_rows(line, which, environment).await,
    }
}

async fn list(
    line: Line,
    limit: u32,
    before: Option<i64>,
    bodies: bool,
    environment: &Environment,
) -> Result<Answer, Error> {
    let mut conn = environment.postgres().await?;
    let rows = dead_letter::list(&mut conn, stored(line), before, limit).await?;
    let mut table = Table::new([
        "id", "at", "code", "key", "partner", "app", "event", "reason",
    ]);
    for row in &rows {
        table.row([
            row.id.to_string(),
            shown::ms(row.at),
            row.code.clone(),
            row.routing_key.clone(),
            or_dash(row.partner_id.as_deref()),
            or_dash(row.app_id.as_deref()),
            or_dash(row.event_id.as_deref()),
            row.reason.clone(),
        ]);
    }
    let mut documents: Vec<_> = rows.iter().map(document).collect();
    if bodies {
        for (row, document) in rows.iter().zip(&mut documents) {
            // One at a time: Postgres need not hold all of them at once for a list that a person reads.
            let loaded = dead_letter::load(&mut conn, stored(line), &[row.id]).await?;
            if let (Some(row), Some(object)) = (loaded.first(), document.as_object_mut()) {
                shown::put_bytes(object, "body", &row.body);
            }
        }
    }
    let none = match line {
        Line::Rejected => "no rejected events",
        Line::Dead => "no dead messages",
    };
    Ok(Answer::new(Value::Array(documents), table.render_or(none)))
}

fn document(row: &Summary) -> Value {
    json!({
        "id": row.id,
        "code": row.code,
        "reason": row.reason,
        "exchange": row.exchange,
        "routing_key": row.routing_key,
        "event_id": row.event_id,
        "type": row.event_type,
        // A number where it is one; publishers fill the header with what they like.
        "partner_id": row.partner_id.as_deref().map(number_or_text),
        "app_id": row.app_id,
        "content_type": row.content_type,
        "traceparent": row.traceparent,
        "body_bytes": row.body_bytes,
        "at": shown::ms(row.at),
    })
}

fn number_or_text(text: &str) -> Value {
    text.parse::<i64>().map_or_else(|_| text.into(), Into::into)
}

/// What became of each row that was to be sent again.
#[derive(Debug, Default)]
struct Requeued {
    confirmed: Vec<i64>,
    failed: Vec<(i64, Error)>,
}

async fn requeue(line: Line, which: Which, environment: &Environment) -> Result<Answer, Error> {
    let store = environment.store()?;
    let ids = ids(line, which, &store).await?;
    if ids.is_empty() {
        return Ok(requeued(&Requeued::default()));
    }
    let rabbitmq = environment.rabbitmq(SHARDS).await?;
    let publisher = rabbitmq.publisher();
    let mut done = Requeued::default();
    for batch in ids.chunks(BATCH) {
        requeue_batch(line, batch, &store, &publisher, &mut done).await?;
    }
    drop(publisher);
    rabbitmq.close().await;
    Ok(requeued(&done))
}

async fn requeue_batch(
    line: Line,
    ids: &[i64],
    store: &Store,
    publisher: &Publisher,
    done: &mut Requeued,
) -> Result<(), Error> {
    // No connection is held while RabbitMQ is waited for.
    let rows = dead_letter::load(&mut *store.get().await?, stored(line), ids).await?;
    let gone = ids
        .iter()
        .filter(|id| rows.iter().all(|row| row.summary.id != **id));
    done.failed
        .extend(gone.map(|id| (*id, Error::NotFound(format!("message {id}")))));
    let sent = join_all(rows.into_iter().map(|row| async {
        let id = row.summary.id;
        (id, send_again(line, row, publisher).await)
    }))
    .await;
    let mut confirmed = Vec::new();
    for (id, result) in sent {
        match result {
            Ok(()) => confirmed.push(id),
            Err(error) => done.failed.push((id, error)),
        }
    }
    dead_letter::remove(&mut *store.get().await?, stored(line), &confirmed).await?;
    done.confirmed.extend(confirmed);
    Ok(())
}

async fn send_again(line: Line, row: Row, publisher: &Publisher) -> Result<(), Error> {
    let exchange = row.summary.exchange.clone();
    let message = letter(line, row).again().ok_or_else(|| {
        Error::Failed(format!(
            "it came from {exchange:?}, which is no exchange of ours"
        ))
    })?;
    Ok(publisher.publish(message).await?)
}

fn letter(line: Line, row: Row) -> DeadLetter {
    let Row { summary, body } = row;
    DeadLetter {
        line,
        message_id: None,
        code: summary.code,
        reason: summary.reason,
        exchange: summary.exchange,
        routing_key: summary.routing_key,
        event_id: summary.event_id,
        event_type: summary.event_type,
        partner_id: summary.partner_id,
        app_id: summary.app_id,
        content_type: summary.content_type,
        trace: Trace::new(
            summary.traceparent.as_deref(),
            summary.tracestate.as_deref(),
        ),
        body: body.into(),
    }
}

fn requeued(done: &Requeued) -> Answer {
    let failed: Vec<_> = done
        .failed
        .iter()
        .map(|(id, error)| json!({"id": id, "code": error.code(), "message": error.to_string()}))
        .collect();
    let document = json!({
        "requeued": done.confirmed.len(),
        "ids": done.confirmed,
        "failed": failed,
    });
    let mut text = format!("{} sent again\n", done.confirmed.len());
    for (id, error) in &done.failed {
        text.push_str(&format!("{id} was not sent: {error}\n"));
    }
    // The first says what is wrong; scripts that want more read the document.
    let exit_code = done
        .failed
        .first()
        .map_or(exit::OK, |(_, error)| error.exit_code());
    Answer::new(document, text).with_exit_code(exit_code)
}

async fn drop_rows(line: Line, which: Which, environment: &Environment) -> Result<Answer, Error> {
    let store = environment.store()?;
    let asked = which.ids.len();
    let all = which.all;
    let ids = ids(line, which, &store).await?;
    let mut dropped = 0;
    for batch in ids.chunks(PAGE as usize) {
        dropped += dead_letter::remove(&mut *store.get().await?, stored(line), batch).await?;
    }
    let answer = Answer::new(json!({"dropped": dropped}), format!("{dropped} dropped\n"));
    if !all && dropped < asked {
        return Ok(answer.with_exit_code(exit::NOT_FOUND));
    }
    Ok(answer)
}

/// The ids that are meant, oldest first. What comes in after this, such as an event that is rejected again, is left.
async fn ids(line: Line, which: Which, store: &Store) -> Result<Vec<i64>, Error> {
    let mut ids = which.ids;
    if which.all {
        let mut conn = store.get().await?;
        loop {
            let before = ids.last().copied();
            let page = dead_letter::list(&mut conn, stored(line), before, PAGE).await?;
            if page.is_empty() {
                break;
            }
            ids.extend(page.iter().map(|row| row.id));
        }
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// `store` and `broker` don't know each other.
fn stored(line: Line) -> dead_letter::Line {
    match line {
        Line::Rejected => dead_letter::Line::Rejected,
        Line::Dead => dead_letter::Line::Dead,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_decides_on_the_exit_code() {
        let answer = requeued(&Requeued {
            confirmed: vec![1],
            failed: vec![(2, Error::NotFound("message 2".to_owned()))],
        });
        assert_eq!(answer.exit_code, exit::NOT_FOUND);
        assert_eq!(
            answer.document,
            json!({"requeued": 1, "ids": [1], "failed":
                [{"id": 2, "code": "not_found", "message": "message 2 was not found"}]})
        );
        assert_eq!(requeued(&Requeued::default()).exit_code, exit::OK);
    }

    #[test]
    fn a_partner_is_a_number_where_it_is_one() {
        assert_eq!(number_or_text("42"), json!(42));
        assert_eq!(number_or_text("acme"), json!("acme"));
    }
}
