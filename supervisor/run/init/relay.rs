//! From the program's output to the journal.
//!
//! The journal's sockets cannot be opened by name, and images link their log files to `/dev/stdout`.
//! So the program gets pipes, which can. One pipe if both streams go to the same socket: that keeps
//! their order. The pipe's own file is writable for every user of the container, for a server that
//! opens its log after it has dropped its privileges.

use crate::sys::{self, Buffer, Interest};

/// No pipe holds more: beyond it, what is still written comes from processes that stay behind.
const MOST_AT_END: usize = 1 << 20;

/// One pipe and where its bytes go.
struct Channel {
    pipe: i32,
    sink: i32,
    buffer: Buffer,
    /// What is still to be written: from here ...
    from: usize,
    /// ... to here.
    to: usize,
}

/// Both directions, or the one that serves both.
pub struct Relay {
    output: Channel,
    error: Option<Channel>,
}

impl Relay {
    /// Puts pipes in the places of the streams `output` and `error`.
    pub fn between(output: i32, error: i32, [one, other]: [Buffer; 2]) -> Result<Self, i32> {
        let shared = sys::same_file(output, error)?;
        let first = Channel::instead_of(output, one)?;
        let second = match shared {
            true => {
                sys::duplicate(output, error)?;
                None
            }
            false => Some(Channel::instead_of(error, other)?),
        };
        Ok(Self { output: first, error: second })
    }

    /// Waits until something can be done; whether it is a signal to be read from `signals`.
    pub fn wait(&self, signals: i32) -> bool {
        let mut interests = [
            Interest::read(signals),
            self.output.interest(),
            self.error.as_ref().map_or(Interest::none(), Channel::interest),
        ];
        sys::wait(&mut interests);
        interests[0].seen()
    }

    /// Moves what can be moved without waiting.
    pub fn step(&mut self) {
        self.output.step();
        if let Some(error) = &mut self.error {
            error.step();
        }
    }

    /// Moves what is left, waiting for the journal if it is busy.
    pub fn finish(&mut self) {
        self.output.finish();
        if let Some(error) = &mut self.error {
            error.finish();
        }
    }
}

impl Channel {
    fn instead_of(stream: i32, buffer: Buffer) -> Result<Self, i32> {
        let sink = sys::keep(stream)?;
        let (pipe, write) = sys::pipe()?;
        sys::duplicate(write, stream)?;
        sys::close(write);
        Ok(Self { pipe, sink, buffer, from: 0, to: 0 })
    }

    fn interest(&self) -> Interest {
        if self.from < self.to { Interest::write(self.sink) } else { Interest::read(self.pipe) }
    }

    fn step(&mut self) {
        if self.from == self.to {
            self.fill();
        }
        if self.from < self.to {
            self.pour();
        }
    }

    /// How much came.
    fn fill(&mut self) -> usize {
        self.from = 0;
        self.to = sys::read(self.pipe, self.buffer).unwrap_or(0);
        self.to
    }

    /// Writes what the journal takes now. If it is gone for good, output has nowhere to go, and the
    /// program must not wait for it.
    fn pour(&mut self) {
        let Some(rest) = self.buffer.get(self.from..self.to) else { return };
        match sys::write(self.sink, rest) {
            Ok(written) => self.from += written,
            Err(sys::EAGAIN | sys::EINTR) => {}
            Err(_) => self.from = self.to,
        }
    }

    fn finish(&mut self) {
        let mut moved = 0;
        loop {
            while self.from < self.to {
                sys::wait(&mut [Interest::write(self.sink)]);
                self.pour();
            }
            let more = self.fill();
            moved += more;
            if more == 0 || moved > MOST_AT_END {
                return;
            }
        }
    }
}
