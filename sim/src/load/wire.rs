//! The cheapest HTTP/1.1 client there is: writes bytes made beforehand, reads
//! an answer with a length. The generator shares its cores with the server, so
//! every microsecond here is one that the server lacks.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One keep-alive connection, opened when needed.
pub(super) struct Wire {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    body: std::ops::Range<usize>,
}

/// Why there was no answer.
#[derive(Debug)]
pub(super) enum WireError {
    /// The socket failed.
    Io(io::Error),
    /// The server closed the connection in the middle.
    Closed,
    /// Not HTTP, or of a kind not understood here.
    Unreadable(&'static str),
}

impl WireError {
    /// A short name to count it by.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Io(error) => format!("io: {}", error.kind()),
            Self::Closed => "io: connection closed by the server".to_owned(),
            Self::Unreadable(why) => format!("unreadable answer: {why}"),
        }
    }
}

impl Wire {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            buffer: vec![0; 8 * 1024],
            body: 0..0,
        }
    }

    /// Sends a whole request and reads the whole answer; gives its status.
    /// A kept connection that the server has closed meanwhile is replaced.
    pub(super) async fn ask(&mut self, request: &[u8]) -> Result<u16, WireError> {
        if let Some(stream) = self.stream.take() {
            match self.exchange(stream, request).await {
                Err(WireError::Closed) => {}
                Err(WireError::Io(error)) if is_stale(&error) => {}
                outcome => return outcome,
            }
        }
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(WireError::Io)?;
        stream.set_nodelay(true).map_err(WireError::Io)?;
        self.exchange(stream, request).await
    }

    /// The body of the last answer.
    pub(super) fn body(&self) -> &[u8] {
        &self.buffer[self.body.clone()]
    }

    /// On success the stream is kept for the next request.
    async fn exchange(&mut self, mut stream: TcpStream, request: &[u8]) -> Result<u16, WireError> {
        stream.write_all(request).await.map_err(WireError::Io)?;
        let mut filled = 0;
        let head = loop {
            filled += self.read_more(&mut stream, filled).await?;
            if let Some(head) = Head::parse(&self.buffer[..filled])? {
                break head;
            }
        };
        let end = head.length + head.content_length;
        while filled < end {
            filled += self.read_more(&mut stream, filled).await?;
        }
        if filled > end {
            return Err(WireError::Unreadable("more than its length"));
        }
        self.body = head.length..end;
        if !head.closes {
            self.stream = Some(stream);
        }
        Ok(head.status)
    }

    async fn read_more(
        &mut self,
        stream: &mut TcpStream,
        filled: usize,
    ) -> Result<usize, WireError> {
        if filled == self.buffer.len() {
            if filled >= LONGEST_ANSWER {
                return Err(WireError::Unreadable("endless"));
            }
            self.buffer.resize(filled * 2, 0);
        }
        match stream.read(&mut self.buffer[filled..]).await {
            Ok(0) if filled == 0 => Err(WireError::Closed),
            Ok(0) => Err(WireError::Unreadable("cut off")),
            Ok(more) => Ok(more),
            Err(error) => Err(WireError::Io(error)),
        }
    }
}

/// What matters of an answer's head.
#[derive(Debug, PartialEq)]
struct Head {
    status: u16,
    length: usize,
    content_length: usize,
    closes: bool,
}

impl Head {
    /// `None` while the head is incomplete.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes[..end])
            .map_err(|_| WireError::Unreadable("head is not text"))?;
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 "))
            .and_then(|line| line.get(..3)?.parse().ok())
            .ok_or(WireError::Unreadable("no status line"))?;
        let mut head = Self {
            status,
            length: end + 4,
            content_length: 0,
            closes: false,
        };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.content_length = value
                    .parse()
                    .map_err(|_| WireError::Unreadable("bad content-length"))?;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(WireError::Unreadable("chunked"));
            } else if name.eq_ignore_ascii_case("connection") {
                head.closes = value.eq_ignore_ascii_case("close");
            }
        }
        Ok(Some(head))
    }
}

/// What writing to a connection closed by the other side looks like.
fn is_stale(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

const LONGEST_ANSWER: usize = 32 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_complete() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\
            Connection: close\r\n\r\nhello";
        assert!(matches!(Head::parse(&answer[..40]), Ok(None)));
        let head = Head::parse(answer).unwrap().unwrap();
        assert_eq!((head.status, head.content_length), (503, 5));
        assert!(head.closes);
        assert_eq!(&answer[head.length..], b"hello");
    }

    #[test]
    fn an_answer_without_length_has_no_body() {
        let head = Head::parse(b"HTTP/1.1 200 OK\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.status, head.content_length), (200, 0));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for answer in [
            &b"SSH-2.0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        ] {
            assert!(Head::parse(answer).is_err());
        }
    }
}
