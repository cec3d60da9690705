use super::*;

const RULES: Rules = Rules {
    failures_in_row: 5,
    error_share: 0.5,
    requests_min: 20,
    window: Duration::from_secs(30),
    open_for: Duration::from_secs(30),
    open_for_max: Duration::from_secs(900),
};
/// No jitter.
const MIDDLE: f64 = 0.5;
const FAILURE: Sign = Sign::Trouble { retry_after: None };

struct Bench {
    breaker: Breaker,
    start: Instant,
}

impl Bench {
    fn new() -> Self {
        let start = Instant::now();
        Self {
            breaker: Breaker::new(start),
            start,
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn record(&mut self, ms: u64, sign: Sign) -> Option<BreakerState> {
        let now = self.at(ms);
        self.breaker.record(sign, false, &RULES, now, MIDDLE)
    }

    fn probe(&mut self, ms: u64, sign: Sign) -> Option<BreakerState> {
        let now = self.at(ms);
        assert_eq!(self.breaker.pass(now), Pass::Probe);
        self.breaker.begin_probe();
        self.breaker.record(sign, true, &RULES, now, MIDDLE)
    }

    fn five_failures(&mut self, ms: u64) -> Option<BreakerState> {
        for _ in 0..4 {
            assert_eq!(self.record(ms, FAILURE), None);
        }
        self.record(ms, FAILURE)
    }
}

fn asks(seconds: u64) -> Sign {
    Sign::Trouble {
        retry_after: Some(Duration::from_secs(seconds)),
    }
}

fn open(seconds: u64) -> Option<BreakerState> {
    Some(BreakerState::Open {
        open_for: Duration::from_secs(seconds),
    })
}

#[test]
fn five_failures_in_a_row_open_it_and_one_success_between_them_does_not() {
    let mut bench = Bench::new();
    for _ in 0..4 {
        bench.record(0, FAILURE);
    }
    bench.record(0, Sign::Works);
    assert_eq!(bench.five_failures(1), open(30));
    assert_eq!(
        bench.breaker.pass(bench.at(1_001)),
        Pass::No {
            remaining: Duration::from_secs(29)
        }
    );
}

#[test]
fn half_of_twenty_in_thirty_seconds_open_it() {
    let mut bench = Bench::new();
    let mut opened_at = None;
    for n in 0..40 {
        let sign = if n % 2 == 0 { Sign::Works } else { FAILURE };
        if bench.record(n * 1_000, sign).is_some() {
            opened_at = Some(n + 1);
            break;
        }
    }
    assert_eq!(opened_at, Some(20));
    // The same spread over so much time that there are never twenty in the window.
    let mut sparse = Bench::new();
    for n in 0..100 {
        let sign = if n % 2 == 0 { Sign::Works } else { FAILURE };
        assert_eq!(sparse.record(n * 2_000, sign), None);
    }
}

#[test]
fn one_probe_at_a_time_and_its_success_closes() {
    let mut bench = Bench::new();
    bench.five_failures(0);
    let later = bench.at(30_000);
    assert_eq!(bench.breaker.pass(later), Pass::Probe);
    bench.breaker.begin_probe();
    assert_eq!(
        bench.breaker.pass(later),
        Pass::No {
            remaining: Duration::ZERO
        }
    );
    // What was in flight since before says nothing.
    assert_eq!(bench.record(30_001, Sign::Works), None);
    assert_eq!(bench.record(30_001, FAILURE), None);
    bench.breaker.abandon_probe(later);
    assert_eq!(bench.probe(30_002, Sign::Works), Some(BreakerState::Closed));
    assert_eq!(bench.breaker.pass(bench.at(30_003)), Pass::Free);
}

#[test]
fn each_failed_probe_doubles_the_time_up_to_a_quarter_of_an_hour() {
    let mut bench = Bench::new();
    bench.five_failures(0);
    let mut now_s = 30;
    for expected_s in [60, 120, 240, 480, 900, 900] {
        assert_eq!(bench.probe(now_s * 1_000, FAILURE), open(expected_s));
        now_s += expected_s;
    }
}

#[test]
fn one_that_fails_again_right_after_it_closed_goes_on_doubling() {
    let mut bench = Bench::new();
    bench.five_failures(0);
    bench.probe(30_000, Sign::Works);
    assert_eq!(bench.five_failures(31_000), open(60));
    bench.probe(91_000, Sign::Works);
    assert_eq!(bench.five_failures(152_000), open(30));
}

#[test]
fn retry_after_opens_it_for_that_long_and_never_shortens() {
    let mut bench = Bench::new();
    assert_eq!(bench.record(0, asks(0)), None);
    assert_eq!(bench.record(0, asks(7)), open(7));
    // Another answer of the same round trip asks for more.
    assert_eq!(bench.record(10, asks(9)), None);
    assert_eq!(
        bench.breaker.pass(bench.at(9_000)),
        Pass::No {
            remaining: Duration::from_millis(10)
        }
    );
    assert_eq!(bench.probe(9_010, asks(600)), open(600));
    assert_eq!(bench.probe(700_000, asks(1)), open(60));
    assert_eq!(bench.probe(800_000, asks(10_000_000)), open(86_400));
}

#[test]
fn openings_are_jittered() {
    for (chance, expected_ms) in [(0.0, 25_500), (1.0, 34_500)] {
        let mut bench = Bench::new();
        for _ in 0..4 {
            bench.record(0, FAILURE);
        }
        let state = bench
            .breaker
            .record(FAILURE, false, &RULES, bench.start, chance);
        assert_eq!(
            state,
            Some(BreakerState::Open {
                open_for: Duration::from_millis(expected_ms)
            })
        );
    }
}

#[test]
fn what_opened_during_an_outage_of_ours_is_probed_at_once() {
    let mut bench = Bench::new();
    bench.five_failures(1_000);
    let (from, to) = (bench.at(500), bench.at(2_000));
    bench.breaker.forgive(bench.at(1_001), to);
    assert_ne!(bench.breaker.pass(to), Pass::Probe);
    bench.breaker.forgive(from, to);
    assert_eq!(bench.breaker.pass(to), Pass::Probe);
}
