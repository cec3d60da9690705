//! The budget of one lane: how many requests may be in flight, how many of those may be suspects', and how many
//! one partner's.

use std::collections::HashMap;
use std::time::Instant;

use domain::id::PartnerId;

#[derive(Debug)]
pub struct Budget {
    max: u32,
    suspects_max: u32,
    partner_fair: u32,
    partner_max: u32,
    in_flight: u32,
    suspects: u32,
    /// Partners with something in flight. Bounded by `max`.
    by_partner: HashMap<PartnerId, u32>,
    /// Since when suspects have held their whole share.
    suspects_full_since: Option<Instant>,
}

impl Budget {
    pub fn new(max: u32, suspect_share: f64, partner_share: f64) -> Self {
        Self {
            max,
            suspects_max: share_of(max, suspect_share),
            partner_fair: share_of(max, partner_share),
            // What no single partner can ever take is left for those who come next: a partner whose receivers
            // all stop answering would otherwise hold everything until the time-out.
            partner_max: share_of(max, partner_share.max(1.0 - partner_share)),
            in_flight: 0,
            suspects: 0,
            by_partner: HashMap::new(),
            suspects_full_since: None,
        }
    }

    pub fn is_full(&self) -> bool {
        self.in_flight >= self.max
    }

    pub fn suspects_are_full(&self) -> bool {
        self.suspects >= self.suspects_max
    }

    pub fn suspects_full_since(&self) -> Option<Instant> {
        self.suspects_full_since
    }

    /// Whether a partner holds less than it may while others wait.
    pub fn is_fair(&self, partner: PartnerId) -> bool {
        self.held_by(partner) < self.partner_fair
    }

    /// Whether a partner holds less than it may ever.
    pub fn has_room(&self, partner: PartnerId) -> bool {
        self.held_by(partner) < self.partner_max
    }

    pub fn take(&mut self, partner: PartnerId, suspect: bool, now: Instant) {
        self.in_flight += 1;
        *self.by_partner.entry(partner).or_default() += 1;
        if suspect {
            self.suspects += 1;
            self.note_suspects(now);
        }
    }

    /// The same values as in [`Self::take`], but that the webhook may have changed sides meanwhile.
    pub fn give_back(&mut self, partner: PartnerId, suspect: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.suspects = self.suspects.saturating_sub(suspect.into());
        if let Some(held) = self.by_partner.get_mut(&partner) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.by_partner.remove(&partner);
            }
        }
    }

    /// A webhook with so many in flight came under suspicion, or was cleared of it.
    pub fn change_sides(&mut self, in_flight: u32, suspect: bool) {
        self.suspects = if suspect {
            self.suspects.saturating_add(in_flight)
        } else {
            self.suspects.saturating_sub(in_flight)
        };
    }

    /// Notes since when the suspects' share is full. Called when all that could be handed out is handed out, so
    /// that a slot that changes hands does not count as a free one.
    pub fn note_suspects(&mut self, now: Instant) {
        if self.suspects_are_full() {
            self.suspects_full_since.get_or_insert(now);
        } else {
            self.suspects_full_since = None;
        }
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub fn suspects(&self) -> u32 {
        self.suspects
    }

    fn held_by(&self, partner: PartnerId) -> u32 {
        self.by_partner.get(&partner).copied().unwrap_or_default()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share lies between 0 and 1"
)]
fn share_of(max: u32, share: f64) -> u32 {
    (f64::from(max) * share) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartnerId = PartnerId(1);

    #[test]
    fn shares_are_counted_and_given_back() {
        let now = Instant::now();
        let mut budget = Budget::new(8, 0.25, 0.25);
        budget.take(P, true, now);
        assert!(!budget.suspects_are_full() && budget.is_fair(P));
        budget.take(P, true, now);
        assert!(budget.suspects_are_full() && !budget.is_fair(P) && budget.has_room(P));
        assert_eq!(budget.suspects_full_since(), Some(now));
        for _ in 0..4 {
            budget.take(P, false, now);
        }
        assert!(!budget.has_room(P) && !budget.is_full());
        // The two suspects were cleared while in flight.
        budget.change_sides(2, false);
        for _ in 0..6 {
            budget.give_back(P, false);
        }
        assert_eq!((budget.in_flight(), budget.suspects()), (0, 0));
        assert!(budget.by_partner.is_empty());
    }

    #[test]
    fn a_whole_share_is_no_limit() {
        let mut budget = Budget::new(4, 1.0, 1.0);
        for _ in 0..3 {
            budget.take(P, false, Instant::now());
        }
        assert!(budget.is_fair(P) && budget.has_room(P));
    }
}
