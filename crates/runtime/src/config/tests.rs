use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Network {
    allow_http: bool,
    allowed_networks: Vec<String>,
    name_servers: Vec<SocketAddr>,
    ports: String,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            allow_http: false,
            allowed_networks: Vec::new(),
            name_servers: Vec::new(),
            ports: "443".to_owned(),
        }
    }
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Postgres {
    url: String,
    pool_size: u32,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Secrets {
    keys: BTreeMap<String, String>,
    active_key: String,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RetryPolicy {
    schedule_s: Vec<u64>,
    jitter: f64,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Service {
    network: Network,
    postgres: Postgres,
    secrets: Secrets,
    retry_policy: RetryPolicy,
}

/// A file that is gone when the test is.
struct TempFile(PathBuf);

impl TempFile {
    fn new(text: &str) -> Self {
        let path = env::temp_dir().join(format!("config-{:032x}.toml", rand::random::<u128>()));
        std::fs::File::create(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

fn variables(set: &[(&str, &str)]) -> BTreeMap<String, String> {
    set.iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn from_env(set: &[(&str, &str)]) -> Result<Service, ConfigError> {
    load_from(None, variables(set), &[])
}

fn from_file(text: &str) -> Result<Service, ConfigError> {
    load_from(Some(&TempFile::new(text).0), BTreeMap::new(), &[])
}

fn line(result: Result<Service, ConfigError>) -> String {
    let line = result.unwrap_err().to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[test]
fn without_file_and_environment_the_defaults_hold() {
    assert_eq!(from_env(&[]).unwrap(), Service::default());
}

#[test]
fn a_file_goes_over_the_defaults_and_the_environment_over_the_file() {
    let file =
        TempFile::new("[network]\nallow_http = true\nports = \"1\"\n[postgres]\npool_size = 3");
    let set = variables(&[
        ("VELLOCITY__NETWORK__PORTS", "80,443,1024-65535"),
        ("VELLOCITY__POSTGRES__POOL_SIZE", "9"),
    ]);
    let service: Service = load_from(Some(&file.0), set, &[]).unwrap();
    assert!(service.network.allow_http);
    assert_eq!(service.network.ports, "80,443,1024-65535");
    assert_eq!(service.postgres.pool_size, 9);
}

#[test]
fn lists_in_the_environment_are_separated_by_commas() {
    let service = from_env(&[
        (
            "VELLOCITY__NETWORK__ALLOWED_NETWORKS",
            "127.0.0.0/8, ::1/128",
        ),
        ("VELLOCITY__NETWORK__NAME_SERVERS", "127.0.0.1:5353"),
        ("VELLOCITY__RETRY_POLICY__SCHEDULE_S", "1,2,3"),
    ])
    .unwrap();
    assert_eq!(service.network.allowed_networks, ["127.0.0.0/8", "::1/128"]);
    assert_eq!(
        service.network.name_servers,
        ["127.0.0.1:5353".parse().unwrap()]
    );
    assert_eq!(service.retry_policy.schedule_s, [1, 2, 3]);
}

#[test]
fn an_empty_variable_is_an_empty_list_and_replaces_the_files() {
    let file = TempFile::new("[network]\nallowed_networks = [\"10.0.0.0/8\"]");
    let set = variables(&[("VELLOCITY__NETWORK__ALLOWED_NETWORKS", "")]);
    let service: Service = load_from(Some(&file.0), set, &[]).unwrap();
    assert!(service.network.allowed_networks.is_empty());
}

#[test]
fn a_service_can_name_list_keys_of_its_own() {
    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Api {
        origins: Vec<String>,
    }
    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Gateway {
        api: Api,
    }
    let set = variables(&[("VELLOCITY__API__ORIGINS", "a,b")]);
    let gateway: Gateway = load_from(None, set, &["api.origins"]).unwrap();
    assert_eq!(gateway.api.origins, ["a", "b"]);
}

#[test]
fn numbers_and_booleans_in_the_environment_are_parsed_by_the_type_of_their_key() {
    let service = from_env(&[
        ("VELLOCITY__NETWORK__ALLOW_HTTP", "true"),
        ("VELLOCITY__NETWORK__PORTS", "8080"),
        ("VELLOCITY__RETRY_POLICY__JITTER", "0.15"),
    ])
    .unwrap();
    assert!(service.network.allow_http);
    assert_eq!(service.network.ports, "8080");
    assert!((service.retry_policy.jitter - 0.15).abs() < 1e-9);
}

#[test]
fn a_secret_of_digits_stays_text_and_its_key_is_lower_case() {
    let digits = "12345678901234567890123456789012345678901234567890123456789012e4";
    let service = from_env(&[
        ("VELLOCITY__SECRETS__KEYS__LOCAL", digits),
        ("VELLOCITY__SECRETS__KEYS__2026-11", "1e7"),
    ])
    .unwrap();
    assert_eq!(service.secrets.keys["local"], digits);
    assert_eq!(service.secrets.keys["2026-11"], "1e7");
}

#[test]
fn sections_of_other_services_are_ignored_whatever_they_hold() {
    let service = from_env(&[
        ("VELLOCITY__API__ADDRESS", "127.0.0.1:1"),
        ("VELLOCITY__DISPATCHER__ANYTHING", "x"),
    ]);
    assert_eq!(service.unwrap(), Service::default());
    assert!(from_file("[retry]\nbatch = 5").is_ok());
}

#[test]
fn variables_with_a_single_underscore_are_no_keys() {
    let service = from_env(&[
        ("VELLOCITY_API_URL", "http://127.0.0.1:1"),
        ("VELLOCITY_AMQP_URL", "amqp://127.0.0.1"),
        ("VELLOCITY_DATABASE_URL", "postgres://127.0.0.1"),
        ("VELLOCITY_CONFIG", "/nowhere"),
    ]);
    assert_eq!(service.unwrap(), Service::default());
}

#[test]
fn an_unknown_section_is_named_with_its_source() {
    assert!(
        line(from_env(&[("VELLOCITY__NETWROK__PORTS", "1")])).starts_with(
            "VELLOCITY__NETWROK: unknown section `netwrok`, expected one of postgres,"
        )
    );
    let told = line(from_file("[netwrok]\nports = \"1\""));
    assert!(told.starts_with("netwrok in "), "{told}");
}

#[test]
fn an_unknown_key_is_named_with_its_source() {
    assert_eq!(
        line(from_env(&[(
            "VELLOCITY__POSTGRES__URI",
            "postgres://u:pw@h"
        )])),
        "VELLOCITY__POSTGRES__URI: unknown key, expected `url` or `pool_size`"
    );
    let told = line(from_file("[postgres]\nuri = \"postgres://u:pw@h\""));
    assert!(told.starts_with("postgres.uri in "), "{told}");
    assert!(told.ends_with(".toml: unknown key, expected `url` or `pool_size`"));
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_source() {
    assert_eq!(
        line(from_env(&[("VELLOCITY__POSTGRES__POOL_SIZE", "many")])),
        "VELLOCITY__POSTGRES__POOL_SIZE: expected an integer, found string \"many\""
    );
    let told = line(from_file("[postgres]\npool_size = \"many\""));
    assert!(told.starts_with("postgres.pool_size in "), "{told}");
}

#[test]
fn an_unknown_word_where_only_some_are_known_is_named() {
    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Logs {
        telemetry: crate::telemetry::Config,
    }
    let set = variables(&[("VELLOCITY__TELEMETRY__LOG_FORMAT", "xml")]);
    let error = load_from::<Logs>(None, set, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "VELLOCITY__TELEMETRY__LOG_FORMAT: unknown value `xml`"
    );
}

#[test]
fn an_item_of_a_list_that_does_not_fit_names_the_list() {
    let told = line(from_env(&[(
        "VELLOCITY__NETWORK__NAME_SERVERS",
        "1.1.1.1:53,x",
    )]));
    assert!(
        told.starts_with("VELLOCITY__NETWORK__NAME_SERVERS: "),
        "{told}"
    );
}

#[test]
fn a_value_without_a_key_is_an_error_that_does_not_show_it() {
    let told = line(from_env(&[("VELLOCITY__POSTGRES", "postgres://u:pw@h")]));
    assert_eq!(told, "VELLOCITY__POSTGRES: is a section and needs a key");
}

#[test]
fn values_that_may_be_secret_are_never_shown() {
    for told in [
        line(from_file("[postgres]\nurl = [\"hunter2\"]")),
        line(from_file("[secrets]\nactive_key = [\"hunter2\"]")),
        line(from_file("[secrets]\nkeys = \"hunter2\"")),
        line(from_file("[secrets]\nkeys = { local = \"hunter2 }")),
        line(from_env(&[("VELLOCITY__SECRETS__KEYS", "hunter2")])),
    ] {
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_file_that_is_named_must_exist() {
    let result: Result<Service, _> = load_from(
        Some(Path::new("/nowhere/vellocity.toml")),
        BTreeMap::new(),
        &[],
    );
    let told = line(result);
    assert!(
        told.starts_with("configuration file /nowhere/vellocity.toml: cannot be read: "),
        "{told}"
    );
}

#[test]
fn a_file_that_is_no_toml_is_told_with_the_position() {
    let told = line(from_file("[network]\nports = \n"));
    assert!(told.contains("line 2"), "{told}");
}
