use domain::delivery::ParkReason;

use super::super::egress::EgressState;
use super::*;

fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Webhooks 1 to 9 are healthy and answer within 5 ms; what the others do is said by each test.
fn healthy() -> Manner {
    Manner::Good(ms(5))
}

#[test]
fn a_black_hole_holds_its_cap_and_then_nearly_nothing_and_its_neighbour_never_waits() {
    let mut world = World::new(|hook, _, _| match hook {
        1 => healthy(),
        _ => Manner::Silence,
    });
    world.traffic(1, 1, 50, s(0), s(300));
    world.traffic(100, 2, 50, s(0), s(300));
    world.run_until(s(11));
    assert!(world.tally(100).in_flight_peak <= 16);
    world.run_until(s(300));
    let (good, hole) = (world.tally(1), world.tally(100));
    assert_eq!(good.delivered, good.arrived);
    assert_eq!(good.wait_max(), Duration::ZERO);
    assert!(
        hole.in_flight <= 1,
        "nothing but a probe: {}",
        hole.in_flight
    );
    assert!(hole.failed <= 16 + 8, "{}", hole.failed);
    assert!(hole.wait_max() <= ms(250));
    assert_eq!(world.snapshot().open_breakers, 1);
    let last = hole.parkings.last().unwrap();
    assert_eq!(last.reason, ParkReason::BreakerOpen);
}

#[test]
fn a_hot_webhook_reaches_the_greatest_cap_and_is_never_parked() {
    // As fast as it can be asked, in bursts of what a prefetch may hold.
    let mut world = World::new(|_, _, _| Manner::Good(Duration::from_micros(700)));
    for n in 0..100 {
        world.burst(600, 1, 1, ms(n * 20));
    }
    world.run_until(s(30));
    let hot = world.tally(1);
    assert_eq!((hot.delivered, hot.parked), (60_000, 0));
    assert_eq!(hot.in_flight_peak, 512);
    assert!(hot.wait_max() < ms(10), "{:?}", hot.wait_max());
}

#[test]
fn a_webhook_that_keeps_up_at_a_tenth_of_a_second_gets_what_it_needs() {
    // 2,000 a second need 200 in flight, more than it begins with.
    let mut world = World::new(|_, _, _| Manner::Good(ms(100)));
    world.traffic(1, 1, 2_000, s(0), s(20));
    world.run_until(s(2));
    let parked_at_first = world.tally(1).parked;
    world.run_until(s(21));
    let hook = world.tally(1);
    assert_eq!(hook.parked, parked_at_first, "none after the first seconds");
    assert!(parked_at_first < 400, "{parked_at_first}");
}

#[test]
fn latency_of_our_own_making_throttles_nobody() {
    // The whole machine makes 4,000 a second, so that 512 in flight take 128 ms.
    let mut world = World::new(|_, in_flight, _| {
        Manner::Good(Duration::from_micros(
            250 * u64::try_from(in_flight).unwrap(),
        ))
    });
    for n in 0..80 {
        world.burst(512, 1, 1, ms(n * 150));
    }
    world.run_until(s(60));
    assert_eq!(world.tally(1).parked, 0);
}

#[test]
fn a_receiver_without_concurrency_is_kept_from_its_time_out() {
    // 50 a second, one after the other; asked for 1,000 a second.
    let mut world =
        World::new(|_, in_flight, _| Manner::Good(ms(20) * u32::try_from(in_flight).unwrap()));
    world.traffic(1, 1, 1_000, s(0), s(30));
    world.run_until(s(60));
    let hook = world.tally(1);
    assert_eq!(hook.failed, 0);
    assert!(hook.in_flight_peak <= 48, "{}", hook.in_flight_peak);
    assert_eq!(hook.parked + hook.delivered, hook.arrived);
    assert!(hook.parkings.iter().all(|p| p.reason == ParkReason::Cap));
    let spread = hook.parkings.last().unwrap().backlog_spread;
    assert!(spread > s(300), "28,000 at 50 a second: {spread:?}");
}

#[test]
fn two_hundred_dead_webhooks_cost_the_healthy_ones_nothing() {
    let mut world = World::new(|hook, _, _| {
        if hook < 10 {
            healthy()
        } else {
            Manner::Silence
        }
    });
    world.traffic(1, 1, 200, s(0), s(60));
    for hook in 100..300 {
        world.traffic(hook, 10 + hook % 50, 1, s(0), s(60));
    }
    world.run_until(s(70));
    let good = world.tally(1);
    assert_eq!(good.delivered, good.arrived);
    assert_eq!(good.wait_max(), Duration::ZERO);
    // Besides the share there is only what was in flight already when suspicion arose: one each.
    assert!(world.suspects_peak <= 256 + 200, "{}", world.suspects_peak);
    assert!(
        world.in_flight_peak <= 256 + 200 + 16,
        "{}",
        world.in_flight_peak
    );
    assert_eq!(
        world.snapshot().suspects_in_flight.first,
        world.snapshot().in_flight.first
    );
}

#[test]
fn slow_failing_and_silent_neighbours_on_one_host_cost_the_healthy_ones_nothing() {
    let mut world = World::new(|hook, _, _| match hook {
        100 => Manner::Silence,
        101 => Manner::Good(s(8)),
        102 => Manner::Status500(ms(3)),
        _ => healthy(),
    });
    for hook in 1..5 {
        world.traffic(hook, 1, 50, s(0), s(60));
    }
    for hook in 100..103 {
        world.traffic(hook, 2, 67, s(0), s(60));
    }
    world.run_until(s(75));
    for hook in 1..5 {
        let good = world.tally(hook);
        assert_eq!(good.delivered, good.arrived);
        assert_eq!(good.wait_max(), Duration::ZERO);
    }
    for hook in 100..103 {
        let bad = world.tally(hook);
        assert_eq!(bad.arrived, bad.parked + bad.failed + bad.delivered);
    }
    assert!(world.tally(101).in_flight_peak <= 32);
    assert!(world.tally(102).failed < 10);
}

#[test]
fn suspects_never_take_more_than_a_quarter() {
    // Many slow webhooks at rates that would fill everything, all known to be slow.
    let mut world = World::new(|hook, _, _| {
        if hook < 10 {
            healthy()
        } else {
            Manner::Good(s(3))
        }
    });
    for hook in 100..400 {
        world.burst(1, hook, hook, s(0));
    }
    world.run_until(s(4));
    world.suspects_peak = 0;
    for hook in 100..400 {
        world.traffic(hook, hook, 10, s(5), s(30));
    }
    world.traffic(1, 1, 500, s(5), s(30));
    world.run_until(s(40));
    assert_eq!(world.suspects_peak, 256);
    assert_eq!(world.tally(1).wait_max(), Duration::ZERO);
    let slow: Vec<_> = (100..400).map(|hook| world.tally(hook)).collect();
    assert!(slow.iter().all(|t| t.wait_max() <= ms(500)));
    assert!(slow.iter().all(|t| t.delivered > 1), "all get their turns");
    assert!(
        slow.iter()
            .flat_map(|t| &t.parkings)
            .any(|p| p.reason == ParkReason::Budget)
    );
}

#[test]
fn the_flood_of_one_partner_leaves_the_others_served() {
    // 40 webhooks of one partner that answer within 900 ms, asked for far more than the whole budget.
    let mut world = World::new(|hook, _, _| {
        if hook < 1_000 {
            Manner::Good(ms(900))
        } else {
            healthy()
        }
    });
    for hook in 100..140 {
        for n in 0..100 {
            world.burst(4, hook, 1, ms(n * 100));
        }
    }
    for hook in 1_000..1_100 {
        world.traffic(hook, hook, 2, s(0), s(10));
    }
    world.run_until(s(10));
    for hook in 1_000..1_100 {
        let other = world.tally(hook);
        assert_eq!(other.parked, 0);
        assert_eq!(
            other.wait_max(),
            Duration::ZERO,
            "there is always room left"
        );
    }
    let flood = (100..140)
        .map(|hook| world.tally(hook).in_flight)
        .sum::<usize>();
    assert!((600..=768).contains(&flood), "{flood}");
}

#[test]
fn overload_makes_wait_and_parks_nothing_and_partners_take_turns() {
    // Ten partners with more than the budget holds; none is slow, and none passes its own cap.
    let mut world = World::new(|_, _, _| Manner::Good(ms(200)));
    for hook in 0..100 {
        // One partner has nine times as much to deliver as any other.
        let partner = if hook < 50 { 0 } else { 1 + hook % 9 };
        let count = if partner == 0 { 160 } else { 16 };
        world.burst(count, hook, partner, s(0));
    }
    world.run_until(ms(1));
    assert_eq!(world.snapshot().in_flight.first, 1024);
    world.run_until(s(60));
    assert!(world.waiting_lanes().is_empty());
    for hook in 50..100 {
        assert_eq!(
            (world.tally(hook).delivered, world.tally(hook).parked),
            (16, 0)
        );
    }
}

#[test]
fn a_healed_webhook_gets_its_backlog_back_spread_over_what_it_can_take() {
    let healed = s(100);
    let mut world = World::new(move |hook, _, at| match hook {
        100 if at < healed => Manner::Status500(ms(2)),
        100 => Manner::Good(ms(2)),
        _ => healthy(),
    });
    world.traffic(100, 2, 100, s(0), s(100));
    world.run_until(s(100));
    let tally = world.tally(100).clone();
    assert!(tally.parked > 9_000);
    let last = *tally.parkings.last().unwrap();
    assert!(last.at_least > Duration::ZERO);
    assert!(
        last.backlog_spread > s(1) && last.backlog_spread < s(120),
        "{last:?}"
    );
    let from = healed + last.at_least;
    world.send_again(
        tally.parked + tally.failed,
        100,
        2,
        from,
        last.backlog_spread,
    );
    world.run_until(from + last.backlog_spread + s(10));
    let after = world.tally(100);
    assert!(after.parked - tally.parked <= 20, "only behind the probe");
    assert_eq!(
        after.delivered,
        after.arrived - tally.parked - tally.failed - (after.parked - tally.parked)
    );
    assert_eq!(world.snapshot().open_breakers, 0);
}

#[test]
fn an_outage_of_our_own_pauses_burns_nothing_and_ends_with_the_first_answer() {
    let (begins, ends) = (s(60), s(200));
    let mut world = World::new(move |hook, _, at| {
        if at >= begins && at < ends {
            Manner::Silence
        } else if hook < 10 {
            healthy()
        } else {
            Manner::Good(ms(50))
        }
    });
    for hook in 1..41 {
        world.traffic(hook, hook, 2, s(0), s(80));
    }
    world.run_until(s(65));
    assert_eq!(world.snapshot().egress, EgressState::Open);
    // By now all has failed that was in flight before the pause.
    world.run_until(s(82));
    assert_eq!(world.snapshot().egress, EgressState::Paused);
    let sum =
        |world: &World, of: fn(&Tally) -> usize| (1..41).map(|h| of(world.tally(h))).sum::<usize>();
    let (failed, ours) = (sum(&world, |t| t.failed), sum(&world, |t| t.ours));
    assert!(failed < 40, "those that made it plain: {failed}");
    world.run_until(s(192));
    assert_eq!(sum(&world, |t| t.failed), failed, "no attempts are used up");
    let probes = sum(&world, |t| t.ours) - ours;
    assert!((85..=111).contains(&probes), "about one a second: {probes}");
    assert!(!world.waiting_lanes().is_empty());
    world.run_until(s(215));
    let after = world.snapshot();
    assert_eq!(after.egress, EgressState::Open);
    assert!(world.waiting_lanes().is_empty());
    assert_eq!(after.open_breakers, 0);
}

#[test]
fn a_partner_over_its_share_gets_nothing_while_others_wait() {
    // Partner 1 fills three quarters while nobody else is there, and has as much again waiting.
    let mut world = World::new(|_, _, _| Manner::Good(ms(100)));
    for hook in 0..96 {
        world.burst(16, hook, 1, s(0));
    }
    for hook in 100..196 {
        let partner = 2 + hook % 8;
        world.burst(16, hook, partner, ms(10));
    }
    world.run_until(ms(50));
    let held = |world: &World| (0..96).map(|h| world.tally(h).in_flight).sum::<usize>();
    assert_eq!(
        (held(&world), world.snapshot().in_flight.first),
        (768, 1024)
    );
    // 768 slots come free one by one. The first 512 go to the others, and then partner 1 is one of nine.
    world.run_until(ms(101));
    let held = held(&world);
    assert!((25..35).contains(&held), "{held}");
    assert_eq!(world.snapshot().in_flight.first, 1024);
}

#[test]
fn a_webhook_that_had_nothing_to_do_is_not_silent() {
    let mut world = World::new(|_, _, _| Manner::Good(ms(600)));
    for n in 0..20 {
        world.burst(1, 1, 1, s(5 * n));
        // Another one, which looks at the clock meanwhile.
        world.burst(1, 2, 2, s(5 * n) + ms(300));
    }
    world.run_until(s(100));
    assert_eq!((world.tally(1).delivered, world.suspects_peak), (20, 0));
    assert_eq!(world.snapshot().suspects_in_flight.first, 0);
}

#[test]
fn suspects_get_their_turns_even_when_others_always_wait() {
    let mut world = World::new(|hook, _, _| match hook {
        500 => Manner::Good(s(2)),
        _ => Manner::Good(ms(240)),
    });
    world.burst(1, 500, 500, s(0));
    // More than the budget can do, from many partners.
    for hook in 0..200 {
        world.traffic(hook, hook, 24, s(3), s(8));
    }
    world.burst(3, 500, 500, s(6));
    world.run_until(s(10));
    assert_eq!(
        world.tally(500).parked,
        0,
        "the share has room, and overload parks nothing"
    );
    assert_eq!(world.tally(500).delivered, 4);
    assert!(
        world.tally(500).wait_max() < s(1),
        "{:?}",
        world.tally(500).wait_max()
    );
}

#[test]
fn breakers_that_opened_in_an_outage_of_ours_do_not_outlast_it() {
    let mut world = World::new(|_, _, at| {
        if at >= s(60) && at < s(80) {
            Manner::Unreachable(ms(2))
        } else {
            healthy()
        }
    });
    for hook in 1..41 {
        world.traffic(hook, hook, 20, s(0), s(72));
        // More comes when all is over, well within the time for which a breaker opens.
        world.traffic(hook, hook, 5, s(81), s(85));
    }
    world.run_until(ms(79_900));
    assert_eq!(world.snapshot().open_breakers, 40);
    assert_eq!(world.snapshot().egress, EgressState::Paused);
    assert!(
        !world.waiting_lanes().is_empty(),
        "those of the last two seconds"
    );
    world.run_until(s(81));
    assert!(world.waiting_lanes().is_empty());
    world.run_until(s(85));
    assert_eq!(world.snapshot().egress, EgressState::Open);
    assert_eq!(world.snapshot().open_breakers, 0);
}
