//! Which delivery tag everything up to and including it is done.

/// Tags that are done beyond the first that is not.
#[derive(Debug, Default)]
pub struct Done {
    /// All tags up to this one are done.
    up_to: u64,
    /// One flag a tag from `up_to + 1` on.
    beyond: std::collections::VecDeque<bool>,
}

impl Done {
    /// Notes a tag; tags count from 1.
    pub fn add(&mut self, tag: u64) {
        let Some(place) = tag.checked_sub(self.up_to + 1) else {
            return;
        };
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        if self.beyond.len() <= place {
            self.beyond.resize(place + 1, false);
        }
        if let Some(flag) = self.beyond.get_mut(place) {
            *flag = true;
        }
    }

    /// The highest tag up to which all are done, if it rose since it was asked for.
    pub fn take(&mut self) -> Option<u64> {
        let before = self.up_to;
        while self.beyond.front() == Some(&true) {
            self.beyond.pop_front();
            self.up_to += 1;
        }
        (self.up_to > before).then_some(self.up_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_never_pass_what_is_not_done() {
        let mut done = Done::default();
        done.add(2);
        assert_eq!(done.take(), None);
        done.add(1);
        done.add(4);
        assert_eq!(done.take(), Some(2));
        done.add(3);
        assert_eq!(done.take(), Some(4));
        assert_eq!(done.take(), None);
    }
}
