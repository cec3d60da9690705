use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definitions_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn json_may_stand_anywhere_on_the_line() {
    for line in [
        "hookctl --json partner list",
        "hookctl partner --json list",
        "hookctl partner list --json",
        "hookctl publish a.b --json --partner 1 --data {}",
    ] {
        assert!(parse(line).unwrap().places.json, "{line}");
    }
    assert!(!parse("hookctl partner list").unwrap().places.json);
}

#[test]
fn every_command_of_the_surface_is_understood() {
    for line in [
        "partner create --name N --plan Starter",
        "partner create --name N --plan Command+",
        "partner list",
        "partner set-plan 1 Accelerate",
        "partner suspend 1",
        "partner resume 1",
        "key create --partner 1",
        "key create --partner 1 --scope read --expires 90d",
        "key create --partner 1 --scope read --scope write",
        "key list",
        "key list --partner 1",
        "key revoke 3",
        "publish listing.updated --partner 1 --data @file --id evt_1 --format json --wait 10s",
        "publish listing.updated --partner -1 --data -5",
        "deliveries list --webhook 1 --event evt_1 --status in_flight",
        "deliveries show dlv_00000000000000000000000007",
        "event-types list",
        "rejected list",
        "rejected requeue 1 2",
        "rejected drop --all",
        "dead list",
        "dead requeue --all",
        "dead drop 7",
        "status",
    ] {
        if let Err(error) = parse(&format!("hookctl {line}")) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        "",
        "partner create --plan Starter",
        "partner create --name N --plan starter",
        "partner suspend 0",
        "key create --partner 1 --scope admin",
        "key create --partner 1 --expires soon",
        "publish listing.updated --data {}",
        "deliveries show evt_1",
        "deliveries list --status lost",
        "rejected requeue",
        "rejected requeue 1 --all",
    ] {
        assert!(parse(&format!("hookctl {line}")).is_err(), "{line}");
    }
}

#[test]
fn every_command_that_does_something_has_examples() {
    fn visit(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        if command.has_subcommands() {
            command.get_subcommands().for_each(|sub| visit(sub, &path));
        } else {
            let help = command.get_after_help().map(ToString::to_string);
            assert!(help.is_some_and(|h| h.starts_with("Examples:")), "{path}");
        }
    }
    visit(&Cli::command(), "");
}
