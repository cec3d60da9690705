//! What the repository has, for those tests that hold deployment files against it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The repository's folder.
pub fn root() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap().to_owned()
}

/// A file's text, by its path from the root.
pub fn read(path: &str) -> String {
    let file = root().join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// `cargo metadata` about the workspace in a folder, without its dependencies.
pub fn metadata(folder: &Path) -> Value {
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version=1"];
    serde_json::from_slice(&cargo(folder, &arguments)).unwrap()
}

/// Lets cargo read the workspace in a folder as a build would, which is stricter than `cargo metadata`: each target has to
/// have its source, and the lock file has to fit. What it would download is there, since this test was built.
pub fn fetch(folder: &Path) {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let about = String::from_utf8(output.stdout).unwrap();
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.expect("a host in what rustc says of itself");
    cargo(
        folder,
        &["fetch", "--locked", "--offline", "--target", host],
    );
}

fn cargo(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", folder.display());
    output.stdout
}

/// The names of all programs below `crates/`.
pub fn programs() -> BTreeSet<String> {
    let metadata = metadata(&root());
    let crates = root().join("crates");
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .filter(|package| {
            let manifest = package["manifest_path"].as_str().unwrap();
            Path::new(manifest).starts_with(&crates)
        })
        .flat_map(|package| package["targets"].as_array().unwrap())
        .filter(|target| target["kind"].as_array().unwrap().contains(&"bin".into()))
        .map(|target| target["name"].as_str().unwrap().to_owned())
        .collect()
}

/// The version of Rust that the toolchain file asks for.
pub fn rust_version() -> String {
    let file = read("rust-toolchain.toml");
    let channel = file
        .lines()
        .find_map(|line| line.strip_prefix("channel = "))
        .expect("a channel in rust-toolchain.toml");
    channel.trim_matches('"').to_owned()
}
