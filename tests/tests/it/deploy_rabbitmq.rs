//! Holds what `docker-compose.yml` gives RabbitMQ against the topology, the limits, and what `make up` gives it.

use broker::topology::{self, Step};
use domain::limits::EVENT_BYTES_MAX;
use serde_json::Value;

use super::deploy_repository as repository;
use super::deploy_stack::Stack;

/// Which plugin brings a type of exchange that RabbitMQ does not have by itself.
const EXCHANGE_TYPES: [(&str, &str); 1] =
    [("x-consistent-hash", "rabbitmq_consistent_hash_exchange")];

/// What makes the configuration of the local stack.
fn script() -> String {
    repository::read("deploy/local/rabbitmq.sh")
}

/// Where a file of ours is mounted in the container.
fn mounted(source: &str) -> String {
    let stack = Stack::read();
    let container = stack.container("rabbitmq");
    let mounts = container.mounts();
    let mount = mounts.iter().find(|(from, _)| *from == source);
    let (_, to) = mount.unwrap_or_else(|| panic!("{source} is not mounted"));
    (*to).to_owned()
}

fn options() -> Vec<(String, String)> {
    let text = repository::read("deploy/rabbitmq/vellocity.conf");
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(" = ").expect("key = value"))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn option(key: &str) -> String {
    let options = options();
    let found = options.into_iter().find(|(known, _)| known == key);
    found.unwrap_or_else(|| panic!("no {key}")).1
}

#[test]
fn the_plugins_that_the_topology_needs_are_switched_on() {
    let plugins = repository::read("deploy/rabbitmq/enabled_plugins");
    let list = plugins
        .trim()
        .strip_prefix('[')
        .and_then(|list| list.strip_suffix("]."));
    let list: Vec<_> = list.expect("a list in Erlang's form").split(',').collect();
    for step in topology::steps(&broker::Config::default()) {
        let Step::Exchange { kind, .. } = step else {
            continue;
        };
        if !kind.starts_with("x-") {
            continue;
        }
        let plugin = EXCHANGE_TYPES.iter().find(|(known, _)| *known == kind);
        let (_, plugin) = plugin.unwrap_or_else(|| panic!("which plugin brings {kind}?"));
        assert!(list.contains(plugin), "{plugin} in {list:?}");
    }
    assert!(list.contains(&"rabbitmq_management"));
    let place = mounted("./deploy/rabbitmq/enabled_plugins");
    assert_eq!(place, "/etc/rabbitmq/enabled_plugins");
}

#[test]
fn the_largest_message_has_room_for_the_largest_event_and_what_we_add() {
    let max: usize = option("max_message_size").parse().unwrap();
    assert!(max >= 2 * EVENT_BYTES_MAX, "{max}");
    // In this folder the image reads every file.
    assert!(mounted("./deploy/rabbitmq/vellocity.conf").starts_with("/etc/rabbitmq/conf.d/"));
}

#[test]
fn options_are_those_of_the_local_stack() {
    let script = script();
    for (key, value) in options() {
        if key == "load_definitions" {
            assert_eq!(value, mounted("./deploy/rabbitmq/definitions.json"));
        } else {
            let line = format!("{key} = {value}");
            assert!(script.lines().any(|known| known == line), "{line}");
        }
    }
}

#[test]
fn the_definitions_hold_one_user_and_limit_every_queue() {
    let text = repository::read("deploy/rabbitmq/definitions.json");
    let definitions: Value = serde_json::from_str(&text).unwrap();
    let user = &definitions["users"][0]["name"];
    assert_eq!(definitions["permissions"][0]["user"], *user);
    assert_eq!(definitions["permissions"][0]["vhost"], "/");
    assert_eq!(definitions["vhosts"][0]["name"], "/");

    let policy = &definitions["policies"][0];
    assert_eq!(policy["name"], "vellocity-limits");
    assert_eq!(policy["apply-to"], "queues");
    let pattern = policy["pattern"].as_str().unwrap();
    let prefix = pattern.strip_prefix('^').unwrap().replace("\\.", ".");
    for step in topology::steps(&broker::Config::default()) {
        if let Step::Queue { name, .. } = step {
            assert!(name.starts_with(&prefix), "{name} and {pattern}");
        }
    }
    let bytes = policy["definition"]["max-length-bytes"].as_u64().unwrap();
    assert!(bytes > 100 * EVENT_BYTES_MAX as u64, "{bytes}");
    let local = format!("\"definition\": {{\"max-length-bytes\": {bytes}}}");
    assert!(script().contains(&local), "{local}");
    assert!(script().contains("\"name\": \"vellocity-limits\""));
}
