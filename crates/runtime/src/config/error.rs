//! What is wrong with a configuration, as one line that names the key and where it was set.

use std::path::Path;

use ::config::{ConfigError as Cause, Value, ValueKind};

use super::{ENVIRONMENT, PREFIX, SECTIONS, SEPARATOR};

/// The last part of a key that may hold a secret: its value is never shown, nor is any value of the section `secrets`.
const SECRET_WORDS: &[&str] = &["url", "password", "secret", "token", "key", "endpoint"];

/// Ends a process with exit code 78. `Display` is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The named file cannot be read, or is no TOML.
    #[error("configuration file {path}: {why}")]
    File { path: String, why: String },
    /// A key is unknown, missing, or its value does not fit. `place` is `section.key in FILE` or the name of a variable.
    #[error("{place}: {why}")]
    Key { place: String, why: String },
}

impl ConfigError {
    /// A value that parses but breaks a rule, for checks after loading: `key` as `section.key`.
    pub fn rule(key: &str, why: impl ToString) -> Self {
        Self::Key {
            place: key.to_owned(),
            why: why.to_string(),
        }
    }

    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self::File {
            path: path.display().to_string(),
            why: format!("cannot be read: {error}"),
        }
    }

    /// The parser's text quotes the line at fault, which may hold a secret: only the position and the reason are kept.
    pub(super) fn syntax(path: &Path, error: &Cause) -> Self {
        let text = error.to_string();
        let told: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.contains('|'))
            .collect();
        Self::File {
            path: path.display().to_string(),
            why: told.join(": "),
        }
    }

    pub(super) fn not_unicode(variable: &str) -> Self {
        Self::Key {
            place: variable.to_owned(),
            why: "is not Unicode".to_owned(),
        }
    }

    pub(super) fn unknown_section(name: &str, section: &Value, file: Option<&Path>) -> Self {
        Self::Key {
            place: place(name, Some(section), file),
            why: format!(
                "unknown section `{name}`, expected one of {}",
                SECTIONS.join(", ")
            ),
        }
    }

    pub(super) fn not_a_section(name: &str, section: &Value, file: Option<&Path>) -> Self {
        Self::Key {
            place: place(name, Some(section), file),
            why: "is a section and needs a key".to_owned(),
        }
    }

    /// `tree` is what was being deserialized; it tells where the value at fault came from.
    pub(super) fn of_value(error: &Cause, tree: &Value, file: Option<&Path>) -> Self {
        let (mut key, mut why) = explain(error);
        if let Some((unknown, rest)) = unknown_field(&why) {
            key = join(&key, unknown);
            why = format!("unknown key{rest}");
        } else if is_secret(&key) && !matches!(error, Cause::NotFound(_)) {
            why = "is not a valid value (not shown, since it may hold a secret)".to_owned();
        }
        Self::Key {
            place: place(&key, find(tree, &key), file),
            why: why.split_whitespace().collect::<Vec<_>>().join(" "),
        }
    }
}

/// The key at fault, as far as it is known, and the reason without it.
fn explain(error: &Cause) -> (String, String) {
    match error {
        Cause::NotFound(key) => (key.clone(), "is missing".to_owned()),
        Cause::Type {
            unexpected,
            expected,
            key,
            ..
        } => (
            key.clone().unwrap_or_default(),
            format!("expected {expected}, found {unexpected}"),
        ),
        Cause::At { error, key, .. } => {
            let (inner, why) = explain(error);
            (join(key.as_deref().unwrap_or_default(), &inner), why)
        }
        other => (String::new(), readable(&other.to_string())),
    }
}

/// The library tells of an unknown value in the words of a Rust programmer.
fn readable(why: &str) -> String {
    match why.split_once(" does not have variant constructor ") {
        Some((_enum, value)) => format!("unknown value `{value}`"),
        None => why.to_owned(),
    }
}

fn join(outer: &str, inner: &str) -> String {
    if outer.is_empty() || inner.is_empty() {
        format!("{outer}{inner}")
    } else {
        format!("{outer}.{inner}")
    }
}

/// serde's "unknown field `x`, expected …" as `x` and the rest.
fn unknown_field(why: &str) -> Option<(&str, &str)> {
    why.strip_prefix("unknown field `")?.split_once('`')
}

fn is_secret(key: &str) -> bool {
    let mut parts = key.split('.');
    parts.next() == Some("secrets")
        || parts.next_back().is_some_and(|last| {
            last.split('_')
                .any(|word| SECRET_WORDS.contains(&word.trim_end_matches('s')))
        })
}

fn find<'t>(tree: &'t Value, key: &str) -> Option<&'t Value> {
    // An item of a list comes from where the list comes from.
    let key = key.split('[').next().unwrap_or_default();
    key.split('.')
        .try_fold(tree, |node, part| match &node.kind {
            ValueKind::Table(table) => table.get(part),
            _ => None,
        })
}

/// The variable's name, or the key and the file. A key without a value (missing) is named alone.
fn place(key: &str, value: Option<&Value>, file: Option<&Path>) -> String {
    let Some(value) = value else {
        return key.to_owned();
    };
    match (from_environment(value), file) {
        (true, _) => variable(key),
        (false, Some(file)) => format!("{key} in {}", file.display()),
        (false, None) => key.to_owned(),
    }
}

/// A table has no origin of its own: that of anything in it stands for it.
fn from_environment(value: &Value) -> bool {
    match &value.kind {
        ValueKind::Table(table) => table.values().any(from_environment),
        _ => value.origin() == Some(ENVIRONMENT),
    }
}

fn variable(key: &str) -> String {
    let key = key.split('[').next().unwrap_or_default();
    format!("{PREFIX}{SEPARATOR}{}", key.replace('.', SEPARATOR)).to_uppercase()
}
