//! The `Retry-After` header: how long a receiver asks us to wait.

use std::time::{Duration, SystemTime};

/// Nobody is asked to wait longer; also what an absurd number counts as.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads seconds or an HTTP date. A date that has passed means zero, and what is neither means nothing.
pub(super) fn parse(value: &[u8], now: SystemTime) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only digits: what doesn't parse is too large.
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let wait = until.duration_since(now).unwrap_or(Duration::ZERO);
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_garbage_is_ignored() {
        // 2026-02-26T14:20:00Z
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_772_115_600);
        let day = 24 * 60 * 60;
        let cases: [(&[u8], Option<u64>); 18] = [
            (b"0", Some(0)),
            (b"120", Some(120)),
            (b"  7 ", Some(7)),
            (b"86401", Some(day)),
            (b"99999999999999999999999999", Some(day)),
            (b"Thu, 26 Feb 2026 14:21:30 GMT", Some(90)),
            (b"Thursday, 26-Feb-26 14:21:30 GMT", Some(90)),
            (b"Thu Feb 26 14:21:30 2026", Some(90)),
            (b"Thu, 26 Feb 2026 14:19:00 GMT", Some(0)),
            (b"Fri, 31 Dec 9999 23:59:59 GMT", Some(day)),
            (b"", None),
            (b"-5", None),
            (b"+5", None),
            (b"1.5", None),
            (b"soon", None),
            (b"5\0", None),
            (b"\xff\xfe", None),
            (b"Thu, 99 Feb 2026 14:21:30 GMT", None),
        ];
        for (value, seconds) in cases {
            let shown = String::from_utf8_lossy(value);
            assert_eq!(
                parse(value, now),
                seconds.map(Duration::from_secs),
                "{shown}"
            );
        }
    }
}
