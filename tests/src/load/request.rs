//! A delivery's request, as much of it as load needs: what its path asks for, and which event it carries.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::number_of;

/// What a webhook's receiver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Ok,
    Slow(Duration),
    Status(u16),
    Never,
    /// Answers 500 until [`super::LoadReceiver::heal`].
    Ill,
}

pub(super) struct Request {
    pub(super) behaviour: Behaviour,
    pub(super) webhook: u32,
    pub(super) event: u32,
}

impl Behaviour {
    pub(super) fn path(self, webhook: u32) -> String {
        match self {
            Self::Ok => format!("/ok/{webhook}"),
            Self::Slow(time) => format!("/slow/{}/{webhook}", time.as_millis()),
            Self::Status(status) => format!("/status/{status}/{webhook}"),
            Self::Never => format!("/never/{webhook}"),
            Self::Ill => format!("/ill/{webhook}"),
        }
    }

    fn parse(path: &str) -> Option<(Self, u32)> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let word = parts.next()?;
        let mut number = || parts.next()?.parse::<u32>().ok();
        let behaviour = match word {
            "ok" => Self::Ok,
            "slow" => Self::Slow(Duration::from_millis(number()?.into())),
            "status" => Self::Status(u16::try_from(number()?).ok()?),
            "never" => Self::Never,
            "ill" => Self::Ill,
            _ => return None,
        };
        Some((behaviour, number()?))
    }
}

impl Request {
    /// Reads one whole request, of which the buffer may hold the beginning; also how many bytes of the buffer it takes.
    /// `None` when the connection ends or it is no delivery.
    pub(super) async fn read(
        stream: &mut TcpStream,
        buffer: &mut Vec<u8>,
    ) -> Option<(Self, usize)> {
        let mut searched = 0;
        let head_length = loop {
            let end = buffer[searched..]
                .windows(4)
                .position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                break searched + end + 4;
            }
            searched = buffer.len().saturating_sub(3);
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        };
        let (request, body_length) = Self::parse(&buffer[..head_length])?;
        let length = head_length + body_length;
        while buffer.len() < length {
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
        Some((request, length))
    }

    /// Also the length of the body.
    fn parse(head: &[u8]) -> Option<(Self, usize)> {
        let mut lines = head.split(|&byte| byte == b'\n');
        let first = std::str::from_utf8(lines.next()?).ok()?;
        let (behaviour, webhook) = Behaviour::parse(first.split(' ').nth(1)?)?;
        let (mut body_length, mut event) = (None, None);
        for line in lines {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else {
                continue;
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                body_length = std::str::from_utf8(value).ok()?.parse().ok();
            } else if name.eq_ignore_ascii_case(b"x-vellocity-delivery") {
                event = number_of(value);
            }
        }
        let request = Self {
            behaviour,
            webhook,
            event: event?,
        };
        Some((request, body_length?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_how_to_behave_and_whose_it_is() {
        for behaviour in [
            Behaviour::Ok,
            Behaviour::Slow(Duration::from_secs(8)),
            Behaviour::Status(503),
            Behaviour::Never,
            Behaviour::Ill,
        ] {
            assert_eq!(Behaviour::parse(&behaviour.path(7)), Some((behaviour, 7)));
        }
        assert_eq!(Behaviour::parse("/else/7"), None);
    }

    #[test]
    fn a_head_tells_the_event_and_how_long_the_body_is() {
        let head = b"POST /ok/3 HTTP/1.1\r\nX-Vellocity-Delivery: evt_load_0000000012\r\ncontent-length: 5\r\n\r\n";
        let (request, body_length) = Request::parse(head).unwrap();
        assert_eq!((request.event, request.webhook, body_length), (12, 3, 5));
        assert!(Request::parse(b"POST /ok/3 HTTP/1.1\r\ncontent-length: 5\r\n\r\n").is_none());
    }
}
