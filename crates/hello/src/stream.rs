//! A client's TCP stream, from its first byte on: preludes, then records, then the hello.
//!
//! Invariants: the answer depends on the bytes alone, never on how they were cut into pieces; a stream that
//! has answered keeps no byte; a hello that comes whole in the first piece is neither copied nor kept.

use crate::assembly::Assembly;
use crate::prelude::{self, Step};
use crate::record::{self, Records};
use crate::{Answer, LIMIT, Prelude, Reason};

/// Most preludes in a row: a CONNECT is repeated for each round of authentication.
const MAX_PRELUDES: u8 = 8;

/// A piece this far on while the start is missing: the server has had the start, and we never will.
const LOST: u64 = 4 * LIMIT as u64;

/// Reads the start of a client's stream, given from its first byte on.
pub fn read_stream(prefix: &[u8]) -> Answer<'_> {
    Reader::default().read(prefix)
}

/// A client's stream whose pieces may come in any order, overlap and repeat.
///
/// It answers once. Whoever has the answer drops it; pieces that are pushed after that get
/// [`Answer::NotTls`], for what follows the hello says nothing.
#[derive(Debug, Default)]
pub struct Stream {
    reader: Reader,
    assembly: Assembly,
    answered: bool,
}

impl Stream {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes at a position counted from the stream's first byte.
    pub fn push<'a>(&'a mut self, position: u64, bytes: &'a [u8]) -> Answer<'a> {
        if self.answered {
            self.assembly = Assembly::default();
            return Answer::NotTls;
        }
        let whole = position == 0 && self.assembly.is_empty();
        if whole {
            let answer = self.reader.read(bytes);
            self.answered = answer != Answer::NeedMore;
            if self.answered {
                return answer;
            }
        }
        let known = self.assembly.prefix().len();
        self.assembly.insert(position, bytes);
        if position >= LOST {
            self.answered = true;
            return if self.assembly.prefix().is_empty() {
                Answer::NotTls
            } else {
                Answer::no_name(Reason::TooLong)
            };
        }
        if whole || self.assembly.prefix().len() == known {
            return Answer::NeedMore;
        }
        let answer = self.reader.read(self.assembly.prefix());
        self.answered = answer != Answer::NeedMore;
        answer
    }
}

/// Where reading stands in a stream that grows.
#[derive(Debug, Default)]
struct Reader {
    /// Bytes of preludes that were passed over.
    start: usize,
    preludes: u8,
    /// The first of them.
    prelude: Option<Prelude>,
    records: Records,
}

impl Reader {
    /// Reads a stream from its first byte on; each call is given at least what the last one was.
    #[inline]
    fn read<'a>(&mut self, stream: &'a [u8]) -> Answer<'a> {
        let stream = &stream[..stream.len().min(LIMIT)];
        match self.read_within_limit(stream) {
            Answer::NeedMore if stream.len() < LIMIT => Answer::NeedMore,
            Answer::NeedMore if stream.get(self.start).is_some_and(|first| record::begins(*first)) => {
                Answer::no_name(Reason::TooLong)
            }
            Answer::NeedMore => Answer::NotTls,
            answer => answer,
        }
    }

    fn read_within_limit<'a>(&mut self, stream: &'a [u8]) -> Answer<'a> {
        loop {
            let rest = stream.get(self.start..).unwrap_or_default();
            let Some(first) = rest.first() else { return Answer::NeedMore };
            if record::begins(*first) {
                return self.records.read(rest, self.prelude.unwrap_or(Prelude::None));
            }
            match prelude::read(rest) {
                Some(Step::Past(length, kind)) if self.preludes < MAX_PRELUDES => {
                    self.start += length;
                    self.preludes += 1;
                    self.prelude.get_or_insert(kind);
                }
                Some(_) => return Answer::NotTls,
                None => return Answer::NeedMore,
            }
        }
    }
}
