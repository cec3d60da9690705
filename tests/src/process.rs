//! A program of ours as a process of its own, to be killed, stopped and looked at from outside.
//!
//! It dies with the test, however that ends. What it writes is kept, and shown when the test fails.

mod output;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use output::Output;

use crate::fail_points::FailPoints;
use crate::service::{self, Kind};
use crate::{Settings, ports, wait};

/// A port may be taken between our look at it and the process's bind.
const TRIES: usize = 5;
const EXIT_DEADLINE: Duration = Duration::from_secs(40);

/// One running process. Killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    admin: Option<SocketAddr>,
    api: Option<SocketAddr>,
    output: Output,
}

/// Signals that tests send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Term,
    Kill,
    Stop,
    Cont,
    /// Lets a process go on that is held at a fail point.
    Usr1,
}

/// Where one of our programs is: beside this program, or beside the folder of this test program.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let beside = this.parent().unwrap();
    let folder = match beside.file_name() {
        Some(deps) if deps == "deps" => beside.parent().unwrap(),
        _ => beside,
    };
    let program = folder.join(name);
    assert!(
        program.is_file(),
        "{} was not built: use `make test`, or `cargo build --workspace --bins` first",
        program.display()
    );
    program
}

/// A service's program: of the folder that `TEST_PROGRAMS` names, so that another build can be measured, or beside ours.
fn service_program(name: &str) -> PathBuf {
    match std::env::var_os("TEST_PROGRAMS") {
        Some(folder) => Path::new(&folder).join(name),
        None => program(name),
    }
}

impl Process {
    /// Starts a service with the settings in its environment; ports are chosen here. Does not wait until it is ready.
    pub async fn service(kind: Kind, settings: &Settings) -> Self {
        Self::service_with(kind, settings, &FailPoints::default()).await
    }

    /// [`Self::service`] that stops at fail points.
    ///
    /// # Panics
    /// When there are fail points and the program was built without them.
    pub async fn service_with(kind: Kind, settings: &Settings, fail_points: &FailPoints) -> Self {
        Self::service_that_writes(kind, settings, fail_points, None).await
    }

    /// [`Self::service`] that writes to the end of a file, for a process that lives long and says much.
    pub async fn service_logged(kind: Kind, settings: &Settings, log: &Path) -> Self {
        Self::service_that_writes(kind, settings, &FailPoints::default(), Some(log)).await
    }

    async fn service_that_writes(
        kind: Kind,
        settings: &Settings,
        fail_points: &FailPoints,
        log: Option<&Path>,
    ) -> Self {
        for _ in 0..TRIES {
            let admin = SocketAddr::from(([127, 0, 0, 1], ports::free()));
            let mut settings = settings.with("admin.address", &admin.to_string());
            let api = (kind == Kind::ManagementApi)
                .then(|| SocketAddr::from(([127, 0, 0, 1], ports::free())));
            if let Some(api) = api {
                settings.set("api.address", &api.to_string());
            }
            let mut command = Command::new(service_program(kind.name()));
            command.envs(settings.variables()).env("NO_COLOR", "1");
            command.envs(fail_points.variable());
            let output = log.map_or_else(Output::kept, Output::file);
            let mut process = Self::spawn_with(kind.name(), &command, output);
            process.admin = Some(admin);
            process.api = api;
            if !process.lost_its_port(admin).await {
                fail_points.assert_armed(&process);
                return process;
            }
        }
        panic!("{} found no free port {TRIES} times", kind.name());
    }

    /// Whether it ended since somebody was quicker; waits until its probes answer, or it has ended.
    async fn lost_its_port(&mut self, admin: SocketAddr) -> bool {
        let what = format!("{} answers on its admin port or ends", self.name);
        let ended = wait::eventually(&what, async || {
            if self.child.try_wait().unwrap().is_some() {
                return Some(true);
            }
            service::readiness(admin).await.map(|_| false)
        })
        .await;
        ended && self.output().contains("cannot listen on")
    }

    /// Starts any program, without our environment but `PATH`.
    #[must_use]
    pub fn spawn(name: &str, command: Command) -> Self {
        Self::spawn_with(name, &command, Output::kept())
    }

    fn spawn_with(name: &str, command: &Command, mut output: Output) -> Self {
        let mut child = dying_with_us(command)
            .stdin(Stdio::null())
            .stdout(output.target())
            .stderr(output.target())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        output.read(&mut child);
        Self {
            name: name.to_owned(),
            child,
            admin: None,
            api: None,
            output,
        }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where the probes are.
    ///
    /// # Panics
    /// For a program that is no service.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("only services have probes")
    }

    /// Where the REST API is.
    ///
    /// # Panics
    /// For a service that has none.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        self.api.expect("only management-api serves the API")
    }

    /// Waits until the readiness probe says yes.
    pub async fn until_ready(&self) {
        service::until_ready(&self.name, self.admin()).await;
    }

    pub fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Term => "TERM",
            Signal::Kill => "KILL",
            Signal::Stop => "STOP",
            Signal::Cont => "CONT",
            Signal::Usr1 => "USR1",
        };
        // The shell has it built in; a fresh machine has no program of that name.
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid())])
            .status();
        assert!(sent.unwrap().success(), "kill -{name} {}", self.name);
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _gone_already = self.child.kill();
        let _status = self.child.wait();
    }

    /// SIGTERM, and waits until it is gone.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::Term);
        self.exited().await
    }

    /// Waits for it to end by itself.
    ///
    /// # Panics
    /// When it does not.
    pub async fn exited(&mut self) -> ExitStatus {
        let what = format!("{} has ended", self.name);
        let child = &mut self.child;
        let status = wait::within(EXIT_DEADLINE, &what, async || child.try_wait().unwrap()).await;
        self.output.end();
        status
    }

    /// Everything that it has written so far, stdout and stderr.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// Waits until it has written a text.
    pub async fn until_output(&self, text: &str) {
        let what = format!("{} writes {text:?}", self.name);
        wait::eventually(&what, async || self.output().contains(text).then_some(())).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.output.end();
        if thread::panicking() {
            eprintln!("--- {} wrote:\n{}\n---", self.name, self.output());
        }
    }
}

/// The same command, killed by the kernel when the thread that starts it ends. `setpriv` becomes the program, so that
/// the pid is the program's.
fn dying_with_us(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped
        .args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        wrapped.env("PATH", path);
    }
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            wrapped.env(name, value);
        }
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}
