//! Holds `docker-compose.yml` against the programs, their configuration and the Dockerfile: there is no engine here that
//! could start it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::{Command, Output};

use clap::Parser as _;
use runtime::{Shutdown, probes};
use tests::process::program;

use super::config_service::Service;
use super::deploy_stack::{Container, SECRETS_KEY, Stack, interpolated};
use super::deploy_stages::Dockerfile;
use super::{config_keys, deploy_repository as repository};

const SERVERS: [&str; 2] = ["postgres", "rabbitmq"];
const PREFIX: &str = "VELLOCITY__";

/// The configuration that a container's environment gives its service; every variable has to be an option of it.
fn configuration<S: Service>(container: &Container) -> S {
    let keys = config_keys::of::<S>();
    for name in container.environment.keys() {
        let key = name
            .strip_prefix(PREFIX)
            .unwrap_or_else(|| panic!("{name}"));
        let key = key.replace("__", ".").to_lowercase();
        let is_read = keys
            .iter()
            .any(|known| key == *known || key.starts_with(&format!("{known}.")));
        assert!(is_read, "{} does not read {name}", S::NAME);
    }
    S::load(None, container.environment.clone()).unwrap()
}

#[test]
fn the_environment_of_a_service_is_a_configuration_that_it_accepts() {
    fn check<S: Service>(stack: &Stack) {
        let configuration: S = configuration(stack.container(S::NAME));
        configuration.check().unwrap();
    }
    let stack = Stack::read();
    check::<management_api::Config>(&stack);
    check::<dispatcher::Config>(&stack);
    check::<retry::Config>(&stack);
    // It reads as much of it as it needs.
    configuration::<management_api::Config>(stack.container("migrate"));
}

#[test]
fn a_service_listens_on_its_default_ports_on_every_address_and_they_are_published() {
    fn check<S: Service>(stack: &Stack) {
        let container = stack.container(S::NAME);
        let configured = configuration::<S>(container).addresses();
        let everywhere = S::default()
            .addresses()
            .into_iter()
            .map(|address| SocketAddr::from(([0, 0, 0, 0], address.port())));
        assert_eq!(configured, everywhere.collect::<Vec<_>>());
        let ports: Vec<_> = configured.iter().map(SocketAddr::port).collect();
        assert_eq!(container.published(), ports, "{}", S::NAME);
        assert_eq!(Dockerfile::read().stage(S::NAME).ports(), ports);
    }
    let stack = Stack::read();
    check::<management_api::Config>(&stack);
    check::<dispatcher::Config>(&stack);
    check::<retry::Config>(&stack);
    assert_eq!(stack.container("postgres").published(), [5432]);
    assert_eq!(stack.container("rabbitmq").published(), [5672, 15672]);
}

#[test]
fn services_permit_what_the_local_stack_permits() {
    let script = repository::read("deploy/local/stack.sh");
    let stack = Stack::read();
    for name in ["management-api", "dispatcher"] {
        let environment = &stack.container(name).environment;
        for line in script.lines().filter(|line| line.starts_with(PREFIX)) {
            let (variable, local) = line.split_once('=').unwrap();
            let value = environment.get(variable);
            let value = value.unwrap_or_else(|| panic!("{name} lacks {variable}"));
            // More networks than the local stack's: a container is not on loopback. Places differ.
            if !local.contains('$') {
                assert!(value.starts_with(local), "{name}: {variable}={value}");
            }
        }
    }
}

#[test]
fn users_passwords_and_hosts_are_those_of_the_servers() {
    let stack = Stack::read();
    let postgres = &stack.container("postgres").environment;
    let definitions: serde_json::Value =
        serde_json::from_str(&repository::read("deploy/rabbitmq/definitions.json")).unwrap();
    let operator = &definitions["users"][0];
    let postgres_url = format!(
        "postgres://{}:{}@postgres:5432/{}",
        postgres["POSTGRES_USER"], postgres["POSTGRES_PASSWORD"], postgres["POSTGRES_DB"]
    );
    let rabbitmq_url = format!(
        "amqp://{}:{}@rabbitmq:5672/%2f",
        operator["name"].as_str().unwrap(),
        operator["password"].as_str().unwrap()
    );
    let migrate: management_api::Config = configuration(stack.container("migrate"));
    assert_eq!(migrate.postgres_url(), postgres_url);
    let api: management_api::Config = configuration(stack.container("management-api"));
    assert_eq!(
        (api.postgres_url(), api.rabbitmq_url()),
        (&*postgres_url, &*rabbitmq_url)
    );
    let dispatcher: dispatcher::Config = configuration(stack.container("dispatcher"));
    assert_eq!(dispatcher.postgres_url(), postgres_url);
    assert_eq!(dispatcher.rabbitmq_url(), rabbitmq_url);
    let retry: retry::Config = configuration(stack.container("retry"));
    assert_eq!(retry.postgres_url(), postgres_url);
    assert_eq!(retry.rabbitmq_url(), rabbitmq_url);

    let hookctl = &stack.container("hookctl").environment;
    let api_url = format!("http://management-api:{}", api.api.address.port());
    assert_eq!(hookctl["VELLOCITY_DATABASE_URL"], postgres_url);
    assert_eq!(hookctl["VELLOCITY_AMQP_URL"], rabbitmq_url);
    assert_eq!(hookctl["VELLOCITY_API_URL"], api_url);
    // hookctl itself says what it reads, by its help.
    let help = run("hookctl", &["--help"]);
    for variable in hookctl.keys() {
        assert!(help.contains(variable.as_str()), "{variable}");
    }
}

#[test]
fn services_start_after_healthy_servers_and_the_migration() {
    let stack = Stack::read();
    for name in ["management-api", "dispatcher", "retry"] {
        let conditions: BTreeMap<_, _> = stack
            .container(name)
            .depends_on
            .iter()
            .map(|(name, dependency)| (name.as_str(), dependency.condition.as_str()))
            .collect();
        let expected = BTreeMap::from([
            ("postgres", "service_healthy"),
            ("rabbitmq", "service_healthy"),
            ("migrate", "service_completed_successfully"),
        ]);
        assert_eq!(conditions, expected, "{name}");
    }
    for name in SERVERS {
        assert!(stack.container(name).healthcheck.is_some(), "{name}");
    }
    let migrate = stack.container("migrate");
    assert_eq!(migrate.depends_on["postgres"].condition, "service_healthy");
    // A tool that is started by hand; `up` leaves it alone.
    assert_eq!(stack.container("hookctl").profiles, ["tools"]);
}

#[test]
fn what_we_build_is_a_target_with_a_command_that_its_program_knows() {
    let stack = Stack::read();
    let file = Dockerfile::read();
    let mut built = BTreeSet::new();
    for (name, container) in &stack.services {
        let Some(build) = &container.build else {
            continue;
        };
        assert_eq!(build.context, ".", "{name}");
        assert_eq!(build.dockerfile, "deploy/Dockerfile", "{name}");
        let program = file.stage(&build.target).program();
        let mut words: Vec<_> = container.command.iter().map(String::as_str).collect();
        words.push("--help");
        run(&program, &words);
        built.insert(program);
        // Two services that build one name would do so at the same time.
        assert_eq!(container.image, None, "{name}");
        assert!(container.read_only, "{name}");
        assert_eq!(container.cap_drop, ["ALL"], "{name}");
    }
    assert_eq!(built, repository::programs());
    assert_eq!(stack.container("migrate").command, ["migrate"]);
}

/// What the program says; it must accept the words.
fn run(name: &str, words: &[&str]) -> String {
    let output = Command::new(program(name)).args(words).output().unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    let told = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{name} {words:?}: {told}");
    String::from_utf8(stdout).unwrap()
}

#[test]
fn the_examples_at_the_top_are_lines_that_hookctl_knows() {
    let text = repository::read("docker-compose.yml");
    let examples: Vec<_> = text
        .lines()
        .take_while(|line| line.starts_with('#'))
        .filter_map(|line| line.split_once("docker compose run --rm "))
        .map(|(_, line)| line)
        .collect();
    assert!(!examples.is_empty());
    for example in examples {
        hookctl::arguments::Cli::try_parse_from(example.split(' '))
            .unwrap_or_else(|error| panic!("{example}: {error}"));
    }
}

#[test]
fn images_of_servers_are_pinned_to_a_version() {
    let stack = Stack::read();
    for name in SERVERS {
        let image = stack.container(name).image.as_deref().unwrap();
        let (_, tag) = image.split_once(':').unwrap();
        let version = tag.split('-').next().unwrap();
        let numbers: Vec<u32> = version.split('.').map(|n| n.parse().unwrap()).collect();
        assert!(numbers.len() >= 2, "{image}");
    }
}

#[test]
fn a_service_has_more_time_to_end_than_it_takes() {
    /// Flushing, closing connections and the admin port come after what was under way.
    const MARGIN_S: u64 = 15;
    fn check<S: Service>(stack: &Stack) {
        let container = stack.container(S::NAME);
        let needed =
            configuration::<S>(container).drain() + std::time::Duration::from_secs(MARGIN_S);
        assert!(container.grace() > needed, "{}: {needed:?}", S::NAME);
    }
    let stack = Stack::read();
    check::<management_api::Config>(&stack);
    check::<dispatcher::Config>(&stack);
    check::<retry::Config>(&stack);
}

#[test]
fn what_is_mounted_exists_and_data_has_a_volume() {
    let stack = Stack::read();
    for (name, container) in &stack.services {
        for (from, _) in container.mounts() {
            match from.strip_prefix("./") {
                Some(path) => assert!(repository::root().join(path).is_file(), "{name}: {path}"),
                None => assert!(stack.volumes.contains_key(from), "{name}: {from}"),
            }
        }
    }
    // RabbitMQ finds its data by the name of its host.
    let rabbitmq = stack.container("rabbitmq");
    assert_eq!(rabbitmq.hostname.as_deref(), Some("rabbitmq"));
}

#[test]
fn without_a_key_nothing_starts_and_it_is_said_how_to_make_one() {
    let text = repository::read("docker-compose.yml");
    let told = interpolated(&text, |_| None).unwrap_err();
    assert!(
        told.starts_with("VELLOCITY_SECRETS_KEY is missing"),
        "{told}"
    );
    assert!(told.contains(".env"), "{told}");
    let settings = Stack::read();
    let environment = &settings.container("dispatcher").environment;
    assert_eq!(environment["VELLOCITY__SECRETS__KEYS__LOCAL"], SECRETS_KEY);
    // The retry service opens no secret.
    let retry = &settings.container("retry").environment;
    assert!(
        retry.keys().all(|name| !name.contains("SECRETS")),
        "{retry:?}"
    );
    let ignored = repository::read(".gitignore");
    assert!(ignored.lines().any(|line| line == "/.env"), "{ignored}");
}

/// The check is run as it stands, against the port of real probes.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_healthy_as_soon_as_its_probes_say_ready() {
    let readiness = probes::Readiness::new();
    let check = readiness.check("postgres");
    let registry = runtime::metrics::registry("test").unwrap();
    let config = probes::Config::local(0);
    let probes = probes::bind(&config, readiness, registry).await.unwrap();
    let address = probes.local_addr();
    let shutdown = Shutdown::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(probes.run(shutdown.clone()));

    for name in ["management-api", "dispatcher", "retry"] {
        check.failing("away");
        assert!(!is_healthy(name, address).await, "{name}");
        check.ok();
        assert!(is_healthy(name, address).await, "{name}");
    }
    shutdown.begin();
    tasks.join_all().await;
    assert!(!is_healthy("retry", address).await);
}

/// Runs a service's health check, with the admin port at another address.
async fn is_healthy(name: &str, address: SocketAddr) -> bool {
    let stack = Stack::read();
    let check = stack.container(name).healthcheck.as_ref().unwrap();
    let [kind, program, words @ ..] = check.test.as_slice() else {
        panic!("{:?}", check.test);
    };
    assert_eq!(kind, "CMD");
    let mut command = Command::new(program);
    command
        .args(words)
        .env("VELLOCITY__ADMIN__ADDRESS", address.to_string());
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.unwrap().unwrap().status.success()
}
