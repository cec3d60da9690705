//! Holds what was published, what arrived and what Postgres says against each other: a pure function.
//!
//! An event belongs to the fault in whose window it was due; a window begins some time before its fault and ends where
//! the next one begins, so that what is in flight when a fault strikes belongs to it. A delivery that arrived twice
//! belongs to the fault that explains it: it was with the receiver and not recorded when the fault struck, nor when it came
//! again. Each fault explains one repetition of a delivery. What no fault explains is told apart, and is a defect whatever
//! the numbers.

use std::collections::BTreeMap;

use super::clock::{Ms, span};
use super::fault::{Fault, Twice};
use super::ledger::{Got, Ledger, Manner, Sent};

/// An event that took longer than this to arrive at its healthy webhooks was held up by a fault.
pub const LATE_MS: Ms = 1_000;

/// What a receiver has accepted is recorded by then, where nothing is wrong. A fault that strikes later does not explain
/// that it came again.
pub const RECORDED_WITHIN_MS: Ms = 3_000;

/// What a process had begun to send when it was stopped is received by then after it goes on.
const SENT_AFTER_MS: Ms = 1_000;

/// What was written to a connection before a fault struck is noted by its receiver by then after it.
const NOTED_AFTER_MS: Ms = 250;

/// The clock of the receivers and that of the rows may come apart by this.
const CLOCKS_MS: Ms = 100;

/// A fault that struck.
#[derive(Clone, Debug)]
pub struct Strike {
    pub fault: Fault,
    /// What it may make arrive twice.
    pub twice: Twice,
    /// What was struck, for people.
    pub what: String,
    pub window: Ms,
    pub began: Ms,
    /// By then the kill, or what else it was, was complete.
    pub struck: Ms,
    /// The fault itself was over. A kill is over at once: the restart is part of the recovery.
    pub ended: Ms,
    /// Nothing waited any more and every service was ready before the deadline.
    pub recovered: bool,
    /// Where it is not to be told from the events: how long it took.
    pub recovery: Option<Ms>,
}

/// What Postgres says of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub delivered: bool,
    pub attempts: u16,
    /// The moment of the transaction that made it final.
    pub finished: Ms,
}

/// One line of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub times: usize,
    pub confirmed: usize,
    pub expected: usize,
    pub delivered: usize,
    pub twice: usize,
    /// Deliveries that were with the receiver and not recorded when the faults struck, and those that a process which was
    /// stopped may have begun to send.
    pub in_flight: usize,
    /// For each fault, the time until the last event that it held up had arrived.
    pub recovery: Vec<Ms>,
}

impl Line {
    #[must_use]
    pub fn lost(&self) -> usize {
        self.expected - self.delivered
    }

    /// The median and the longest recovery.
    #[must_use]
    pub fn recovery_ms(&self) -> Option<(Ms, Ms)> {
        let mut sorted = self.recovery.clone();
        sorted.sort_unstable();
        Some((
            *sorted.get((sorted.len().checked_sub(1)?) / 2)?,
            *sorted.last()?,
        ))
    }
}

/// How rows and requests agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub rows: usize,
    pub attempts: usize,
    pub requests: usize,
    /// Deliveries whose rows count other attempts than the receiver saw requests.
    pub differing: usize,
    /// Those of them that no fault explains.
    pub unexplained: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Account {
    pub before: Line,
    pub lines: BTreeMap<Fault, Line>,
    /// Arrived twice, and no fault explains it.
    pub unexplained: usize,
    pub records: Records,
    /// What is wrong, in sentences.
    pub problems: Vec<String>,
}

impl Account {
    #[must_use]
    pub fn total(&self) -> Line {
        let mut total = Line::default();
        for line in std::iter::once(&self.before).chain(self.lines.values()) {
            total.times += line.times;
            total.confirmed += line.confirmed;
            total.expected += line.expected;
            total.delivered += line.delivered;
            total.twice += line.twice;
            total.in_flight += line.in_flight;
            total.recovery.extend(&line.recovery);
        }
        total
    }
}

/// `rows` has the place of each delivery in the ledger: `HOOKS_MAX` for each event.
#[must_use]
pub fn settle(ledger: &Ledger, rows: &[Option<Row>], strikes: &[Strike]) -> Account {
    let mut account = Account::default();
    for strike in strikes {
        account.lines.entry(strike.fault).or_default().times += 1;
    }
    let mut late = vec![0; strikes.len()];
    for number in 0..ledger.sent().len() {
        settle_event(ledger, rows, strikes, number, &mut account, &mut late);
    }
    for (strike, last) in strikes.iter().zip(&late) {
        let line = account.lines.entry(strike.fault).or_default();
        let told = last.saturating_sub(strike.ended);
        line.recovery.push(strike.recovery.unwrap_or(told));
    }
    find_problems(ledger, strikes, &mut account);
    account
}

fn settle_event(
    ledger: &Ledger,
    rows: &[Option<Row>],
    strikes: &[Strike],
    number: usize,
    account: &mut Account,
    late: &mut [Ms],
) {
    let event = ledger.sent()[number];
    if event.confirmed.is_none() {
        account
            .problems
            .push(format!("event {number} was never confirmed"));
        return;
    }
    let window = strikes
        .partition_point(|strike| strike.window <= event.due)
        .checked_sub(1);
    line_of(account, strikes, window).confirmed += 1;
    for (hook, (manner, got)) in ledger.deliveries_of(number).enumerate() {
        let row = rows[number * super::ledger::HOOKS_MAX + hook];
        let line = line_of(account, strikes, window);
        line.expected += 1;
        if got.accepted > 0 {
            line.delivered += 1;
        } else {
            account.problems.push(format!(
                "event {number} is lost at webhook {hook} of partner {}: {} requests, row {row:?}",
                event.partner, got.requests
            ));
        }
        let first = got.accepted_at().next();
        let late_at = first.filter(|at| at.saturating_sub(event.due) > LATE_MS);
        if let Some((window, at)) = window.zip(late_at).filter(|_| manner == Manner::Healthy) {
            late[window] = late[window].max(at);
        }
        let delivery = Delivery {
            event: &event,
            got,
            row,
        };
        settle_record(strikes, &delivery, account);
        settle_twice(strikes, &delivery, account);
    }
}

fn line_of<'a>(
    account: &'a mut Account,
    strikes: &[Strike],
    window: Option<usize>,
) -> &'a mut Line {
    match window {
        Some(window) => account.lines.entry(strikes[window].fault).or_default(),
        None => &mut account.before,
    }
}

/// All that is known of one delivery.
struct Delivery<'a> {
    event: &'a Sent,
    got: &'a Got,
    row: Option<Row>,
}

impl Delivery<'_> {
    /// Whether a request of it was not recorded when a fault struck.
    fn was_in_flight(&self, requested: Ms, strike: &Strike) -> bool {
        self.was_with_receiver(requested, strike) || self.was_held(requested, strike)
    }

    /// Whether the fault struck soon after the request was sent.
    fn was_with_receiver(&self, requested: Ms, strike: &Strike) -> bool {
        let is_soon = strike.began.saturating_sub(requested) <= RECORDED_WITHIN_MS;
        let is_sent_before =
            self.event.due <= strike.struck && requested <= strike.struck + NOTED_AFTER_MS;
        is_soon && is_sent_before && self.was_open_at(strike.began)
    }

    /// Whether a process may have begun to send the request when it was stopped: its receiver got it as soon as that went
    /// on. By then the time-out of the attempt is over, and so it ends as a failure.
    fn was_held(&self, requested: Ms, strike: &Strike) -> bool {
        strike.fault == Fault::StopDispatcher
            && self.event.due <= strike.struck
            && (strike.ended..=strike.ended + SENT_AFTER_MS).contains(&requested)
            && self.was_open_at(strike.began)
    }

    /// Whether it was not final at that moment.
    fn was_open_at(&self, at: Ms) -> bool {
        self.row.is_none_or(|row| row.finished >= at)
    }

    /// Whether a fault made a delivery that was accepted come again: the first was in flight, and nothing was recorded until
    /// it came again; or what came again is what a stopped process sent when it went on.
    fn came_again_by(&self, strike: &Strike, [before, after]: [Ms; 2]) -> bool {
        let was_open = self.was_open_at(after.saturating_sub(CLOCKS_MS));
        let was_lost = was_open && self.was_in_flight(before, strike);
        strike.began <= after && (was_lost || self.was_held(after, strike))
    }

    /// Whether a fault explains that the receiver saw a request which no attempt of the row says.
    fn was_not_recorded_by(&self, strike: &Strike) -> bool {
        let is_in_flight = |requested| self.was_in_flight(requested, strike);
        strike.twice == Twice::InFlight && self.got.requested_at().any(is_in_flight)
    }

    /// Whether a fault explains that the row says an attempt of which the receiver saw nothing. The receiver never dies: it
    /// was held up within the dispatcher itself.
    fn was_not_sent_by(&self, strike: &Strike) -> bool {
        strike.fault == Fault::StopDispatcher
            && self.event.due <= strike.struck
            && self.was_open_at(strike.ended)
    }
}

fn settle_twice(strikes: &[Strike], delivery: &Delivery, account: &mut Account) {
    for strike in strikes {
        let is_in_flight = |requested| delivery.was_in_flight(requested, strike);
        if delivery.got.accepted_at().any(is_in_flight) {
            account.lines.entry(strike.fault).or_default().in_flight += 1;
        }
    }
    if delivery.got.accepted > 1 {
        settle_repetitions(strikes, delivery, account);
    }
}

fn settle_repetitions(strikes: &[Strike], delivery: &Delivery, account: &mut Account) {
    let (event, row) = (delivery.event, delivery.row);
    let times: Vec<_> = delivery.got.accepted_at().collect();
    let mut unused: Vec<_> = strikes.iter().collect();
    for again in times.windows(2) {
        let &[before, after] = again else { continue };
        let excuse = excuse(&unused, delivery, [before, after]);
        let strike = excuse.map(|place| unused.swap_remove(place));
        let (before, after) = (span(before), span(after));
        if let Some(strike) = strike {
            account.lines.entry(strike.fault).or_default().twice += 1;
            if strike.twice == Twice::Never {
                account.problems.push(format!(
                    "a delivery was accepted at {before:?} and again at {after:?}, and {} ({}) excuses no repetition; \
                     {event:?}, {row:?}",
                    strike.fault, strike.what
                ));
            }
        } else {
            account.unexplained += 1;
            account.problems.push(format!(
                "a delivery was accepted at {before:?} and again at {after:?}, without a fault between that explains it; \
                 {event:?}, {row:?}"
            ));
        }
    }
    let accepted = usize::from(delivery.got.accepted);
    if accepted > times.len() {
        account.unexplained += accepted - times.len();
        account.problems.push(format!(
            "a delivery was accepted {accepted} times; {event:?}, {row:?}"
        ));
    }
}

/// The place of the fault because of which a delivery that was accepted came again. One that excuses no repetition is named
/// where there is no other.
fn excuse(strikes: &[&Strike], delivery: &Delivery, again: [Ms; 2]) -> Option<usize> {
    let find = |twice| {
        strikes
            .iter()
            .position(|strike| strike.twice == twice && delivery.came_again_by(strike, again))
    };
    find(Twice::InFlight).or_else(|| find(Twice::Never))
}

fn settle_record(strikes: &[Strike], delivery: &Delivery, account: &mut Account) {
    let (got, row) = (delivery.got, delivery.row);
    account.records.requests += usize::from(got.requests);
    let Some(row) = row else {
        if got.requests > 0 {
            account.problems.push(format!(
                "a delivery with {} requests has no row",
                got.requests
            ));
        }
        return;
    };
    account.records.rows += 1;
    account.records.attempts += usize::from(row.attempts);
    if !row.delivered {
        let what = format!(
            "a delivery is final, but not delivered: {row:?}, {} requests",
            got.requests
        );
        account.problems.push(what);
    } else if got.accepted == 0 {
        account
            .problems
            .push("a row says delivered, and no receiver accepted it".to_owned());
    }
    if row.attempts != got.requests {
        settle_difference(strikes, delivery, row, account);
    }
}

/// A row that counts other attempts than its receiver saw requests needs a fault for each of them.
fn settle_difference(strikes: &[Strike], delivery: &Delivery, row: Row, account: &mut Account) {
    account.records.differing += 1;
    let requests = delivery.got.requests;
    let explains = |strike: &&Strike| match row.attempts > requests {
        true => delivery.was_not_sent_by(strike),
        false => delivery.was_not_recorded_by(strike),
    };
    let explained = strikes.iter().filter(explains).count();
    if explained < usize::from(row.attempts.abs_diff(requests)) {
        account.records.unexplained += 1;
        let times: Vec<_> = delivery.got.requested_at().map(span).collect();
        account.problems.push(format!(
            "a delivery has {requests} requests, at {times:?}, and {explained} faults explain the difference; {:?}, {row:?}",
            delivery.event
        ));
    }
}

fn find_problems(ledger: &Ledger, strikes: &[Strike], account: &mut Account) {
    if ledger.strays() > 0 {
        account.problems.push(format!(
            "{} requests went where they should not",
            ledger.strays()
        ));
    }
    for strike in strikes.iter().filter(|strike| !strike.recovered) {
        let at = span(strike.began);
        account.problems.push(format!(
            "no recovery in time from {} ({}) at {at:?}",
            strike.fault, strike.what
        ));
    }
}

#[cfg(test)]
mod tests;
