//! How a process starts and what it tells its supervisor at the end. A binary's `main` hands its whole life to [`run`];
//! the exit code says whether a restart can help.

use std::error::Error;
use std::fmt::Display;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::ConfigError;
use crate::telemetry::TelemetryError;

/// EX_CONFIG of sysexits.h: a restart with the same configuration would fail again.
pub const EXIT_CODE_CONFIG: u8 = 78;

/// Blocking work that has not ended by then is abandoned, so that a hung disk or name lookup cannot keep a process
/// alive that is otherwise done.
const BLOCKING_WORK_DEADLINE: Duration = Duration::from_secs(2);

/// Why a process ends other than in order. One line for a person, and the exit code that goes with it.
#[derive(Debug)]
pub struct Failure {
    line: String,
    code: u8,
}

impl Failure {
    /// The configuration is wrong; exit code 78. `error` and its sources become one line.
    pub fn config(error: &dyn Error) -> Self {
        Self {
            line: chain(error),
            code: EXIT_CODE_CONFIG,
        }
    }

    /// Anything else; exit code 1. `error` and its sources become one line.
    pub fn other(error: &dyn Error) -> Self {
        Self {
            line: chain(error),
            code: 1,
        }
    }

    /// Says first what was being done: `cannot bind the admin port: Address already in use`.
    pub fn context(self, doing: impl Display) -> Self {
        Self {
            line: format!("{doing}: {}", self.line),
            code: self.code,
        }
    }

    /// Any further exit code, as the command line needs them.
    pub fn with_code(line: impl Display, code: u8) -> Self {
        Self {
            line: one_line(&line.to_string()),
            code,
        }
    }

    pub fn line(&self) -> &str {
        &self.line
    }

    pub fn code(&self) -> u8 {
        self.code
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::config(&error)
    }
}

impl From<TelemetryError> for Failure {
    fn from(error: TelemetryError) -> Self {
        Self::config(&error)
    }
}

/// Runs a process's `main` on a multi-threaded Tokio runtime and turns its end into an exit code: 0 in order, 78 for a
/// wrong configuration, 1 for any other failure, each failure with one line `name: why` on stderr. The crypto provider
/// of rustls is installed first.
///
/// actix-web's `HttpServer::run` works inside (it starts workers with runtimes of their own), as long as
/// `disable_signals` leaves SIGTERM to [`crate::Shutdown`].
pub fn run<F>(name: &'static str, main: F) -> ExitCode
where
    F: Future<Output = Result<(), Failure>>,
{
    install_crypto_provider();
    #[cfg(feature = "fail-points")]
    let _armed = crate::fail_points::arm();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name(name)
        .build()
        .map_err(|error| Failure::other(&error).context("cannot start the runtime"))
        .and_then(|runtime| {
            let result = runtime.block_on(main);
            runtime.shutdown_timeout(BLOCKING_WORK_DEADLINE);
            result
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(name, &failure);
            ExitCode::from(failure.code)
        }
    }
}

/// Makes ring the provider of rustls for the whole process. Both lapin and reqwest are built without one of their own;
/// without this call their first TLS connection fails. Calling it again changes nothing.
pub fn install_crypto_provider() {
    // Err means that one is installed already, which is what we want.
    let _installed = rustls::crypto::ring::default_provider().install_default();
}

/// An error and its sources as one line, joined by colons.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        // Some libraries repeat their source in their own text.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = error.source();
    }
    one_line(&line)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn report(name: &str, failure: &Failure) {
    use std::io::Write as _;
    // A closed stderr is no reason to panic on the way out.
    let _written = writeln!(std::io::stderr(), "{name}: {}", failure.line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot reach Postgres")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_failure_tells_the_whole_chain_on_one_line() {
        let error = Outer(std::io::Error::other("refused,\n  then gone"));
        assert_eq!(
            Failure::other(&error).context("start").line(),
            "start: cannot reach Postgres: refused, then gone"
        );
    }

    #[test]
    fn an_orderly_end_is_exit_code_zero() {
        let code = run("test", async { Ok(()) });
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
    }

    #[test]
    fn a_wrong_configuration_is_exit_code_78_and_all_else_is_1() {
        let error = std::io::Error::other("no");
        let config = run("test", async { Err(Failure::config(&error)) });
        let other = run("test", async { Err(Failure::other(&error)) });
        assert_eq!(format!("{config:?}"), format!("{:?}", ExitCode::from(78)));
        assert_eq!(format!("{other:?}"), format!("{:?}", ExitCode::from(1)));
    }
}
