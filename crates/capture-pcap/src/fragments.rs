//! Puts IP fragments together (RFC 791, RFC 8200 section 4.5). At most [`PACKETS_LIMIT`] packets
//! are in the making, the oldest gives way; each is at most 64 KiB in at most [`GAPS_LIMIT`] pieces.

use std::collections::VecDeque;

use crate::layers::Fragment;
use crate::segment::Addresses;

const PACKETS_LIMIT: usize = 32;
const GAPS_LIMIT: usize = 64;
const LENGTH_LIMIT: usize = 64 * 1024;

/// Packets in the making.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    packets: VecDeque<Packet>,
}

/// A packet that is whole again.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) protocol: u8,
    pub(crate) addresses: Addresses,
    pub(crate) payload: Vec<u8>,
}

impl Fragments {
    /// Adds a fragment; the packet, once it is whole.
    pub(crate) fn push(&mut self, fragment: &Fragment<'_>) -> Option<Whole> {
        let key = Key::of(fragment);
        let index = match self.packets.iter().position(|packet| packet.key == key) {
            Some(index) => index,
            None => {
                if self.packets.len() == PACKETS_LIMIT {
                    self.packets.pop_front();
                }
                self.packets.push_back(Packet { key, bytes: Vec::new(), pieces: Vec::new(), length: None });
                self.packets.len() - 1
            }
        };
        let packet = self.packets.get_mut(index)?;
        if !packet.add(fragment) {
            self.packets.remove(index);
            return None;
        }
        if !packet.is_whole() {
            return None;
        }
        let packet = self.packets.remove(index)?;
        Some(Whole { protocol: key.protocol, addresses: key.addresses, payload: packet.bytes })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    addresses: Addresses,
    protocol: u8,
    identification: u32,
}

impl Key {
    fn of(fragment: &Fragment<'_>) -> Self {
        Self {
            addresses: fragment.addresses,
            protocol: fragment.protocol,
            identification: fragment.identification,
        }
    }
}

#[derive(Debug)]
struct Packet {
    key: Key,
    bytes: Vec<u8>,
    /// Ranges that have come, sorted and apart.
    pieces: Vec<(usize, usize)>,
    length: Option<usize>,
}

impl Packet {
    /// Whether the fragment could be taken.
    fn add(&mut self, fragment: &Fragment<'_>) -> bool {
        let (from, to) = (fragment.offset, fragment.offset + fragment.payload.len());
        if to > LENGTH_LIMIT || self.pieces.len() == GAPS_LIMIT {
            return false;
        }
        if fragment.is_last {
            self.length = Some(to);
        }
        if self.bytes.len() < to {
            self.bytes.resize(to, 0);
        }
        if let Some(room) = self.bytes.get_mut(from..to) {
            room.copy_from_slice(fragment.payload);
        }
        self.pieces.push((from, to));
        self.pieces.sort_unstable();
        self.pieces.dedup_by(|next, last| {
            let touches = next.0 <= last.1;
            if touches {
                last.1 = last.1.max(next.1);
            }
            touches
        });
        true
    }

    fn is_whole(&self) -> bool {
        self.length.is_some_and(|length| self.pieces == [(0, length)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(offset: usize, payload: &[u8], is_last: bool) -> Fragment<'_> {
        let addresses = Addresses { source: 1, destination: 2 };
        Fragment { addresses, protocol: 6, identification: 7, offset, is_last, payload }
    }

    #[test]
    fn fragments_in_any_order_make_the_packet() {
        let mut fragments = Fragments::default();
        assert!(fragments.push(&fragment(8, &[2; 8], false)).is_none());
        assert!(fragments.push(&fragment(16, &[3; 4], true)).is_none());
        assert!(fragments.push(&fragment(8, &[2; 8], false)).is_none());
        let whole = fragments.push(&fragment(0, &[1; 8], false)).unwrap();
        assert_eq!(whole.payload, [[1; 8].as_slice(), &[2; 8], &[3; 4]].concat());
        assert!(fragments.packets.is_empty());
    }

    #[test]
    fn the_oldest_packet_gives_way_and_an_impossible_one_is_dropped() {
        let mut fragments = Fragments::default();
        for identification in 0..1000 {
            fragments.push(&Fragment { identification, ..fragment(8, &[0; 8], false) });
        }
        assert_eq!(fragments.packets.len(), PACKETS_LIMIT);
        fragments.push(&fragment(65_528, &[0; 100], true));
        assert!(fragments.packets.iter().all(|packet| packet.key.identification != 7));
    }
}
