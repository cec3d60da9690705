//! What an account makes of strikes, arrivals and rows.

use super::*;
use crate::chaos::ledger::HOOKS_MAX;

fn strike(fault: Fault, window: Ms, began: Ms) -> Strike {
    Strike {
        fault,
        twice: fault.twice(),
        what: String::new(),
        window,
        began,
        struck: began + 10,
        ended: began,
        recovered: true,
        recovery: None,
    }
}

/// One healthy webhook and events that were due and confirmed at these moments.
fn ledger(due: &[Ms]) -> Ledger {
    let mut ledger = Ledger::new(vec![vec![Manner::Healthy]]);
    for due in due {
        let number = ledger.publish(*due);
        ledger.confirmed(number, *due + 1);
    }
    ledger
}

fn rows(of: &[(u16, Ms)]) -> Vec<Option<Row>> {
    let mut rows = vec![None; of.len() * HOOKS_MAX];
    for (number, (attempts, finished)) in of.iter().enumerate() {
        rows[number * HOOKS_MAX] = Some(Row {
            delivered: true,
            attempts: *attempts,
            finished: *finished,
        });
    }
    rows
}

#[test]
fn an_event_belongs_to_the_window_in_which_it_was_due() {
    let mut ledger = ledger(&[100, 1_100, 2_100]);
    for number in 0..3 {
        ledger.requested(number, 0, 0, true, number * 1_000 + 110);
    }
    let strikes = [
        strike(Fault::KillRetry, 1_000, 1_500),
        strike(Fault::KillApi, 2_000, 2_500),
    ];
    let account = settle(
        &ledger,
        &rows(&[(1, 120), (1, 1_120), (1, 2_120)]),
        &strikes,
    );
    assert_eq!(account.before.confirmed, 1);
    assert_eq!(account.lines[&Fault::KillRetry].confirmed, 1);
    assert_eq!(account.lines[&Fault::KillApi].delivered, 1);
    assert_eq!((account.total().times, account.total().expected), (2, 3));
    assert!(account.problems.is_empty(), "{:?}", account.problems);
}

#[test]
fn a_confirmed_event_that_never_arrived_is_lost() {
    let ledger = ledger(&[1_100]);
    let strikes = [strike(Fault::KillRabbitmq, 1_000, 1_500)];
    let account = settle(&ledger, &[None; HOOKS_MAX], &strikes);
    assert_eq!(account.lines[&Fault::KillRabbitmq].lost(), 1);
    assert_eq!(account.problems.len(), 1, "{:?}", account.problems);
}

#[test]
fn a_repetition_is_explained_by_a_kill_between_acceptance_and_record() {
    let mut ledger = ledger(&[1_490]);
    ledger.requested(0, 0, 0, true, 1_495);
    ledger.requested(0, 0, 0, true, 2_700);
    let strikes = [strike(Fault::KillDispatcher, 1_000, 1_500)];
    let account = settle(&ledger, &rows(&[(1, 2_710)]), &strikes);
    let line = &account.lines[&Fault::KillDispatcher];
    assert_eq!((line.twice, line.in_flight), (1, 1));
    assert_eq!(line.recovery, [0]);
    assert_eq!(
        (account.records.differing, account.records.unexplained),
        (1, 0)
    );
    assert!(account.problems.is_empty(), "{:?}", account.problems);
}

#[test]
fn what_was_sent_before_a_fault_may_be_noted_after_it() {
    // Noted soon; due after the fault, and so not sent before it; noted long after it.
    for (due, noted, unexplained) in [(1_509, 1_511, 0), (1_511, 1_512, 1), (1_509, 1_900, 1)] {
        let mut ledger = ledger(&[due]);
        ledger.requested(0, 0, 0, true, noted);
        ledger.requested(0, 0, 0, true, 2_700);
        let strikes = [strike(Fault::KillDispatcher, 1_000, 1_500)];
        let account = settle(&ledger, &rows(&[(2, 2_710)]), &strikes);
        assert_eq!(account.unexplained, unexplained, "{due} {noted}");
        assert_eq!(account.problems.len(), unexplained, "{due} {noted}");
    }
}

#[test]
fn what_a_stopped_process_had_begun_to_send_may_come_again_after_it_goes_on() {
    // Due before the stop and received when it is over; due after it; received while it lasts; received long after it.
    let cases = [
        (1_490, 31_502, 0),
        (1_600, 31_502, 1),
        (1_490, 31_400, 1),
        (1_490, 33_000, 1),
    ];
    for (due, received, unexplained) in cases {
        let mut ledger = ledger(&[due]);
        ledger.requested(0, 0, 0, true, received);
        ledger.requested(0, 0, 0, true, 36_000);
        let stop = Strike {
            ended: 31_500,
            ..strike(Fault::StopDispatcher, 1_000, 1_495)
        };
        let account = settle(&ledger, &rows(&[(2, 36_010)]), &[stop]);
        assert_eq!(account.unexplained, unexplained, "{due} {received}");
        let line = &account.lines[&Fault::StopDispatcher];
        assert_eq!(line.twice + unexplained, 1, "{due} {received}");
        assert_eq!(line.in_flight + unexplained, 1, "{due} {received}");
    }
}

/// A stop at 1,495 until 31,500 of a dispatcher that had begun to send what was due at 1,490.
fn settle_stopped(requests: &[Ms], row: (u16, Ms)) -> Account {
    let mut ledger = ledger(&[1_490]);
    for at in requests {
        ledger.requested(0, 0, 0, true, *at);
    }
    let stop = Strike {
        ended: 31_500,
        ..strike(Fault::StopDispatcher, 1_000, 1_495)
    };
    settle(&ledger, &rows(&[row]), &[stop])
}

#[test]
fn what_a_stopped_process_sends_when_it_goes_on_may_miss_in_the_row() {
    // Taken over by the other process before the first one recorded it; sent by the other while the first stood still;
    // timed out before it was written.
    let cases: [(&[Ms], _); 3] = [
        (&[31_502, 31_900], (1, 31_910)),
        (&[24_000, 31_502], (1, 24_010)),
        (&[32_500], (2, 32_510)),
    ];
    for (requests, row) in cases {
        let account = settle_stopped(requests, row);
        assert_eq!(account.records.differing, 1, "{requests:?}");
        assert!(account.problems.is_empty(), "{:?}", account.problems);
        let twice = account.lines[&Fault::StopDispatcher].twice;
        assert_eq!(twice, requests.len() - 1, "{requests:?}");
    }
}

#[test]
fn what_was_recorded_must_not_come_again_because_a_process_stood_still() {
    // Recorded after it went on; recorded before it was stopped.
    for (requests, finished) in [([31_502, 36_000], 31_510), ([1_492, 31_502], 1_494)] {
        let account = settle_stopped(&requests, (2, finished));
        assert_eq!(account.unexplained, 1, "{requests:?}");
        assert_eq!(account.problems.len(), 1, "{:?}", account.problems);
    }
}

#[test]
fn a_stop_explains_one_repetition_of_a_delivery() {
    let account = settle_stopped(&[31_502, 31_800, 32_300], (3, 32_310));
    assert_eq!(account.lines[&Fault::StopDispatcher].twice, 1);
    assert_eq!(account.unexplained, 1);
}

#[test]
fn two_parts_that_send_nothing_excuse_no_repetition() {
    let mut ledger = ledger(&[1_490, 9_490]);
    for at in [1_495, 2_700] {
        ledger.requested(0, 0, 0, true, at);
    }
    ledger.requested(1, 0, 0, true, 9_495);
    let harmless = Strike {
        twice: Twice::Never,
        ..strike(Fault::KillTwo, 1_000, 1_500)
    };
    let other = strike(Fault::KillTwo, 9_000, 9_500);
    let rows = rows(&[(2, 2_710), (1, 9_510)]);
    let account = settle(&ledger, &rows, &[harmless, other]);
    assert_eq!(account.lines[&Fault::KillTwo].twice, 1);
    assert_eq!(account.problems.len(), 1, "{:?}", account.problems);
}

#[test]
fn an_orderly_end_excuses_no_repetition() {
    let mut ledger = ledger(&[1_490]);
    ledger.requested(0, 0, 0, true, 1_495);
    ledger.requested(0, 0, 0, true, 2_700);
    let strikes = [strike(Fault::TermDispatcher, 1_000, 1_500)];
    let account = settle(&ledger, &rows(&[(2, 2_710)]), &strikes);
    assert_eq!(account.lines[&Fault::TermDispatcher].twice, 1);
    assert_eq!(account.problems.len(), 1, "{:?}", account.problems);
}

/// A lease that ran out, a sweep: whatever the reason was, it was not the kill half a minute later.
#[test]
fn a_kill_long_after_the_acceptance_explains_no_repetition() {
    let mut ledger = ledger(&[1_100]);
    ledger.requested(0, 0, 0, true, 1_110);
    ledger.requested(0, 0, 0, true, 46_000);
    let strikes = [strike(Fault::KillDispatcher, 25_000, 30_000)];
    let account = settle(&ledger, &rows(&[(2, 46_010)]), &strikes);
    assert_eq!(account.unexplained, 1);
    assert_eq!(account.lines[&Fault::KillDispatcher].in_flight, 0);
    assert_eq!(account.problems.len(), 1, "{:?}", account.problems);
}

#[test]
fn each_repetition_needs_a_fault_of_its_own() {
    let mut ledger = ledger(&[1_490]);
    for at in [1_495, 2_700, 9_000] {
        ledger.requested(0, 0, 0, true, at);
    }
    let first = strike(Fault::KillDispatcher, 1_000, 1_500);
    let account = settle(&ledger, &rows(&[(3, 9_010)]), std::slice::from_ref(&first));
    assert_eq!((account.unexplained, account.problems.len()), (1, 1));
    let second = strike(Fault::KillDispatcher, 2_000, 2_750);
    let account = settle(&ledger, &rows(&[(3, 9_010)]), &[first, second]);
    assert_eq!(account.lines[&Fault::KillDispatcher].twice, 2);
    assert_eq!(account.unexplained, 0);
}

#[test]
fn what_was_recorded_before_the_kill_must_not_come_again() {
    let mut ledger = ledger(&[1_100]);
    ledger.requested(0, 0, 0, true, 1_110);
    ledger.requested(0, 0, 0, true, 1_900);
    let strikes = [strike(Fault::KillDispatcher, 1_000, 1_500)];
    let account = settle(&ledger, &rows(&[(2, 1_120)]), &strikes);
    assert_eq!(account.unexplained, 1);
    assert_eq!(account.lines[&Fault::KillDispatcher].in_flight, 0);
    assert_eq!(account.problems.len(), 1, "{:?}", account.problems);
}

#[test]
fn recovery_ends_with_the_last_event_that_was_late() {
    let mut ledger = ledger(&[1_490, 1_600, 4_000]);
    for (number, at) in [(0, 3_000), (1, 3_500), (2, 4_005)] {
        ledger.requested(number, 0, 0, true, at);
    }
    let strikes = [strike(Fault::KillPostgres, 1_000, 1_500)];
    let account = settle(
        &ledger,
        &rows(&[(1, 3_000), (1, 3_500), (1, 4_010)]),
        &strikes,
    );
    assert_eq!(
        account.lines[&Fault::KillPostgres].recovery_ms(),
        Some((2_000, 2_000))
    );
}

#[test]
fn attempts_that_no_request_explains_are_a_problem() {
    let mut ledger = ledger(&[100]);
    ledger.requested(0, 0, 0, true, 110);
    let account = settle(&ledger, &rows(&[(2, 120)]), &[]);
    assert_eq!(account.records.unexplained, 1);
    assert_eq!(account.problems.len(), 1, "{:?}", account.problems);
}

/// It failed, was recorded and waits for its next attempt.
#[test]
fn a_kill_long_after_a_request_does_not_explain_that_it_is_in_no_row() {
    for (requested, unexplained) in [(11_000, 0), (1_110, 1)] {
        let mut ledger = ledger(&[1_100]);
        ledger.requested(0, 0, 0, false, requested);
        ledger.requested(0, 0, 0, true, 14_000);
        let strikes = [strike(Fault::KillDispatcher, 10_000, 11_010)];
        let account = settle(&ledger, &rows(&[(1, 14_010)]), &strikes);
        assert_eq!(account.records.unexplained, unexplained, "{requested}");
    }
}

#[test]
fn a_kill_does_not_explain_an_attempt_that_nobody_saw() {
    let mut ledger = ledger(&[1_490]);
    ledger.requested(0, 0, 0, true, 1_495);
    for (fault, unexplained) in [(Fault::KillDispatcher, 1), (Fault::StopDispatcher, 0)] {
        let strikes = [strike(fault, 1_000, 1_500)];
        let account = settle(&ledger, &rows(&[(2, 2_710)]), &strikes);
        assert_eq!(account.records.unexplained, unexplained, "{fault}");
    }
}

#[test]
fn a_row_that_says_delivered_needs_a_receiver_that_saw_it() {
    let mut ledger = ledger(&[100]);
    ledger.requested(0, 0, 0, false, 110);
    let account = settle(&ledger, &rows(&[(1, 120)]), &[]);
    let says = |text: &str| {
        account
            .problems
            .iter()
            .any(|problem| problem.contains(text))
    };
    assert!(
        says("no receiver accepted it") && says("is lost"),
        "{:?}",
        account.problems
    );
}
