//! Plain lines on stdout, coloured on a terminal only.

use std::io::{IsTerminal as _, Write as _, stdout};
use std::time::{Duration, Instant};

pub struct Screen {
    colours: bool,
    started: Instant,
}

const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

impl Screen {
    pub fn new() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colours: stdout().is_terminal() && !no_colour,
            started: Instant::now(),
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// A reader that has gone away does not stop the demo: its exit code still tells.
    pub fn line(&self, text: &str) {
        let _gone = writeln!(stdout(), "{text}");
    }

    pub fn title(&self, text: &str) {
        self.line("");
        self.coloured(BOLD, text);
    }

    pub fn pair(&self, name: &str, value: &str) {
        self.line(&format!("  {name:<10} {value}"));
    }

    pub fn good(&self, text: &str) {
        self.coloured(GREEN, text);
    }

    pub fn warning(&self, text: &str) {
        self.coloured(YELLOW, text);
    }

    pub fn bad(&self, text: &str) {
        self.coloured(RED, text);
    }

    pub fn faint(&self, text: &str) {
        self.coloured(DIM, text);
    }

    fn coloured(&self, colour: &str, text: &str) {
        if self.colours {
            self.line(&format!("{colour}{text}{RESET}"));
        } else {
            self.line(text);
        }
    }
}
