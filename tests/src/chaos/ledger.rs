//! What was published and what arrived, kept small: a run of half an hour has millions of deliveries.
//!
//! The publisher writes events, receivers write requests; whoever strikes asks how long the oldest event waits.

use super::clock::Ms;

/// Most webhooks of a partner.
pub const HOOKS_MAX: usize = 5;

/// How a webhook's receiver answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// 200 at once.
    Healthy,
    /// 500 now and then.
    Flaky,
    /// 200 after a while, longer than an event is held for it.
    Slow,
}

/// An event, by the number of its publishing.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// When it was due to be published.
    pub due: Ms,
    pub confirmed: Option<Ms>,
    pub partner: u16,
}

/// The requests of one delivery.
#[derive(Clone, Copy, Debug, Default)]
pub struct Got {
    pub requests: u16,
    /// Those that were, or would have been, answered with a 200.
    pub accepted: u16,
    kept: [Request; REQUESTS_KEPT],
}

#[derive(Clone, Copy, Debug, Default)]
struct Request {
    at: Ms,
    accepted: bool,
}

/// Requests beyond have no time, and with that no excuse.
pub const REQUESTS_KEPT: usize = 5;

impl Got {
    fn add(&mut self, request: Request) {
        if let Some(place) = self.kept.get_mut(usize::from(self.requests)) {
            *place = request;
        }
        self.requests = self.requests.saturating_add(1);
        self.accepted = self.accepted.saturating_add(request.accepted.into());
    }

    fn kept(&self) -> &[Request] {
        &self.kept[..usize::from(self.requests).min(REQUESTS_KEPT)]
    }

    /// When its first requests came.
    pub fn requested_at(&self) -> impl Iterator<Item = Ms> {
        self.kept().iter().map(|request| request.at)
    }

    /// When those of them came that were accepted.
    pub fn accepted_at(&self) -> impl Iterator<Item = Ms> {
        let accepted = self.kept().iter().filter(|request| request.accepted);
        accepted.map(|request| request.at)
    }
}

#[derive(Debug, Default)]
pub struct Ledger {
    /// The webhooks of each partner that every event of it matches.
    shape: Vec<Vec<Manner>>,
    sent: Vec<Sent>,
    /// [`HOOKS_MAX`] for each event.
    got: Vec<Got>,
    /// Each event before this one has arrived at all its healthy webhooks.
    oldest: usize,
    refusals: u64,
    strays: u64,
}

impl Ledger {
    #[must_use]
    pub fn new(shape: Vec<Vec<Manner>>) -> Self {
        assert!(shape.iter().all(|hooks| hooks.len() <= HOOKS_MAX));
        Self {
            shape,
            ..Self::default()
        }
    }

    /// Notes an event that is due; returns its number.
    pub fn publish(&mut self, due: Ms) -> u32 {
        let number = self.sent.len();
        let partner = u16::try_from(number % self.shape.len()).expect("few partners");
        self.sent.push(Sent {
            due,
            confirmed: None,
            partner,
        });
        self.got.extend([Got::default(); HOOKS_MAX]);
        u32::try_from(number).expect("a run has fewer events")
    }

    pub fn confirmed(&mut self, number: u32, at: Ms) {
        let confirmed = &mut self.sent[number as usize].confirmed;
        *confirmed = confirmed.or(Some(at));
    }

    /// Notes that the broker did not take an event, which is to be published again.
    pub fn refused(&mut self) {
        self.refusals += 1;
    }

    /// How often it did not take one.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refusals
    }

    /// Notes a request. One that no webhook should get is a stray.
    pub fn requested(&mut self, number: u32, partner: u16, hook: usize, accepted: bool, at: Ms) {
        let event = self.sent.get(number as usize);
        let matches = event.is_some_and(|event| event.partner == partner);
        if !matches || hook >= self.shape[usize::from(partner)].len() {
            self.strays += 1;
            return;
        }
        let got = &mut self.got[number as usize * HOOKS_MAX + hook];
        got.add(Request { at, accepted });
    }

    pub fn stray(&mut self) {
        self.strays += 1;
    }

    #[must_use]
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// For how long the oldest event has waited to arrive at all its healthy webhooks.
    pub fn oldest_waits(&mut self, now: Ms) -> Ms {
        while self.oldest < self.sent.len() && self.is_through(self.oldest) {
            self.oldest += 1;
        }
        let oldest = self.sent.get(self.oldest);
        oldest.map_or(0, |event| now.saturating_sub(event.due))
    }

    fn is_through(&self, number: usize) -> bool {
        let mut deliveries = self.deliveries_of(number);
        deliveries.all(|(manner, got)| manner != Manner::Healthy || got.accepted > 0)
    }

    #[must_use]
    pub fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// What is expected of an event and what came, by webhook.
    pub fn deliveries_of(&self, number: usize) -> impl Iterator<Item = (Manner, &Got)> {
        let manners = &self.shape[usize::from(self.sent[number].partner)];
        let first = number * HOOKS_MAX;
        manners
            .iter()
            .copied()
            .zip(&self.got[first..first + HOOKS_MAX])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(vec![
            vec![Manner::Healthy, Manner::Flaky],
            vec![Manner::Healthy],
        ])
    }

    #[test]
    fn the_oldest_event_waits_until_all_its_healthy_webhooks_have_it() {
        let mut ledger = ledger();
        let (first, second) = (ledger.publish(100), ledger.publish(200));
        assert_eq!(ledger.oldest_waits(1_000), 900);
        ledger.requested(first, 0, 1, true, 300);
        assert_eq!(ledger.oldest_waits(1_000), 900);
        ledger.requested(first, 0, 0, true, 300);
        assert_eq!(ledger.oldest_waits(1_000), 800);
        ledger.requested(second, 1, 0, true, 300);
        assert_eq!(ledger.oldest_waits(1_000), 0);
    }

    #[test]
    fn a_request_to_a_webhook_that_does_not_match_is_a_stray() {
        let mut ledger = ledger();
        let first = ledger.publish(0);
        ledger.requested(first, 1, 0, true, 1);
        ledger.requested(first, 0, 2, true, 1);
        ledger.requested(99, 0, 0, true, 1);
        assert_eq!(ledger.strays(), 3);
        assert!(ledger.deliveries_of(0).all(|(_, got)| got.requests == 0));
    }

    #[test]
    fn a_delivery_remembers_when_it_was_requested_and_accepted() {
        let mut ledger = ledger();
        let first = ledger.publish(0);
        for (accepted, at) in [(false, 10), (true, 20), (true, 30), (false, 40)] {
            ledger.requested(first, 0, 1, accepted, at);
        }
        let (_, got) = ledger.deliveries_of(0).nth(1).unwrap();
        assert_eq!((got.requests, got.accepted), (4, 2));
        assert!(got.requested_at().eq([10, 20, 30, 40]));
        assert!(got.accepted_at().eq([20, 30]));
    }

    #[test]
    fn requests_beyond_those_kept_are_counted() {
        let mut ledger = ledger();
        let first = ledger.publish(0);
        for at in 0..8 {
            ledger.requested(first, 0, 0, true, at);
        }
        let (_, got) = ledger.deliveries_of(0).next().unwrap();
        assert_eq!((got.requests, got.accepted), (8, 8));
        assert_eq!(got.accepted_at().count(), REQUESTS_KEPT);
    }
}
