//! A service's configuration, from three places, the later ones over the earlier: defaults in code (`#[serde(default)]`
//! on each section's type), a TOML file, and environment variables `VELLOCITY__SECTION__KEY`. Each section's type lives
//! beside its user; the service's own struct names the sections that it reads, and [`load`] fills it.
//!
//! One environment and one file serve all processes: a section that only another service reads is left out, a section
//! or key that nobody knows is an error. An error is one line that names the key and where it was set, and never shows
//! a value that may be secret.

mod error;
mod fields;

use std::collections::BTreeMap;
use std::env;
use std::path::Path;

use ::config::{Config, Environment, FileFormat, Map, Source, Value, ValueKind};
use serde::de::DeserializeOwned;

pub use self::error::ConfigError;

/// Every section that any process of the product reads.
pub const SECTIONS: &[&str] = &[
    "postgres",
    "rabbitmq",
    "secrets",
    "network",
    "telemetry",
    "admin",
    "api",
    "dispatcher",
    "retry",
    "retry_policy",
    "limits",
];

/// Keys whose value is a list in every process that reads them: in the environment they are written with commas.
/// Any other value keeps its commas (`network.ports` is one string).
pub const LISTS: &[&str] = &[
    "network.allowed_networks",
    "network.name_servers",
    "retry_policy.schedule_s",
];

/// Double underscores separate prefix, section and key, so that single ones may be part of a key. `VELLOCITY_API_URL`
/// and its like are therefore no keys.
const PREFIX: &str = "VELLOCITY";
const SEPARATOR: &str = "__";

/// How values from the environment are labelled within the loader.
const ENVIRONMENT: &str = "the environment";

/// Reads `T` from `file`, if one is given, and the environment.
///
/// `T` is a struct whose fields are sections; it and each section derive `Deserialize` with
/// `#[serde(default, deny_unknown_fields)]`. `lists` names further list-valued keys of the service's own, as
/// `section.key`; those of [`LISTS`] are always known.
///
/// Fails if the file cannot be read, if a section or key is unknown, or if a value does not fit its type.
pub fn load<T: DeserializeOwned>(file: Option<&Path>, lists: &[&str]) -> Result<T, ConfigError> {
    let mut variables = BTreeMap::new();
    for (name, value) in env::vars_os() {
        let Ok(name) = name.into_string() else {
            continue;
        };
        if !name.to_ascii_uppercase().starts_with(PREFIX) {
            continue;
        }
        let value = value
            .into_string()
            .map_err(|_| ConfigError::not_unicode(&name))?;
        variables.insert(name, value);
    }
    load_from(file, variables, lists)
}

/// [`load`] with the environment passed in, for tests.
pub fn load_from<T: DeserializeOwned>(
    file: Option<&Path>,
    variables: BTreeMap<String, String>,
    lists: &[&str],
) -> Result<T, ConfigError> {
    let mut builder = Config::builder();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError::unreadable(path, &e))?;
        let source = ::config::File::from_str(&text, FileFormat::Toml);
        // Parsed here and once more by the builder, so that a mistake is told with the file's name.
        source
            .collect()
            .map_err(|e| ConfigError::syntax(path, &e))?;
        builder = builder.add_source(source);
    }
    let merged = builder
        .add_source(Variables::new(variables, lists))
        .build()
        .map_err(|e| ConfigError::of_value(&e, &Value::new(None, ValueKind::Nil), file))?;
    let sections = own_sections::<T>(merged.cache, file)?;
    let tree = Value::new(None, ValueKind::Table(sections));
    T::deserialize(tree.clone()).map_err(|e| ConfigError::of_value(&e, &tree, file))
}

/// The sections that `T` reads, from all that were set.
fn own_sections<T: DeserializeOwned>(
    merged: Value,
    file: Option<&Path>,
) -> Result<Map<String, Value>, ConfigError> {
    let ValueKind::Table(sections) = merged.kind else {
        return Ok(Map::new());
    };
    let read = fields::of::<T>();
    let mut own = Map::new();
    for (name, section) in sections {
        if !SECTIONS.contains(&name.as_str()) {
            return Err(ConfigError::unknown_section(&name, &section, file));
        }
        if !matches!(section.kind, ValueKind::Table(_)) {
            return Err(ConfigError::not_a_section(&name, &section, file));
        }
        if read.is_none_or(|read| read.contains(&name.as_str())) {
            own.insert(name, section);
        }
    }
    Ok(own)
}

/// The environment as a source. Values stay strings (the deserializer parses them by the type that is wanted), because
/// guessing would turn a key of hexadecimal digits such as `1e7…` into a number.
#[derive(Debug, Clone)]
struct Variables {
    environment: Environment,
    lists: Vec<String>,
}

impl Variables {
    fn new(variables: BTreeMap<String, String>, lists: &[&str]) -> Self {
        Self {
            environment: Environment::with_prefix(PREFIX)
                .separator(SEPARATOR)
                .source(Some(variables.into_iter().collect())),
            lists: LISTS.iter().chain(lists).map(ToString::to_string).collect(),
        }
    }
}

impl Source for Variables {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        let mut values = self.environment.collect()?;
        for key in &self.lists {
            if let Some(value) = values.get_mut(key) {
                let text = value.clone().into_string()?;
                *value = Value::new(Some(&ENVIRONMENT.to_owned()), list(&text));
            }
        }
        Ok(values)
    }
}

/// The items between commas; none in an empty text.
fn list(text: &str) -> ValueKind {
    let origin = ENVIRONMENT.to_owned();
    ValueKind::Array(
        text.split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| Value::new(Some(&origin), item))
            .collect(),
    )
}

#[cfg(test)]
mod tests;
