//! What goes into the next batch.

use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout_at};

use super::coming::OnTheirWay;

/// Longest wait for more. A commit costs Postgres as much as a dozen rows, and only the broker and a row's next attempt
/// wait for it.
const GATHER: Duration = Duration::from_millis(10);

/// All that waits, and then what comes as long as at least as many events are on their way as items have come; `None` when
/// nothing can come any more. An event that waits long for its receiver, or for a slot, makes batches wait the longest.
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
    while items.len() < max && items.len() <= on_their_way.count() {
        let room = max - items.len();
        match timeout_at(until, receiver.recv_many(&mut items, room)).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn what_is_alone_does_not_wait() {
        let (sender, mut receiver) = mpsc::channel(8);
        let on_their_way = OnTheirWay::default();
        let started = Instant::now();
        sender.send(1).await.unwrap();
        assert_eq!(gather(&mut receiver, &on_their_way, 8).await, Some(vec![1]));
        assert_eq!(started.elapsed(), Duration::ZERO);
        drop(sender);
        assert_eq!(gather(&mut receiver, &on_their_way, 8).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_on_its_way_is_waited_for_until_it_has_come() {
        let (sender, mut receiver) = mpsc::channel(8);
        let on_their_way = OnTheirWay::default();
        let coming = [on_their_way.enter(), on_their_way.enter()];
        sender.send(0).await.unwrap();
        let started = Instant::now();
        let arrive = async {
            for (number, coming) in (1..).zip(coming) {
                sleep(MOMENT).await;
                sender.send(number).await.unwrap();
                drop(coming);
            }
        };
        let (items, ()) = tokio::join!(gather(&mut receiver, &on_their_way, 8), arrive);
        // With the second one more has come than is on its way.
        assert_eq!(items, Some(vec![0, 1]));
        assert_eq!(started.elapsed(), 2 * MOMENT);
        assert_eq!(on_their_way.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_come_is_waited_for_no_longer_than_that() {
        let (sender, mut receiver) = mpsc::channel(8);
        let on_their_way = OnTheirWay::default();
        let _coming = on_their_way.enter();
        sender.send(1).await.unwrap();
        let started = Instant::now();
        assert_eq!(gather(&mut receiver, &on_their_way, 8).await, Some(vec![1]));
        assert_eq!(started.elapsed(), GATHER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_does_not_wait() {
        let (sender, mut receiver) = mpsc::channel(8);
        let on_their_way = OnTheirWay::default();
        let _coming: Vec<_> = (0..9).map(|_| on_their_way.enter()).collect();
        for number in 0..4 {
            sender.send(number).await.unwrap();
        }
        let started = Instant::now();
        let items = gather(&mut receiver, &on_their_way, 4).await;
        assert_eq!(items, Some(vec![0, 1, 2, 3]));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
