//! A world of receivers around the ledger, in virtual time: the same run gives the same result, and an hour takes
//! milliseconds.

mod scenarios;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use domain::id::{PartnerId, WebhookId};

use super::Lane;
use super::config::{Config, Limits};
use super::ledger::{Answer, Feedback, Grant, Ledger, Parking, Snapshot, Target, Ticket, Verdict};
use super::webhook::Report;

/// What a receiver does with a request.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Good(Duration),
    Status500(Duration),
    /// No connection.
    Unreachable(Duration),
    /// Nothing comes back until the time-out.
    Silence,
}

const TIMEOUT: Duration = Duration::from_secs(10);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn report(manner: Manner) -> Report {
    let (delivered, transport, took) = match manner {
        Manner::Good(took) => (true, false, took),
        Manner::Status500(took) => (false, false, took),
        Manner::Unreachable(took) => (false, true, took),
        Manner::Silence => (false, true, TIMEOUT),
    };
    Report {
        delivered,
        trouble: !delivered,
        transport,
        answered: !transport,
        took,
        retry_after: None,
    }
}

#[derive(Debug)]
enum Event {
    Arrive(Lane, Target),
    Finish(Grant, usize, Manner),
    Look(usize),
}

#[derive(Debug)]
struct Delivery {
    lane: Lane,
    target: Target,
    arrived: Instant,
    ticket: Option<Ticket>,
}

/// What became of one webhook's deliveries.
#[derive(Clone, Debug, Default)]
struct Tally {
    arrived: usize,
    delivered: usize,
    failed: usize,
    ours: usize,
    parked: usize,
    in_flight: usize,
    in_flight_peak: usize,
    waits: Vec<Duration>,
    parkings: Vec<Parking>,
}

impl Tally {
    fn wait_max(&self) -> Duration {
        self.waits.iter().max().copied().unwrap_or_default()
    }
}

/// A receiver's answer, by its webhook's id, its requests in flight, and the time since the start.
type Receivers = Box<dyn Fn(i64, usize, Duration) -> Manner>;

struct World {
    ledger: Ledger<usize>,
    start: Instant,
    now: Instant,
    events: BTreeMap<u64, Event>,
    agenda: BinaryHeap<Reverse<(Instant, u64)>>,
    next_event: u64,
    deliveries: Vec<Delivery>,
    receivers: Receivers,
    tallies: BTreeMap<i64, Tally>,
    /// The most that suspects held in the first lane.
    suspects_peak: usize,
    in_flight_peak: usize,
}

impl World {
    fn new(receivers: impl Fn(i64, usize, Duration) -> Manner + 'static) -> Self {
        let limits: Limits = (&Config::default()).try_into().unwrap();
        let now = Instant::now();
        Self {
            ledger: Ledger::new(limits, now),
            start: now,
            now,
            events: BTreeMap::new(),
            agenda: BinaryHeap::new(),
            next_event: 0,
            deliveries: Vec::new(),
            receivers: Box::new(receivers),
            tallies: BTreeMap::new(),
            suspects_peak: 0,
            in_flight_peak: 0,
        }
    }

    /// Deliveries to one webhook, so many a second, from one time to another.
    fn traffic(&mut self, hook: i64, partner: i64, per_s: u64, from: Duration, to: Duration) {
        let count = per_s * u64::try_from((to - from).as_millis()).unwrap() / 1000;
        for n in 0..count {
            // A phase of its own for each webhook, so that they do not all come at once.
            let phase = Duration::from_micros(u64::try_from(hook * 7919 % 1000).unwrap());
            let at = from + phase + Duration::from_micros(n * 1_000_000 / per_s);
            self.burst(1, hook, partner, at);
        }
    }

    fn burst(&mut self, count: usize, hook: i64, partner: i64, at: Duration) {
        for _ in 0..count {
            let target = Target {
                webhook_id: WebhookId(hook),
                partner_id: PartnerId(partner),
                epoch: 1,
            };
            self.plan(self.start + at, Event::Arrive(Lane::First, target));
        }
    }

    fn plan(&mut self, at: Instant, event: Event) {
        self.events.insert(self.next_event, event);
        self.agenda.push(Reverse((at, self.next_event)));
        self.next_event += 1;
    }

    fn run_until(&mut self, end: Duration) {
        let end = self.start + end;
        while let Some(&Reverse((at, number))) = self.agenda.peek()
            && at <= end
        {
            self.agenda.pop();
            self.now = at;
            match self.events.remove(&number).unwrap() {
                Event::Arrive(lane, target) => self.arrive(lane, target),
                Event::Finish(grant, delivery, manner) => self.finish(&grant, delivery, manner),
                Event::Look(delivery) => self.look(delivery),
            }
            let suspects = self.ledger.snapshot().suspects_in_flight.first;
            self.suspects_peak = self.suspects_peak.max(suspects);
            for (delivery, verdict) in self.ledger.take_settled() {
                self.deliveries[delivery].ticket = None;
                match verdict {
                    Verdict::Go(grant) => self.go(grant, delivery),
                    Verdict::Park(parking) => self.park(delivery, parking),
                }
            }
        }
        self.now = end;
    }

    fn snapshot(&self) -> Snapshot {
        self.ledger.snapshot()
    }

    fn tally(&self, hook: i64) -> &Tally {
        &self.tallies[&hook]
    }

    fn tally_mut(&mut self, delivery: usize) -> &mut Tally {
        let hook = self.deliveries[delivery].target.webhook_id.0;
        self.tallies.entry(hook).or_default()
    }

    fn arrive(&mut self, lane: Lane, target: Target) {
        let delivery = self.deliveries.len();
        self.deliveries.push(Delivery {
            lane,
            target,
            arrived: self.now,
            ticket: None,
        });
        self.tally_mut(delivery).arrived += 1;
        match self.ledger.admit(lane, &target, self.now, || delivery) {
            Answer::Go(grant) => self.go(grant, delivery),
            Answer::Park(parking) => self.park(delivery, parking),
            Answer::Wait(ticket) => {
                self.deliveries[delivery].ticket = Some(ticket);
                self.plan(self.now + ms(250), Event::Look(delivery));
            }
        }
    }

    fn look(&mut self, delivery: usize) {
        let Some(ticket) = &self.deliveries[delivery].ticket else {
            return;
        };
        match self.ledger.look(ticket, self.now) {
            Some(parking) => {
                self.deliveries[delivery].ticket = None;
                self.park(delivery, parking);
            }
            None => self.plan(self.now + ms(250), Event::Look(delivery)),
        }
    }

    fn go(&mut self, grant: Grant, delivery: usize) {
        let snapshot = self.ledger.snapshot();
        self.in_flight_peak = self.in_flight_peak.max(snapshot.in_flight.first);
        let waited = self.now - self.deliveries[delivery].arrived;
        let hook = self.deliveries[delivery].target.webhook_id.0;
        let tally = self.tally_mut(delivery);
        tally.waits.push(waited);
        tally.in_flight += 1;
        tally.in_flight_peak = tally.in_flight_peak.max(tally.in_flight);
        let in_flight = tally.in_flight;
        let manner = (self.receivers)(hook, in_flight, self.now - self.start);
        self.plan(
            self.now + report(manner).took,
            Event::Finish(grant, delivery, manner),
        );
    }

    fn finish(&mut self, grant: &Grant, delivery: usize, manner: Manner) {
        let report = report(manner);
        let feedback = self.ledger.finish(grant, &report, self.now, 0.5);
        let tally = self.tally_mut(delivery);
        tally.in_flight -= 1;
        match feedback {
            Feedback::Ours(_) => tally.ours += 1,
            Feedback::Counted { .. } if report.delivered => tally.delivered += 1,
            Feedback::Counted { .. } => tally.failed += 1,
        }
    }

    fn park(&mut self, delivery: usize, parking: Parking) {
        let tally = self.tally_mut(delivery);
        tally.parked += 1;
        tally.parkings.push(parking);
    }

    /// Sends what was parked or failed so far once more, as due, spread over some time.
    fn send_again(
        &mut self,
        count: usize,
        hook: i64,
        partner: i64,
        from: Duration,
        over: Duration,
    ) {
        for n in 0..count {
            let target = Target {
                webhook_id: WebhookId(hook),
                partner_id: PartnerId(partner),
                epoch: 1,
            };
            let at = self.start
                + from
                + over * u32::try_from(n).unwrap() / u32::try_from(count).unwrap();
            self.plan(at, Event::Arrive(Lane::Due, target));
        }
    }

    fn waiting_lanes(&self) -> Vec<Lane> {
        let waiting = self.deliveries.iter().filter(|d| d.ticket.is_some());
        waiting.map(|d| d.lane).collect()
    }
}
