//! One connection to the receiver: requests one after the other, each answered before the next is read.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use chrono::Utc;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::answer::Manner;
use super::{Request, State};

pub(super) async fn serve(stream: TcpStream, state: Arc<State>) {
    let connection = stream.peer_addr().map_or(0, |peer| peer.port());
    // A sender that goes away in the middle is no fault of the receiver's.
    let _ended = answer_requests(stream, connection, &state).await;
}

async fn answer_requests(stream: TcpStream, connection: u16, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream, connection).await? {
        let answer = state.take(request);
        tokio::time::sleep(answer.delay).await;
        match answer.manner {
            Manner::HangUp => return Ok(()),
            Manner::Silence => std::future::pending().await,
            Manner::KeepAlive => stream.write_all(&answer.bytes()).await?,
            Manner::Close => {
                stream.write_all(&answer.bytes()).await?;
                return stream.shutdown().await;
            }
        }
    }
    Ok(())
}

/// One request, or nothing when the connection has ended between two.
async fn read(stream: &mut BufReader<TcpStream>, connection: u16) -> io::Result<Option<Request>> {
    let Some(first) = line(stream).await? else {
        return Ok(None);
    };
    let mut words = first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    while let Some(line) = line(stream).await?.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let body = body(stream, &headers).await?;
    Ok(Some(Request {
        method,
        path,
        headers,
        body,
        arrived: Instant::now(),
        arrived_at: Utc::now(),
        connection,
    }))
}

/// A line of the head without its end.
async fn line(stream: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    if stream.read_until(b'\n', &mut bytes).await? == 0 {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// By its length; one in chunks is recorded as empty, which no test will take for right.
async fn body(
    stream: &mut BufReader<TcpStream>,
    headers: &[(String, String)],
) -> io::Result<Vec<u8>> {
    let length = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(body)
}
