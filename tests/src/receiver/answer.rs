//! What a receiver answers.

use std::time::Duration;

/// One answer, well-behaved or not.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) delay: Duration,
    pub(super) manner: Manner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Answers, and goes on with the next request.
    KeepAlive,
    /// Answers, and closes the connection.
    Close,
    /// Closes the connection instead of an answer.
    HangUp,
    /// Neither answers nor closes.
    Silence,
}

impl Answer {
    #[must_use]
    pub fn ok() -> Self {
        Self::status(200)
    }

    /// An answer without a body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            delay: Duration::ZERO,
            manner: Manner::KeepAlive,
        }
    }

    /// The connection is closed without a word.
    #[must_use]
    pub fn hang_up() -> Self {
        Self {
            manner: Manner::HangUp,
            ..Self::ok()
        }
    }

    /// There is never an answer.
    #[must_use]
    pub fn silence() -> Self {
        Self {
            manner: Manner::Silence,
            ..Self::ok()
        }
    }

    /// The connection is closed after the answer.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.manner = Manner::Close;
        self
    }

    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The same answer that often, for `Receiver::next`.
    #[must_use]
    pub fn times(self, count: usize) -> Vec<Self> {
        vec![self; count]
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        use std::fmt::Write as _;
        let mut head = format!("HTTP/1.1 {} Status\r\n", self.status);
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        if self.manner == Manner::Close {
            head.push_str("Connection: close\r\n");
        }
        // These two have no body by definition, and so no length.
        if !matches!(self.status, 204 | 304) {
            write!(head, "Content-Length: {}\r\n", self.body.len()).unwrap();
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(&self.body);
        bytes
    }
}
