//! Holds `deploy/Dockerfile` and `.dockerignore` against the workspace: there is no engine here that could build it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::config_service::Service;
use super::deploy_repository as repository;
use super::deploy_stages::{Dockerfile, Stage};

#[test]
fn every_program_has_a_target_that_runs_it() {
    let file = Dockerfile::read();
    let targets: BTreeSet<_> = file
        .targets()
        .map(|stage| {
            assert_eq!(stage.name, stage.program());
            stage.name.clone()
        })
        .collect();
    assert_eq!(targets, repository::programs());
}

#[test]
fn every_program_is_built_as_locked_and_copied_out() {
    let file = Dockerfile::read();
    let build = file.stage("build").last("RUN").unwrap();
    assert!(build.contains("cargo build --release --locked"), "{build}");
    for program in repository::programs() {
        for words in [
            format!("--package {program} "),
            format!("target/release/{program}"),
        ] {
            assert!(format!("{build} ").contains(&words), "{words} in {build}");
        }
    }
    assert!(build.contains("--target-directory=/programs"), "{build}");
    let copied = file.stage("runtime").last("COPY").unwrap();
    assert_eq!(copied, "--from=build /programs/ /usr/local/bin/");
}

/// Programs that were linked on a newer Debian do not find their C library on an older one.
#[test]
fn images_are_pinned_to_the_toolchains_version_and_to_one_debian() {
    let file = Dockerfile::read();
    let debian = |stage: &Stage| {
        let (image, tag) = stage.base.split_once(':').unwrap();
        let parts = tag.split('-').map(ToOwned::to_owned).collect::<Vec<_>>();
        (image.to_owned(), parts)
    };
    let (builder, parts) = debian(file.stage("build"));
    assert_eq!(builder, "rust");
    assert_eq!(parts[0], repository::rust_version());
    let (image, base) = debian(file.stage("runtime"));
    assert_eq!(image, "debian");
    let codename = base.first().unwrap();
    assert!(parts.contains(codename), "{parts:?} and {base:?}");
    let is_dated = |part: &String| part.len() == 8 && part.parse::<u32>().is_ok();
    assert!(base.iter().any(is_dated), "{base:?}");
}

#[test]
fn a_target_runs_unprivileged_ends_on_sigterm_and_holds_no_settings() {
    let file = Dockerfile::read();
    for stage in file.targets() {
        let user = file.holds(stage, "USER").unwrap();
        let ids = user.split(':').map(|id| id.parse::<u32>().unwrap());
        assert!(ids.min().unwrap() > 0, "{user}");
        assert_eq!(file.holds(stage, "STOPSIGNAL").unwrap(), "SIGTERM");
    }
    for stage in &file.0 {
        for word in ["ENV", "ARG", "ADD", "CMD"] {
            assert_eq!(stage.last(word), None, "{}", stage.name);
        }
    }
}

#[test]
fn a_target_exposes_the_ports_that_its_program_listens_on() {
    fn check<S: Service>() {
        let addresses = S::default().addresses();
        let expected: Vec<_> = addresses.iter().map(|address| address.port()).collect();
        let file = Dockerfile::read();
        assert_eq!(file.stage(S::NAME).ports(), expected, "{}", S::NAME);
    }
    check::<management_api::Config>();
    check::<dispatcher::Config>();
    check::<retry::Config>();
    assert!(Dockerfile::read().stage("hookctl").ports().is_empty());
}

/// What `.dockerignore` lets through: everything is left out but what is named.
fn let_through() -> Vec<String> {
    let text = repository::read(".dockerignore");
    let mut lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"));
    lines
        .map(|line| line.strip_prefix('!').expect("only exceptions").to_owned())
        .collect()
}

/// The paths that are copied from the repository, in the order of the file.
fn copied() -> Vec<(Vec<String>, String)> {
    let file = Dockerfile::read();
    let stages = file.0.iter().flat_map(|stage| stage.all("COPY"));
    stages
        .filter(|rest| !rest.starts_with("--from="))
        .map(|rest| {
            let mut words: Vec<_> = rest.split(' ').map(ToOwned::to_owned).collect();
            let to = words.pop().unwrap();
            (words, to)
        })
        .collect()
}

#[test]
fn what_is_copied_exists_and_is_not_ignored() {
    let through = let_through();
    for (sources, _) in copied() {
        for source in sources {
            assert!(repository::root().join(&source).exists(), "{source}");
            let is_named = through
                .iter()
                .any(|path| Path::new(path).starts_with(&source));
            assert!(is_named, "{source} is ignored");
        }
    }
    for path in through {
        assert!(repository::root().join(&path).exists(), "{path}");
        let is_copied = copied().iter().any(|(sources, _)| {
            sources
                .iter()
                .any(|source| Path::new(&path).starts_with(source))
        });
        assert!(is_copied, "nothing copies {path}");
    }
}

/// Cargo reads the manifest of every member, and refuses one whose targets have no source.
#[test]
fn what_is_copied_is_a_workspace_that_cargo_reads() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("docker-context");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    for path in let_through() {
        copy(&repository::root().join(&path), &folder.join(&path));
    }
    repository::fetch(&folder);
    // Nothing that is built reaches for a file that was left behind.
    for source in sources(&folder.join("crates")) {
        let text = std::fs::read_to_string(&source).unwrap();
        for included in included(&text) {
            let file = source.parent().unwrap().join(&included);
            assert!(file.exists(), "{included} in {}", source.display());
        }
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        for entry in std::fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    }
}

/// All files of Rust below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// What `include_str!` and `include_bytes!` name.
fn included(text: &str) -> Vec<String> {
    ["include_str!(\"", "include_bytes!(\""]
        .into_iter()
        .flat_map(|call| text.split(call).skip(1))
        .map(|rest| rest.split('"').next().unwrap_or_default().to_owned())
        .collect()
}
