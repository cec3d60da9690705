//! Questions of this process to the dispatchers, and their answers. A request asks; the task reads the answers from an
//! exclusive queue, which lives as long as its link to RabbitMQ, and hands each to whoever waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::interactive::{Request, TestCall, TestResult};
use broker::trace::Trace;
use broker::{Broker, Consumer, PublishError, Publisher};
use runtime::Shutdown;
use tokio::sync::oneshot;

/// Cheap to clone; all clones share the questions.
#[derive(Clone, Debug, Default)]
pub struct TestDesk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Where answers are to be sent; `None` without a link.
    queue: Option<String>,
    /// By correlation id.
    waiting: HashMap<String, oneshot::Sender<TestResult>>,
}

/// Forgets a question that nobody waits for any more.
struct Question<'a> {
    desk: &'a TestDesk,
    id: &'a str,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.desk.lock().waiting.remove(self.id);
    }
}

impl TestDesk {
    /// Asks, and waits for the answer for `limit`; `None` when none came, or the link that it would have come by broke.
    ///
    /// # Errors
    /// When RabbitMQ did not take the question.
    pub async fn ask(
        &self,
        publisher: &Publisher,
        call: TestCall,
        limit: Duration,
        trace: &Trace,
    ) -> Result<Option<TestResult>, PublishError> {
        let id = call.delivery_id.to_string();
        let (sender, answer) = oneshot::channel();
        let reply_to = {
            let mut state = self.lock();
            let Some(queue) = state.queue.clone() else {
                let why = "there is no queue for answers yet";
                return Err(PublishError::Unavailable(why.to_owned()));
            };
            state.waiting.insert(id.clone(), sender);
            queue
        };
        let _question = Question {
            desk: self,
            id: &id,
        };
        let answered = async {
            let message = Request::Test(call).message(&reply_to, &id, trace);
            publisher.publish(message).await?;
            Ok(answer.await.ok())
        };
        tokio::time::timeout(limit, answered)
            .await
            .unwrap_or(Ok(None))
    }

    /// Hands answers out until the shutdown has begun.
    pub async fn run(self, broker: Broker, shutdown: Shutdown) {
        loop {
            let link = tokio::select! {
                () = shutdown.begun() => break,
                link = broker.link() => link,
            };
            let Some(link) = link else { break };
            match link.consume_replies("management-api replies").await {
                Ok(consumer) => {
                    self.lock().queue = Some(consumer.queue().to_owned());
                    tokio::select! {
                        () = shutdown.begun() => break,
                        () = self.hand_out(consumer) => {}
                    }
                }
                // The link is lost then, and the next one is waited for.
                Err(error) => tracing::warn!(error = error.line(), "no queue for answers"),
            }
            self.close();
        }
        self.close();
    }

    async fn hand_out(&self, mut consumer: Consumer) {
        while let Some(reply) = consumer.next().await {
            match TestResult::read(&reply) {
                Ok((Some(id), result)) => self.answer(id, result),
                Ok((None, _)) => tracing::warn!("an answer to nothing"),
                Err(error) => tracing::warn!(error = error.line(), "an answer can't be read"),
            }
            reply.receipt.ack();
        }
    }

    fn answer(&self, id: &str, result: TestResult) {
        let waiting = self.lock().waiting.remove(id);
        let told = waiting.is_some_and(|question| question.send(result).is_ok());
        if !told {
            tracing::info!(delivery_id = id, "an answer came too late");
        }
    }

    /// The queue is gone, and with it every answer on its way.
    fn close(&self) {
        let mut state = self.lock();
        state.queue = None;
        state.waiting.clear();
    }

    /// Nothing that holds the lock can panic halfway.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use domain::id::DeliveryId;
    use uuid::Uuid;

    use super::*;

    fn result() -> TestResult {
        TestResult {
            delivery_id: DeliveryId(Uuid::from_u128(1)),
            delivered: true,
            response_code: Some(200),
            duration_ms: 1,
            error: None,
        }
    }

    fn question(desk: &TestDesk, id: &str) -> oneshot::Receiver<TestResult> {
        let (sender, answer) = oneshot::channel();
        desk.lock().waiting.insert(id.to_owned(), sender);
        answer
    }

    #[tokio::test]
    async fn each_answer_goes_to_its_question() {
        let desk = TestDesk::default();
        let (mut a, b) = (question(&desk, "a"), question(&desk, "b"));
        desk.answer("b", result());
        desk.answer("unknown", result());
        assert_eq!(b.await, Ok(result()));
        assert!(a.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_broken_link_ends_the_wait_at_once() {
        let desk = TestDesk::default();
        let a = question(&desk, "a");
        desk.close();
        assert!(a.await.is_err());
    }

    #[test]
    fn a_question_that_nobody_waits_for_is_forgotten() {
        let desk = TestDesk::default();
        let _answer = question(&desk, "a");
        drop(Question {
            desk: &desk,
            id: "a",
        });
        assert!(desk.lock().waiting.is_empty());
    }
}
