//! The program `hookctl` as scripts run it: its exit code, and what it writes to stdout and to stderr.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::Stack;
use tests::process::program;

/// The environment that `make up` writes.
#[derive(Clone, Debug, Default)]
pub struct Hookctl {
    variables: Vec<(&'static str, String)>,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Hookctl {
    pub fn of(stack: &Stack) -> Self {
        Self::default()
            .with("VELLOCITY_DATABASE_URL", &stack.database.url())
            .with("VELLOCITY_AMQP_URL", stack.vhost.url())
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.to_owned()));
        self
    }

    pub async fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with_stdin(arguments, b"").await
    }

    pub async fn run_with_stdin(&self, arguments: &[&str], stdin: &[u8]) -> Ended {
        let mut command = Command::new(program("hookctl"));
        command
            .args(arguments)
            .env_clear()
            .envs(self.variables.clone())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let stdin = stdin.to_vec();
        let output = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(&stdin).unwrap();
            child.wait_with_output().unwrap()
        });
        let output = output.await.unwrap();
        Ended {
            code: output.status.code().expect("it ends by itself"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The answer to a command that does what it is asked to.
    pub async fn json(&self, arguments: &[&str]) -> Value {
        let ended = self.run(&[&["--json"], arguments].concat()).await;
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
        assert_eq!(ended.stderr, "", "{arguments:?}");
        ended.document()
    }
}

impl Ended {
    /// Stdout as exactly one JSON document.
    pub fn document(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code in the document of a failure.
    pub fn error(&self) -> String {
        let document = self.document();
        assert!(document["error"]["message"].is_string(), "{self:?}");
        assert!(!self.stderr.is_empty(), "{self:?}");
        document["error"]["code"].as_str().unwrap().to_owned()
    }
}
