//! Spans of time as people write them on a command line: `500ms`, `10s`, `5m`, `24h`, `90d`.

use std::time::Duration;

const KEY_LIFE_MAX: Duration = Duration::from_hours(3650 * 24);
const WAIT_MAX: Duration = Duration::from_hours(24);

/// Reads a whole number with its unit.
///
/// # Errors
/// With a sentence that says what is expected.
fn parse(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    let total = number.checked_mul(ms).ok_or("that is too long")?;
    Ok(Duration::from_millis(total))
}

/// How long a key may live.
///
/// # Errors
/// With a sentence that says what is expected.
pub fn key_life(text: &str) -> Result<Duration, String> {
    within(text, KEY_LIFE_MAX, "10 years (3650d)")
}

/// How long a command may wait for an event.
///
/// # Errors
/// With a sentence that says what is expected.
pub fn wait(text: &str) -> Result<Duration, String> {
    within(text, WAIT_MAX, "a day (24h)")
}

fn within(text: &str, max: Duration, max_in_words: &str) -> Result<Duration, String> {
    let duration = parse(text)?;
    if duration.is_zero() || duration > max {
        return Err(format!(
            "it must be more than nothing and at most {max_in_words}"
        ));
    }
    Ok(duration)
}

fn expected() -> String {
    "write a whole number and its unit: ms, s, m, h or d, as in 10s or 90d".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_its_unit_are_a_duration() {
        for (text, ms) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("90d", 7_776_000_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_for_a_key_or_a_wait_is_refused() {
        assert!(key_life("3650d").is_ok() && wait("24h").is_ok());
        for text in ["0s", "3651d", "99999999d"] {
            assert!(key_life(text).is_err(), "{text}");
        }
        for text in ["0ms", "25h", "999999999d"] {
            assert!(wait(text).is_err(), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "10 s",
            "10S",
            "99999999999999999999d",
            "9999999999999999d",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
