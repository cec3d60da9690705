//! Holds `deploy/config/*.toml` against the types that read them: every option is there, with its default, its unit and
//! the variable that sets it, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::config_service::Service;
use super::config_text::{self, Documented, Section};
use super::{config_keys, deploy_repository as repository};

fn path<S: Service>() -> PathBuf {
    repository::root().join(format!("deploy/config/{}.toml", S::NAME))
}

fn text<S: Service>() -> String {
    std::fs::read_to_string(path::<S>()).unwrap()
}

fn sections<S: Service>() -> Vec<Section> {
    config_text::parse(&text::<S>())
}

fn options<S: Service>() -> Vec<Documented> {
    let sections = sections::<S>().into_iter();
    sections.flat_map(|section| section.options).collect()
}

/// The option of the type that a key of the file belongs to: itself, or the map that it is in.
fn option_of<'k>(key: &str, keys: &'k [String]) -> Option<&'k String> {
    keys.iter().find(|known| {
        key.strip_prefix(known.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

#[test]
fn every_option_of_a_service_is_in_its_file_and_nothing_else_is() {
    fn check<S: Service>() {
        let keys = config_keys::of::<S>();
        let mut documented = BTreeSet::new();
        for option in options::<S>() {
            let known = option_of(&option.key, &keys)
                .unwrap_or_else(|| panic!("{} does not read {}", S::NAME, option.key));
            documented.insert(known.clone());
        }
        let keys: BTreeSet<_> = keys.into_iter().collect();
        let missing: Vec<_> = keys.difference(&documented).collect();
        assert!(missing.is_empty(), "{}.toml lacks {missing:?}", S::NAME);
    }
    check::<management_api::Config>();
    check::<dispatcher::Config>();
    check::<retry::Config>();
}

#[test]
fn a_file_changes_no_default() {
    fn check<S: Service>() {
        let loaded = S::load(Some(&path::<S>()), BTreeMap::new()).unwrap();
        let default = S::default();
        assert_eq!(format!("{loaded:#?}"), format!("{default:#?}"));
        // Debug output leaves out what may hold a password.
        assert_eq!(loaded.postgres_url(), default.postgres_url());
        assert_eq!(loaded.rabbitmq_url(), default.rabbitmq_url());
    }
    check::<management_api::Config>();
    check::<dispatcher::Config>();
    check::<retry::Config>();
}

/// The placeholder of a key fits its type, and is no key: nobody can run with it by mistake.
#[test]
fn options_without_a_default_load_and_the_example_of_a_key_is_refused() {
    fn check<S: Service>() -> String {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("every-{}.toml", S::NAME));
        std::fs::write(&file, config_text::with_every_option(&text::<S>())).unwrap();
        let loaded = S::load(Some(&file), BTreeMap::new()).unwrap();
        loaded.check().unwrap_err().to_string()
    }
    for told in [
        check::<management_api::Config>(),
        check::<dispatcher::Config>(),
    ] {
        assert!(told.contains("secrets.keys.local"), "{told}");
    }
}

#[test]
fn a_comment_tells_the_default_and_the_unit_of_its_option() {
    fn check<S: Service>() {
        for option in options::<S>() {
            let Documented { key, comment, .. } = &option;
            let ending = if option.has_default {
                format!("Default: {}", option.value)
            } else {
                "No default.".to_owned()
            };
            assert!(comment.ends_with(&ending), "{key}: {comment}");
            let unit = unit(key).unwrap_or_default();
            assert!(comment.contains(unit), "{key} in {unit}: {comment}");
        }
    }
    check::<management_api::Config>();
    check::<dispatcher::Config>();
    check::<retry::Config>();
}

/// The word by which a comment tells the unit that the name of its option ends with.
fn unit(key: &str) -> Option<&'static str> {
    let name = key.rsplit('.').next()?;
    let name = name.trim_end_matches("_max");
    [
        ("_ms", "milliseconds"),
        ("_s", "seconds"),
        ("_days", "ays"),
        ("_bytes", "bytes"),
        ("_mib", "MiB"),
        ("_per_minute", "a minute"),
    ]
    .into_iter()
    .find_map(|(ending, unit)| name.ends_with(ending).then_some(unit))
}

#[test]
fn a_section_tells_the_variables_of_its_options() {
    fn check<S: Service>() {
        for section in sections::<S>() {
            // The options of this section are not keys but whatever an operator calls them.
            let placeholder = if section.name == "secrets.keys" {
                "id"
            } else {
                "key"
            };
            let variable = variable(&format!("{}.{placeholder}", section.name));
            let comment = &section.comment;
            assert!(comment.contains(&variable), "{variable}: {comment}");
        }
    }
    check::<management_api::Config>();
    check::<dispatcher::Config>();
    check::<retry::Config>();
}

#[test]
fn every_option_can_be_set_by_its_variable() {
    fn check<S: Service>() {
        let default = format!("{:?}", S::default());
        for option in options::<S>() {
            let key = &option.key;
            let set = |value: String| {
                let loaded = S::load(None, BTreeMap::from([(variable(key), value)]));
                loaded.map(|loaded| format!("{loaded:?}"))
            };
            // What is written in the file means the same in the environment.
            let same = set(in_environment(&option.value)).unwrap();
            assert_eq!(option.has_default, same == default, "{key}: {same}");
            for other in other_values(&option.value) {
                let changed = set(other.clone()).unwrap();
                assert_ne!(changed, default, "{key} = {other}");
            }
        }
    }
    check::<management_api::Config>();
    check::<dispatcher::Config>();
    check::<retry::Config>();
}

fn variable(key: &str) -> String {
    format!("VELLOCITY__{}", key.replace('.', "__")).to_uppercase()
}

/// Lists have commas there and no brackets, texts no quotes.
fn in_environment(value: &str) -> String {
    let value = value.trim_start_matches('[').trim_end_matches(']');
    value.replace('"', "")
}

/// Values that fit the type as well, where one can be told from the default; none for texts.
fn other_values(value: &str) -> Vec<String> {
    let list: Vec<_> = value.split(", ").collect();
    if let Ok(number) = value.parse::<u64>() {
        vec![(number + 1).to_string()]
    } else if let Ok(share) = value.parse::<f64>() {
        vec![(share / 2.0).to_string()]
    } else if let Ok(flag) = value.parse::<bool>() {
        vec![(!flag).to_string()]
    } else if list.len() > 1 {
        vec![in_environment(&list[1..].join(","))]
    } else {
        Vec::new()
    }
}

/// Who changes one of them should think of the others: a section that several services read is written once more in
/// each of their files, with its comments.
#[test]
fn a_section_reads_the_same_in_every_file() {
    let mut seen: BTreeMap<String, (&str, String)> = BTreeMap::new();
    let mut compare = |file: &'static str, sections: Vec<Section>| {
        for section in sections {
            // Each service has a port of its own.
            if section.name == "admin" {
                continue;
            }
            let text = format!("{}\n{:#?}", section.comment, section.options);
            let (first, expected) = seen
                .entry(section.name.clone())
                .or_insert_with(|| (file, text.clone()));
            assert_eq!(&text, expected, "[{}] in {file} and {first}", section.name);
        }
    };
    compare("management-api", sections::<management_api::Config>());
    compare("dispatcher", sections::<dispatcher::Config>());
    compare("retry", sections::<retry::Config>());
}
