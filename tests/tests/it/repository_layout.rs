//! How the repository is laid out: names of files, what stands at the top, what `make help` lists, and links that lead
//! somewhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::deploy_repository as repository;

/// Every file of the source tree: not what is built or run, not what git keeps.
fn files() -> Vec<PathBuf> {
    let root = repository::root();
    let mut found = Vec::new();
    for part in ["crates", "deploy", "docs", "proto-schemas", "tests", ".ci"] {
        walk(&root.join(part), &mut found);
    }
    assert!(found.len() > 100, "{} files", found.len());
    found
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// What is committed, and what git ignores: what is built and what runs.
#[test]
fn nothing_stands_at_the_top_but_what_was_agreed_and_what_tools_look_for_there() {
    let agreed = [
        "Cargo.toml",
        "LICENSE",
        "Makefile",
        "README.md",
        "crates",
        "deploy",
        "docker-compose.yml",
        "docs",
        "proto-schemas",
        "tests",
    ];
    let of_tools = [
        "Cargo.lock",
        "clippy.toml",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "target",
    ];
    for entry in std::fs::read_dir(repository::root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let known = agreed.contains(&name.as_str()) || of_tools.contains(&name.as_str());
        assert!(known || name.starts_with('.'), "{name}");
    }
}

#[test]
fn no_module_is_named_after_nothing() {
    let banned = [
        "utils", "util", "common", "core", "helpers", "helper", "types", "manager", "misc",
    ];
    for file in files() {
        let parts = file.strip_prefix(repository::root()).unwrap().components();
        for part in parts.map(|part| part.as_os_str().to_string_lossy().into_owned()) {
            let stem = part.split('.').next().unwrap_or_default();
            assert!(!banned.contains(&stem), "{}", file.display());
        }
        assert_ne!(file.file_name().unwrap(), "mod.rs", "{}", file.display());
    }
}

#[test]
fn every_module_says_what_it_is() {
    for file in files() {
        if file.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        // Unit tests in a file of their own are part of the module that they test.
        let of_tests = text.contains("#[test]") && !text.contains("#[cfg(test)]");
        let below_its_module = file.starts_with(repository::root().join("crates"));
        if !(is_part_of_tests(&file) || of_tests && below_its_module) {
            assert!(text.starts_with("//!"), "{} has no header", file.display());
        }
    }
}

/// Whether it lies in a folder `tests` of a crate, beside the module that it tests.
fn is_part_of_tests(file: &Path) -> bool {
    let crates = repository::root().join("crates");
    let within = file.strip_prefix(crates).ok();
    within.is_some_and(|path| {
        path.components().any(|part| {
            let part = part.as_os_str();
            part == "tests" || part == "tests.rs"
        })
    })
}

#[test]
fn make_help_lists_every_target() {
    let makefile = repository::read("Makefile");
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', '#', '.', ' ']))
        .filter_map(|line| line.split_once(':'))
        .filter(|(_, rest)| !rest.starts_with('='))
        .flat_map(|(names, _)| names.split_whitespace())
        .collect();
    for expected in ["up", "down", "demo", "test", "fmt", "lint", "help"] {
        assert!(targets.contains(expected), "{expected} is no target");
    }
    let output = Command::new("make")
        .args(["--no-print-directory", "help"])
        .current_dir(repository::root())
        .env_remove("MAKEFLAGS")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let listed: BTreeSet<&str> = help
        .lines()
        .filter_map(|line| line.trim().strip_prefix("make "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(listed, targets);
}

#[test]
fn links_and_paths_in_the_documents_lead_somewhere() {
    let root = repository::root();
    let mut documents = vec![root.join("README.md"), root.join("crates/ARCHITECTURE.md")];
    documents.extend(
        files()
            .into_iter()
            .filter(|file| file.extension().is_some_and(|e| e == "md")),
    );
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        let folder = document.parent().unwrap();
        for target in links(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((&target, ""));
            let file = if path.is_empty() {
                document.clone()
            } else {
                folder.join(path)
            };
            assert!(
                file.exists(),
                "{}: {target} leads nowhere",
                document.display()
            );
            if !fragment.is_empty() {
                let headings = headings(&std::fs::read_to_string(&file).unwrap());
                assert!(
                    headings.contains(fragment),
                    "{}: no heading {target}",
                    document.display()
                );
            }
        }
        for path in paths(&text) {
            let known = [folder, &root]
                .iter()
                .any(|folder| folder.join(&path).exists());
            assert!(known, "{}: there is no {path}", document.display());
        }
    }
}

/// Targets of `[text](target)`.
fn links(text: &str) -> Vec<String> {
    let after_bracket = text.split("](").skip(1);
    after_bracket
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .collect()
}

/// What stands in back quotes and looks like a path within the repository.
fn paths(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|word| !word.contains([' ', '\n', '*', '<', '{', '…', '$', '('].as_slice()))
        .filter(|word| {
            ["crates/", "deploy/", "tests/", "proto-schemas/"]
                .iter()
                .any(|top| word.starts_with(top))
        })
        .map(|word| word.trim_end_matches('/').to_owned())
        .collect()
}

/// As anchors: lower case, spaces as dashes, no punctuation.
fn headings(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            title
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}
