use std::ops::DerefMut;
use std::pin::Pin;
use std::task::Poll;

use chrono::Utc;
use domain::attempt::{Failure, FailureKind, Outcome, Timings};
use domain::id::{PartnerId, WebhookId};
use tokio::task::JoinSet;

use super::super::breaker::BreakerState;
use super::super::config::Config;
use super::super::egress::EgressState;
use super::*;

fn gate(change: fn(&mut Config)) -> Gate {
    let mut config = Config::default();
    change(&mut config);
    Gate::new((&config).try_into().unwrap())
}

fn target(webhook: i64, partner: i64, epoch: i64) -> Target {
    Target {
        webhook_id: WebhookId(webhook),
        partner_id: PartnerId(partner),
        epoch,
    }
}

fn attempt(kind: Option<FailureKind>, took: Duration) -> Attempt {
    let failed = |kind| {
        Outcome::Failed(Failure {
            kind,
            message: String::new(),
        })
    };
    Attempt {
        started_at: Utc::now(),
        outcome: kind.map_or(Outcome::Delivered, failed),
        response: None,
        timings: Timings {
            total: took,
            ..Timings::default()
        },
        retry_after: None,
    }
}

fn good() -> Attempt {
    attempt(None, Duration::from_millis(1))
}

fn bad() -> Attempt {
    attempt(Some(FailureKind::Status(500)), Duration::from_millis(1))
}

fn silent() -> Attempt {
    attempt(Some(FailureKind::Timeout), Duration::from_secs(10))
}

async fn go(gate: &Gate, target: Target) -> Permit {
    match gate.admit(Lane::First, target).await {
        Admission::Go(permit) => permit,
        Admission::Park(parking) => panic!("parked: {parking:?}"),
    }
}

async fn park(gate: &Gate, target: Target) -> Parking {
    match gate.admit(Lane::First, target).await {
        Admission::Park(parking) => parking,
        Admission::Go(_) => panic!("let through"),
    }
}

async fn take(gate: &Gate, count: usize, target: Target) -> Vec<Permit> {
    let mut permits = Vec::new();
    for _ in 0..count {
        permits.push(go(gate, target).await);
    }
    permits
}

async fn poll<F: Future>(future: &mut Pin<impl DerefMut<Target = F>>) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

#[tokio::test(start_paused = true)]
async fn behind_its_own_cap_a_delivery_is_parked_after_a_quarter_of_a_second() {
    let gate = gate(|_| {});
    let _held = take(&gate, 16, target(1, 1, 1)).await;
    let asked = time::Instant::now();
    let parking = park(&gate, target(1, 1, 1)).await;
    assert_eq!(parking.reason, ParkReason::Cap);
    assert_eq!(asked.elapsed().as_millis(), 250);
    assert_eq!(gate.snapshot().waiting.first, 0);
    drop(go(&gate, target(2, 1, 1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_comes_free_in_time_is_handed_on() {
    let gate = gate(|_| {});
    let mut held = take(&gate, 16, target(1, 1, 1)).await;
    let mut waiting = std::pin::pin!(gate.admit(Lane::First, target(1, 1, 1)));
    assert!(poll(&mut waiting).await.is_pending());
    assert_eq!(gate.snapshot().waiting.first, 1);
    drop(held.pop());
    assert!(matches!(
        poll(&mut waiting).await,
        Poll::Ready(Admission::Go(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn behind_the_whole_budget_it_waits_for_as_long_as_it_takes() {
    let gate = gate(|c| {
        c.in_flight_max = 32;
        c.cap_max = 32;
    });
    let mut held = take(&gate, 16, target(1, 1, 1)).await;
    held.extend(take(&gate, 16, target(2, 2, 1)).await);
    let mut waiting = std::pin::pin!(gate.admit(Lane::First, target(3, 3, 1)));
    assert!(
        time::timeout(Duration::from_secs(600), &mut waiting)
            .await
            .is_err()
    );
    held.clear();
    assert!(matches!(
        poll(&mut waiting).await,
        Poll::Ready(Admission::Go(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_leaves_no_place_and_no_slot_behind() {
    let gate = gate(|_| {});
    let mut held = take(&gate, 16, target(1, 1, 1)).await;
    {
        // One that gives up while waiting, and one that gives up with its verdict given.
        let mut first = Box::pin(gate.admit(Lane::First, target(1, 1, 1)));
        let mut second = Box::pin(gate.admit(Lane::First, target(1, 1, 1)));
        assert!(poll(&mut first).await.is_pending());
        assert!(poll(&mut second).await.is_pending());
        drop(first);
        assert_eq!(gate.snapshot().waiting.first, 1);
        drop(held.pop());
        assert_eq!(gate.snapshot().in_flight.first, 16);
        drop(second);
    }
    held.clear();
    let snapshot = gate.snapshot();
    assert_eq!((snapshot.in_flight.first, snapshot.waiting.first), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_parks_at_once_lets_one_probe_through_and_closes_with_its_success() {
    let gate = gate(|_| {});
    let hook = target(1, 1, 1);
    for n in 1..=5 {
        let feedback = go(&gate, hook).await.finish(&bad());
        let Feedback::Counted { breaker } = feedback else {
            panic!("our network is fine");
        };
        assert_eq!(breaker.is_some(), n == 5);
    }
    let parking = park(&gate, hook).await;
    assert_eq!(parking.reason, ParkReason::BreakerOpen);
    assert!(parking.at_least > Duration::from_secs(25));
    assert_eq!(gate.snapshot().open_breakers, 1);

    time::advance(Duration::from_secs(35)).await;
    let probe = go(&gate, hook).await;
    assert_eq!(park(&gate, hook).await.reason, ParkReason::BreakerOpen);
    drop(probe);
    // One that came to nothing is made anew.
    let probe = go(&gate, hook).await;
    assert_eq!(park(&gate, hook).await.reason, ParkReason::BreakerOpen);
    let Feedback::Counted {
        breaker: Some(change),
    } = probe.finish(&good())
    else {
        panic!("the breaker closes");
    };
    assert_eq!(change.state, BreakerState::Closed);
    assert_eq!(gate.snapshot().open_breakers, 0);
    drop(take(&gate, 2, hook).await);
}

#[tokio::test(start_paused = true)]
async fn a_new_epoch_begins_anew_and_an_old_one_changes_nothing() {
    let gate = gate(|_| {});
    let old = go(&gate, target(1, 1, 1)).await;
    for _ in 0..5 {
        go(&gate, target(1, 1, 1)).await.finish(&bad());
    }
    assert_eq!(
        park(&gate, target(1, 1, 0)).await.reason,
        ParkReason::BreakerOpen
    );
    let renewed = go(&gate, target(1, 1, 2)).await;
    assert_eq!(gate.snapshot().open_breakers, 0);
    assert_eq!(
        old.finish(&bad()),
        Feedback::Counted { breaker: None },
        "what was sent to the old URL says nothing of the new one"
    );
    drop(go(&gate, target(1, 1, 1)).await);
    renewed.finish(&good());
    let snapshot = gate.snapshot();
    assert_eq!(
        (snapshot.in_flight.first, snapshot.suspects_in_flight.first),
        (0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_was_not_known_is_learnt_and_begins_nothing_anew() {
    let gate = gate(|_| {});
    let early = go(&gate, target(1, 1, 0)).await;
    for _ in 0..4 {
        go(&gate, target(1, 1, 0)).await.finish(&bad());
    }
    drop(go(&gate, target(1, 1, 7)).await);
    let Feedback::Counted { breaker: Some(_) } = early.finish(&bad()) else {
        panic!("the fifth failure in a row");
    };
    for epoch in [0, 7] {
        let parking = park(&gate, target(1, 1, epoch)).await;
        assert_eq!(parking.reason, ParkReason::BreakerOpen);
    }
}

#[tokio::test(start_paused = true)]
async fn the_breaker_parks_those_who_wait() {
    let gate = gate(|_| {});
    let hook = target(1, 1, 1);
    let held = take(&gate, 16, hook).await;
    let mut waiters: Vec<_> = (0..8)
        .map(|_| Box::pin(gate.admit(Lane::Due, hook)))
        .collect();
    for waiter in &mut waiters {
        assert!(poll(waiter).await.is_pending());
    }
    // The first four slots are handed on; the fifth failure opens the breaker.
    for permit in held {
        permit.finish(&bad());
    }
    let mut verdicts = Vec::new();
    for waiter in &mut waiters {
        verdicts.push(match poll(waiter).await {
            Poll::Ready(Admission::Go(_)) => None,
            Poll::Ready(Admission::Park(parking)) => Some(parking.reason),
            Poll::Pending => panic!("somebody is left waiting"),
        });
    }
    let open = Some(ParkReason::BreakerOpen);
    assert_eq!(verdicts, [None, None, None, None, open, open, open, open]);
    let snapshot = gate.snapshot();
    assert_eq!((snapshot.in_flight.first, snapshot.in_flight.due), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn due_ones_have_a_budget_of_their_own() {
    let gate = gate(|c| {
        c.in_flight_max = 16;
        c.cap_max = 16;
    });
    let _held = take(&gate, 12, target(1, 1, 1)).await;
    let _more = take(&gate, 4, target(2, 2, 1)).await;
    let due = gate.admit(Lane::Due, target(3, 1, 1)).await;
    assert!(matches!(due, Admission::Go(_)));
    let snapshot = gate.snapshot();
    assert_eq!((snapshot.in_flight.first, snapshot.in_flight.due), (16, 1));
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_our_network_is_told_and_ended_by_the_first_answer() {
    let gate = gate(|_| {});
    for partner in 0..25 {
        go(&gate, target(partner, partner, 1)).await.finish(&good());
    }
    time::advance(Duration::from_secs(11)).await;
    let mut ours = 0;
    for partner in 0..25 {
        if gate.snapshot().egress == EgressState::Open {
            let feedback = go(&gate, target(partner, partner, 1))
                .await
                .finish(&silent());
            ours += usize::from(matches!(feedback, Feedback::Ours(_)));
        }
    }
    assert_eq!((ours, gate.snapshot().egress), (1, EgressState::Paused));

    let mut waiters = JoinSet::new();
    for partner in 0..5 {
        let gate = gate.clone();
        waiters.spawn(async move { gate.admit(Lane::First, target(partner, partner, 1)).await });
    }
    let began = time::Instant::now();
    let Admission::Go(probe) = waiters.join_next().await.unwrap().unwrap() else {
        panic!("one is let through as a probe");
    };
    assert!(began.elapsed() >= Duration::from_millis(900));
    assert!(matches!(probe.finish(&silent()), Feedback::Ours(_)));
    let Admission::Go(probe) = waiters.join_next().await.unwrap().unwrap() else {
        panic!("and a second later another one");
    };
    probe.finish(&bad());
    assert_eq!(gate.snapshot().egress, EgressState::Open);
    let rest = waiters.join_all().await;
    assert!(rest.iter().all(|a| matches!(a, Admission::Go(_))));
    assert_eq!(rest.len(), 3);
}
