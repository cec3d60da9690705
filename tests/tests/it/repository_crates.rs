//! Who may depend on whom, and which crate alone may use a library that stands for a duty.

use std::collections::{BTreeMap, BTreeSet};

use super::deploy_repository as repository;

/// Dependencies by the name of the package; those of a build or of tests count as well.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = repository::metadata(&repository::root());
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            let names = dependencies
                .iter()
                .map(|d| d["name"].as_str().unwrap().to_owned());
            (
                package["name"].as_str().unwrap().to_owned(),
                names.collect(),
            )
        })
        .collect()
}

#[test]
fn crates_depend_on_those_below_them_and_never_on_one_another() {
    let all = dependencies();
    let ours: BTreeSet<_> = all.keys().cloned().collect();
    let libraries = ["broker", "domain", "runtime", "store"];
    for (name, dependencies) in &all {
        let allowed: &[&str] = match name.as_str() {
            "domain" | "runtime" => &[],
            "broker" | "store" => &["domain"],
            "dispatcher" | "hookctl" | "management-api" | "retry" => &libraries,
            "tests" => continue,
            other => panic!("{other} is new: say here what it may depend on"),
        };
        let used: Vec<_> = dependencies
            .intersection(&ours)
            .filter(|used| !allowed.contains(&used.as_str()))
            .collect();
        assert!(used.is_empty(), "{name} must not depend on {used:?}");
    }
}

#[test]
fn each_neighbour_is_talked_to_by_one_crate_alone() {
    let all = dependencies();
    for (library, crates) in [
        ("diesel", ["store"].as_slice()),
        ("diesel-async", &["store"]),
        ("diesel_migrations", &["store"]),
        ("tokio-postgres", &["store"]),
        ("lapin", &["broker"]),
        ("amq-protocol", &["broker"]),
        // Only the dispatcher sends webhooks.
        ("hyper", &["dispatcher"]),
        ("hyper-util", &["dispatcher"]),
        // The exporter of spans is made with a client of its own.
        ("reqwest", &["dispatcher", "runtime"]),
        ("actix-web", &["management-api", "runtime"]),
        ("config", &["runtime"]),
        ("fail", &["runtime"]),
    ] {
        let users = all.iter().filter(|(_, used)| used.contains(library));
        for (name, _) in users.filter(|(name, _)| *name != "tests") {
            assert!(
                crates.contains(&name.as_str()),
                "{name} must not use {library}"
            );
        }
    }
}

#[test]
fn every_crate_takes_lints_and_versions_from_the_workspace() {
    let root = repository::root();
    let metadata = repository::metadata(&root);
    for package in metadata["packages"].as_array().unwrap() {
        let manifest = package["manifest_path"].as_str().unwrap();
        let text = std::fs::read_to_string(manifest).unwrap();
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{manifest}: lints"
        );
        let version = text.lines().find(|line| line.contains("version = \""));
        assert_eq!(version, None, "{manifest}: versions belong into the root's");
    }
}

/// What `cargo tree` says of a build of all programs, one line a package with its features.
fn features_of_the_programs(with: &[&str]) -> String {
    let output = std::process::Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--offline",
            "--edges",
            "normal,build",
        ])
        .args(["--prefix", "none", "--format", "{p} {f}"])
        .args(with)
        .current_dir(repository::root())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_release_has_no_fail_points() {
    let has_any = |tree: &str| tree.contains("fail-points") || tree.contains("\nfail v");
    assert!(has_any(&features_of_the_programs(&[
        "--features",
        "tests/fail-points"
    ])));
    assert!(!has_any(&features_of_the_programs(&[])));
    // Those build what runs elsewhere.
    for file in ["deploy/local/build.sh", "deploy/Dockerfile"] {
        let text = repository::read(file);
        assert!(!text.contains("fail-points"), "{file}");
        assert!(!text.contains("--all-features"), "{file}");
    }
}
