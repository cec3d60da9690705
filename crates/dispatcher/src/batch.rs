//! Many askers, one statement: whatever was asked while the previous statement ran goes into the next one.
//!
//! An idle system answers at once, a busy one in large batches; a queue with a pause makes them larger still.

use std::time::Duration;

use runtime::Backoff;
use store::StoreError;
use tokio::sync::{mpsc, oneshot};

/// A question with the way back for its answer.
type Asked<Q, A> = (Q, oneshot::Sender<A>);

/// The askers' end; cheap to clone.
#[derive(Debug)]
pub struct Batcher<Q, A> {
    sender: mpsc::Sender<Asked<Q, A>>,
}

impl<Q, A> Clone for Batcher<Q, A> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
        }
    }
}

/// The worker's end.
#[derive(Debug)]
pub struct BatchQueue<Q, A> {
    receiver: mpsc::Receiver<Asked<Q, A>>,
    batch_max: usize,
    pause: Duration,
}

/// Makes both ends. At most `batch_max` questions go into one statement, and as many wait before askers do.
#[must_use]
pub fn batches<Q, A>(batch_max: usize) -> (Batcher<Q, A>, BatchQueue<Q, A>) {
    let (sender, receiver) = mpsc::channel(batch_max);
    (
        Batcher { sender },
        BatchQueue {
            receiver,
            batch_max,
            pause: Duration::ZERO,
        },
    )
}

impl<Q, A> Batcher<Q, A> {
    /// Asks, and waits for the answer for as long as it takes. `None` when the worker has ended.
    pub async fn ask(&self, question: Q) -> Option<A> {
        let (sender, receiver) = oneshot::channel();
        self.sender.send((question, sender)).await.ok()?;
        receiver.await.ok()
    }
}

/// Who answers a batch.
pub trait Answer<Q, A>: Send + Sync {
    /// What is done, for logs: `can't …`.
    const WHAT: &'static str;

    /// Answers every question, in their order.
    fn answer(&self, questions: &[Q]) -> impl Future<Output = Result<Vec<A>, StoreError>> + Send;
}

impl<Q: Send + Sync, A: Send> BatchQueue<Q, A> {
    /// Waits after each batch, so that the next one is larger: for questions of which there are always more.
    pub fn with_pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// The questions that wait now; when there are none, the first that comes. `None` when nobody asks any more.
    async fn next(&mut self) -> Option<(Vec<Q>, Vec<oneshot::Sender<A>>)> {
        let mut asked = Vec::with_capacity(self.batch_max.min(64));
        if self.receiver.recv_many(&mut asked, self.batch_max).await == 0 {
            return None;
        }
        // Whoever asked may have given up meanwhile.
        asked.retain(|(_, reply)| !reply.is_closed());
        Some(asked.into_iter().unzip())
    }

    /// Answers batch after batch until nobody asks any more. A statement that fails is run again, with growing
    /// waits: an asker never learns of it, so what needs Postgres simply waits for it.
    pub async fn run<B: Answer<Q, A>>(mut self, by: B) {
        while let Some((questions, replies)) = self.next().await {
            if questions.is_empty() {
                continue;
            }
            let answers = until_answered(&by, &questions, &replies).await;
            for (reply, answer) in replies.into_iter().zip(answers) {
                // An asker that has given up needs no answer.
                let _ = reply.send(answer);
            }
            if !self.pause.is_zero() && self.receiver.len() < self.batch_max {
                tokio::time::sleep(self.pause).await;
            }
        }
    }
}

/// Asks Postgres until it answers, or until all askers have given up.
async fn until_answered<Q, A, B: Answer<Q, A>>(
    by: &B,
    questions: &[Q],
    replies: &[oneshot::Sender<A>],
) -> Vec<A> {
    let mut backoff = Backoff::default();
    loop {
        match by.answer(questions).await {
            Ok(answers) => return answers,
            Err(error) => wait_after(B::WHAT, &error, &mut backoff).await,
        }
        if replies.iter().all(oneshot::Sender::is_closed) {
            return Vec::new();
        }
    }
}

/// Says what failed and waits before the next try; a deadlock is tried again at once.
pub async fn wait_after(what: &'static str, error: &StoreError, backoff: &mut Backoff) {
    let wait = match error {
        StoreError::Transient(_) => Duration::ZERO,
        _ => backoff.next_delay(),
    };
    tracing::warn!(
        error = runtime::exit::chain(error),
        ?wait,
        "can't {what}, trying again"
    );
    tokio::time::sleep(wait).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Doubles numbers, after as many failures as told, and notes the sizes of its batches.
    #[derive(Default)]
    struct Doubling {
        failures: Mutex<u32>,
        sizes: Mutex<Vec<usize>>,
    }

    impl Answer<u32, u32> for &Doubling {
        const WHAT: &'static str = "double";

        async fn answer(&self, questions: &[u32]) -> Result<Vec<u32>, StoreError> {
            tokio::task::yield_now().await;
            let mut failures = self.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err(StoreError::Unavailable("gone".into()));
            }
            self.sizes.lock().unwrap().push(questions.len());
            Ok(questions.iter().map(|q| q * 2).collect())
        }
    }

    #[tokio::test]
    async fn what_is_asked_during_a_statement_goes_into_the_next_one() {
        let (batcher, queue) = batches::<u32, u32>(100);
        let doubling = Doubling::default();
        let askers = async {
            let asks: Vec<_> = (0..50).map(|n| batcher.ask(n)).collect();
            let answers = futures_util::future::join_all(asks).await;
            drop(batcher);
            answers
        };
        let ((), answers) = tokio::join!(queue.run(&doubling), askers);
        assert_eq!(answers, (0..50).map(|n| Some(n * 2)).collect::<Vec<_>>());
        let sizes = doubling.sizes.into_inner().unwrap();
        assert_eq!(sizes.iter().sum::<usize>(), 50);
        assert!(sizes.len() <= 3, "{sizes:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_during_a_pause_goes_into_one_statement() {
        let (batcher, queue) = batches::<u32, u32>(100);
        let queue = queue.with_pause(Duration::from_millis(10));
        let doubling = Doubling::default();
        let askers = async {
            assert_eq!(batcher.ask(0).await, Some(0));
            let asks = (1..=5).map(|n| {
                let batcher = batcher.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(n.into())).await;
                    batcher.ask(n).await
                }
            });
            let answers = futures_util::future::join_all(asks).await;
            drop(batcher);
            answers
        };
        let ((), answers) = tokio::join!(queue.run(&doubling), askers);
        assert_eq!(answers, (1..=5).map(|n| Some(n * 2)).collect::<Vec<_>>());
        assert_eq!(doubling.sizes.into_inner().unwrap(), [1, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_that_fails_is_run_again_until_it_succeeds() {
        let (batcher, queue) = batches::<u32, u32>(100);
        let doubling = Doubling {
            failures: Mutex::new(3),
            ..Doubling::default()
        };
        let asker = async {
            let answer = batcher.ask(7).await;
            drop(batcher);
            answer
        };
        let ((), answer) = tokio::join!(queue.run(&doubling), asker);
        assert_eq!(answer, Some(14));
    }
}
