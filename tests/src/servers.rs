//! A PostgreSQL and a RabbitMQ of one's own, for whoever kills them, stops them or starts without them.
//!
//! A guardian process waits on a pipe whose other end is this process: when that closes, however the test ended, it
//! stops the server and removes its folder, unless that was to be kept.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::owner;

/// A server with everything it wrote, under a folder of its own.
pub struct Server {
    script: PathBuf,
    folder: PathBuf,
    options: &'static [&'static str],
    guardian: Child,
}

impl Server {
    /// A PostgreSQL that is not started yet. With its defaults for durability: the one of the test run would forget its
    /// latest commits when it is killed.
    #[must_use]
    pub fn postgres() -> Self {
        Self::new("postgres", &[], &temporary("postgres"), Afterwards::Remove)
    }

    /// A RabbitMQ, with the management plugin, that is not started yet.
    #[must_use]
    pub fn rabbitmq() -> Self {
        Self::new(
            "rabbitmq",
            MANAGEMENT,
            &temporary("rabbitmq"),
            Afterwards::Remove,
        )
    }

    /// [`Self::postgres`] in a folder of the caller's, which stays with all that is in it.
    #[must_use]
    pub fn postgres_in(folder: &Path) -> Self {
        Self::new("postgres", &[], folder, Afterwards::Keep)
    }

    /// [`Self::rabbitmq`] in a folder of the caller's, which stays with all that is in it.
    #[must_use]
    pub fn rabbitmq_in(folder: &Path) -> Self {
        Self::new("rabbitmq", MANAGEMENT, folder, Afterwards::Keep)
    }

    fn new(
        name: &str,
        options: &'static [&'static str],
        folder: &Path,
        afterwards: Afterwards,
    ) -> Self {
        let script = script(name);
        std::fs::create_dir_all(folder).unwrap();
        let guardian = guardian(&script, folder, afterwards);
        Self {
            script,
            folder: folder.to_owned(),
            options,
            guardian,
        }
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process that was started last: of PostgreSQL the postmaster.
    ///
    /// # Panics
    /// When none was.
    #[must_use]
    pub fn pid(&self) -> u32 {
        let text = std::fs::read_to_string(self.folder.join("pid")).expect("it was started");
        let pid = text
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok());
        pid.unwrap_or_else(|| panic!("not a pid file: {text:?}"))
    }

    /// `rabbitmqctl` on this broker; returns what it says.
    pub async fn control(&self, arguments: &[&str]) -> String {
        let mut script = Command::new(&self.script);
        script.arg("ctl").arg(&self.folder).args(arguments);
        self.output_of(script, "ctl").await
    }

    /// Starts it, or starts it again with the data that it has, on the port that it had; returns when it answers.
    pub async fn start(&self) {
        self.run("start", self.options).await;
    }

    /// Ends it in order; its data stays.
    pub async fn stop(&self) {
        self.run("stop", &[]).await;
    }

    /// Ends it as a crash would; its data stays.
    pub async fn kill(&self) {
        self.run("kill", &[]).await;
    }

    /// Where it answers, or would; only once it was started.
    pub async fn url(&self) -> String {
        self.run("url", &[]).await
    }

    /// Of a RabbitMQ, once it was started.
    pub async fn management_url(&self) -> String {
        self.run("management-url", &[]).await
    }

    /// What its script says to a command.
    async fn run(&self, command: &str, options: &[&str]) -> String {
        let mut script = Command::new(&self.script);
        script.arg(command).args(options).arg(&self.folder);
        self.output_of(script, command).await
    }

    async fn output_of(&self, mut script: Command, command: &str) -> String {
        script.stdin(Stdio::null());
        let what = format!("{} {command}", self.script.display());
        // It blocks a thread that is there for blocking, not a runtime's own.
        let output = tokio::task::spawn_blocking(move || script.output());
        let output = output
            .await
            .unwrap()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {told}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        let _ended = self.guardian.wait();
    }
}

/// What becomes of a server's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Afterwards {
    Remove,
    Keep,
}

const MANAGEMENT: &[&str] = &["--management"];

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(owner::new_name(&format!("vellocity_{name}")))
}

/// In a session of its own, so that what ends the test, Ctrl-C for one, does not end it too.
fn guardian(script: &Path, folder: &Path, afterwards: Afterwards) -> Child {
    let work = match afterwards {
        Afterwards::Remove => r#"read -r _; "$0" kill "$1"; rm -rf "$1""#,
        Afterwards::Keep => r#"read -r _; "$0" kill "$1""#,
    };
    Command::new("setsid")
        .args(["bash", "-c", work])
        .arg(script)
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("setsid and bash are there")
}

/// The script of a server, such as `rabbitmq`, under `deploy/local`.
#[must_use]
pub fn script(name: &str) -> PathBuf {
    repository().join(format!("deploy/local/{name}.sh"))
}

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("the package lies in the repository")
        .to_owned()
}
