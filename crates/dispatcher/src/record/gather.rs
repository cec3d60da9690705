//! What goes into the next batch.

use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout_at};

use super::coming::OnTheirWay;

/// Longest wait for more. Only the broker and a row's next attempt wait for what is recorded, not a receiver.
const GATHER: Duration = Duration::from_millis(10);

/// So many items are worth a commit of their own: it costs Postgres as much as a dozen rows, and every other process of
/// the machine a disk that is busy.
const WORTH_A_COMMIT: usize = 16;

/// All that waits, and then what comes until it is worth a commit and fewer events are on their way than items have come;
/// `None` when nothing can come any more. An event that waits long for its receiver, or for a slot, makes batches wait the
/// longest.
pub(super) async fn gather<T>(
    receiver: &mut Receiver<T>,
    on_their_way: &OnTheirWay,
    max: usize,
) -> Option<Vec<T>> {
    let mut items = Vec::new();
    if receiver.recv_many(&mut items, max).await == 0 {
        return None;
    }
    let until = Instant::now() + GATHER;
    while items.len() < max && !is_enough(items.len(), on_their_way) {
        let room = max - items.len();
        match timeout_at(until, receiver.recv_many(&mut items, room)).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    Some(items)
}

fn is_enough(items: usize, on_their_way: &OnTheirWay) -> bool {
    items >= WORTH_A_COMMIT && items > on_their_way.count()
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    /// A queue in which so many items wait: first 0, then 1, and so on.
    async fn queue_of(count: usize) -> (mpsc::Sender<usize>, mpsc::Receiver<usize>) {
        let (sender, receiver) = mpsc::channel(64);
        for number in 0..count {
            sender.send(number).await.unwrap();
        }
        (sender, receiver)
    }

    fn first(count: usize) -> Option<Vec<usize>> {
        Some((0..count).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_alone_waits_a_moment_for_company() {
        let (sender, mut receiver) = queue_of(1).await;
        let on_their_way = OnTheirWay::default();
        let started = Instant::now();
        let arrive = async {
            sleep(MOMENT).await;
            sender.send(1).await.unwrap();
        };
        let (items, ()) = tokio::join!(gather(&mut receiver, &on_their_way, 64), arrive);
        assert_eq!(items, first(2));
        assert_eq!(started.elapsed(), GATHER);
        drop(sender);
        assert_eq!(gather(&mut receiver, &on_their_way, 64).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_worth_a_commit_does_not_wait() {
        let (_sender, mut receiver) = queue_of(WORTH_A_COMMIT).await;
        let on_their_way = OnTheirWay::default();
        let started = Instant::now();
        let items = gather(&mut receiver, &on_their_way, 64).await;
        assert_eq!(items, first(WORTH_A_COMMIT));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_on_its_way_is_waited_for_until_it_has_come() {
        let enough = WORTH_A_COMMIT;
        let (sender, mut receiver) = queue_of(enough).await;
        let on_their_way = OnTheirWay::default();
        let coming: Vec<_> = (0..enough + 2).map(|_| on_their_way.enter()).collect();
        let arrive = async {
            for (number, coming) in (enough..).zip(coming) {
                sleep(MOMENT).await;
                drop(coming);
                sender.send(number).await.unwrap();
            }
        };
        let (items, ()) = tokio::join!(gather(&mut receiver, &on_their_way, 64), arrive);
        // With the first one as many have come as are on their way, with the second one more.
        assert_eq!(items, first(enough + 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_come_is_waited_for_no_longer_than_that() {
        let enough = WORTH_A_COMMIT;
        let (_sender, mut receiver) = queue_of(enough).await;
        let on_their_way = OnTheirWay::default();
        let _coming: Vec<_> = (0..enough).map(|_| on_their_way.enter()).collect();
        let started = Instant::now();
        let items = gather(&mut receiver, &on_their_way, 64).await;
        assert_eq!(items, first(enough));
        assert_eq!(started.elapsed(), GATHER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_does_not_wait() {
        let (_sender, mut receiver) = queue_of(4).await;
        let on_their_way = OnTheirWay::default();
        let _coming: Vec<_> = (0..9).map(|_| on_their_way.enter()).collect();
        let started = Instant::now();
        let items = gather(&mut receiver, &on_their_way, 4).await;
        assert_eq!(items, first(4));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
