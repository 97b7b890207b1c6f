//! A sliding window over a `Read`: bytes are looked at in place and then consumed. It holds
//! at most what one `fill` asks for plus one chunk, however long the file is.

use std::io::{ErrorKind, Read, Result};

/// How much is asked of the source at once.
const CHUNK: usize = 32 * 1024;

/// The window.
#[derive(Debug)]
pub(crate) struct Window<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: Read> Window<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, buffer: vec![0; 2 * CHUNK], start: 0, end: 0 }
    }

    /// What is in the window now.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Reads until the window has `length` bytes or the source ends; how many it has then.
    #[inline]
    pub(crate) fn fill(&mut self, length: usize) -> Result<usize> {
        if self.end - self.start < length {
            self.read_on(length)?;
        }
        Ok(self.end - self.start)
    }

    /// Drops `length` bytes from the front; reads on past what the window does not have.
    /// How many there were to drop.
    pub(crate) fn skip(&mut self, mut length: u64) -> Result<u64> {
        let wanted = length;
        loop {
            let here = length.min((self.end - self.start) as u64);
            self.start += here as usize;
            length -= here;
            if length == 0 || self.fill(1)? == 0 {
                return Ok(wanted - length);
            }
        }
    }

    /// Drops `length` bytes that `fill` found.
    #[inline]
    pub(crate) fn consume(&mut self, length: usize) {
        self.start = self.end.min(self.start + length);
    }

    /// Most packets are in the window when they are asked for; this is kept out of their way.
    #[cold]
    fn read_on(&mut self, length: usize) -> Result<()> {
        self.make_room(length);
        while self.end - self.start < length {
            let Some(room) = self.buffer.get_mut(self.end..) else { break };
            match self.source.read(room) {
                Ok(0) => break,
                Ok(count) => self.end = (self.end + count).min(self.buffer.len()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn make_room(&mut self, length: usize) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < length + CHUNK {
            self.buffer.resize(length + CHUNK, 0);
        }
    }
}
