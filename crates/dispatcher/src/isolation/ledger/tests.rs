//! Whatever happens in whatever order, the books agree and nobody is forgotten.

use super::super::config::Config;
use super::super::webhook::Report;
use super::*;

/// A small generator of numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

struct Bench {
    ledger: Ledger<u64>,
    now: Instant,
    grants: Vec<Grant>,
    tickets: Vec<(u64, Ticket)>,
    asked: u64,
    answered: u64,
}

impl Bench {
    /// Small budgets, so that everything is scarce.
    fn new() -> Self {
        let config = Config {
            in_flight_max: 40,
            due_in_flight_max: 12,
            cap_min: 2,
            cap_max: 20,
            egress_partners: 3,
            tracked_webhooks_max: 104,
            ..Config::default()
        };
        let limits = (&config).try_into().unwrap();
        let now = Instant::now();
        Self {
            ledger: Ledger::new(limits, now),
            now,
            grants: Vec::new(),
            tickets: Vec::new(),
            asked: 0,
            answered: 0,
        }
    }

    fn step(&mut self, dice: &mut Dice) {
        self.now += Duration::from_micros(dice.roll(40_000));
        match dice.roll(100) {
            0..50 => self.admit(dice),
            50..85 => self.finish(dice),
            85..90 => {
                if let Some(grant) = self.any_grant(dice) {
                    self.ledger.release(&grant, self.now);
                }
            }
            90..98 => self.look(dice),
            98 => {
                if let Some(place) = any(dice, self.tickets.len()) {
                    let (_, ticket) = self.tickets.swap_remove(place);
                    self.ledger.leave(&ticket);
                    self.answered += 1;
                }
            }
            _ => self.now += Duration::from_millis(dice.roll(20_000)),
        }
        self.collect();
    }

    fn admit(&mut self, dice: &mut Dice) {
        // Few webhooks get most of the traffic.
        let sides = [3, 20, 400][usize::try_from(dice.roll(3)).unwrap()];
        let webhook = i64::try_from(dice.roll(sides)).unwrap();
        let target = Target {
            webhook_id: WebhookId(webhook),
            partner_id: PartnerId(webhook % 7),
            epoch: i64::from(dice.roll(300) == 0) + i64::try_from(self.asked / 2_000).unwrap(),
        };
        let lane = Lane::ALL[usize::try_from(dice.roll(2)).unwrap()];
        let number = self.asked;
        self.asked += 1;
        match self.ledger.admit(lane, &target, self.now, || number) {
            Answer::Go(grant) => {
                self.grants.push(grant);
                self.answered += 1;
            }
            Answer::Park(_) => self.answered += 1,
            Answer::Wait(ticket) => self.tickets.push((number, ticket)),
        }
    }

    fn finish(&mut self, dice: &mut Dice) {
        let Some(grant) = self.any_grant(dice) else {
            return;
        };
        let delivered = dice.roll(10) > 1;
        let transport = !delivered && dice.roll(2) == 0;
        let report = Report {
            delivered,
            trouble: !delivered,
            transport,
            answered: !transport,
            took: self.now - grant.started_at,
            retry_after: (dice.roll(50) == 0).then_some(Duration::from_secs(2)),
        };
        self.ledger.finish(&grant, &report, self.now, 0.5);
    }

    fn look(&mut self, dice: &mut Dice) {
        if let Some(place) = any(dice, self.tickets.len()) {
            let (_, ticket) = &self.tickets[place];
            if self.ledger.look(ticket, self.now).is_some() {
                self.tickets.swap_remove(place);
                self.answered += 1;
            }
        }
    }

    fn any_grant(&mut self, dice: &mut Dice) -> Option<Grant> {
        any(dice, self.grants.len()).map(|place| self.grants.swap_remove(place))
    }

    fn collect(&mut self) {
        for (number, verdict) in self.ledger.take_settled() {
            let place = self.tickets.iter().position(|(n, _)| *n == number);
            self.tickets
                .swap_remove(place.expect("told once, and only who waits"));
            self.answered += 1;
            if let Verdict::Go(grant) = verdict {
                self.grants.push(grant);
            }
        }
    }

    fn check(&self) {
        let ledger = &self.ledger;
        assert_eq!(self.asked, self.answered + self.tickets.len() as u64);
        for lane in Lane::ALL {
            let state = ledger.lanes.get(lane);
            let sum = |of: &dyn Fn(&Hook) -> u32| ledger.registry.all().map(of).sum::<u32>();
            let in_flight = sum(&|h| *h.in_flight.get(lane));
            let suspects = sum(&|h| if h.suspect { *h.in_flight.get(lane) } else { 0 });
            let held = self.grants.iter().filter(|g| g.lane == lane).count();
            assert_eq!(in_flight as usize, held);
            assert_eq!(state.budget.in_flight(), in_flight);
            assert_eq!(state.budget.suspects(), suspects);
            let places = self.tickets.iter().filter(|(_, t)| t.lane == lane).count();
            assert_eq!(state.line.waiting(), places);
            for ix in state.line.awaited() {
                let obstacle = ledger.obstacle(ix, lane, self.now);
                // Time alone may have made our network or a breaker ready; whoever looks next is let through.
                let by_time = ledger.egress.state() == EgressState::Paused;
                assert!(obstacle.is_some() || by_time, "{ix:?} could go");
            }
        }
        let open = ledger.registry.all().filter(|h| !h.breaker.is_closed());
        assert_eq!(ledger.registry.open_breakers(), open.count());
        assert!(ledger.registry.len() <= 2 * 104);
    }
}

fn any(dice: &mut Dice, count: usize) -> Option<usize> {
    let count = u64::try_from(count).unwrap();
    (count > 0).then(|| usize::try_from(dice.roll(count)).unwrap())
}

#[test]
fn the_books_agree_after_every_step_and_everybody_is_answered_once() {
    for seed in 0..12 {
        let (mut bench, mut dice) = (Bench::new(), Dice(seed));
        let mut waited = 0;
        for _ in 0..4_000 {
            bench.step(&mut dice);
            bench.check();
            waited = waited.max(bench.tickets.len());
        }
        assert!(waited > 5, "the run is no test if nobody has to wait");
        // All end well, and nobody is left.
        while !bench.grants.is_empty() || !bench.tickets.is_empty() {
            bench.now += Duration::from_millis(300);
            match bench.grants.pop() {
                Some(grant) => bench.ledger.release(&grant, bench.now),
                None => bench.look(&mut dice),
            }
            bench.collect();
        }
        bench.check();
        let snapshot = bench.ledger.snapshot();
        assert_eq!((snapshot.in_flight.first, snapshot.in_flight.due), (0, 0));
    }
}
