//! One plain GET, as simple as the tests need it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// Fetches `path` from that port of 127.0.0.1: the status code and the body.
pub fn get(port: u16, path: &str, limit: Duration) -> io::Result<(u16, String)> {
    Visit::begin(port, path)?.finish(limit)
}

/// A visitor who has begun to ask and not come to the end of it.
pub struct Visit(TcpStream);

impl Visit {
    /// Asks but for the empty line that ends the question.
    pub fn begin(port: u16, path: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")?;
        Ok(Self(stream))
    }

    /// The status code and the body.
    pub fn finish(mut self, limit: Duration) -> io::Result<(u16, String)> {
        self.0.set_read_timeout(Some(limit))?;
        self.0.write_all(b"\r\n")?;
        let mut answer = Vec::new();
        self.0.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        Ok((code, body.to_owned()))
    }
}
