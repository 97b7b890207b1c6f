//! From a captured frame down to TCP or UDP: link layers, tags and labels, IP with its
//! options and extension headers, and tunnels. One loop peels one layer a turn, at most
//! [`DEPTH_LIMIT`] of them; a layer that is not understood ends it.

use crate::bytes::{be16_at, be32_at, be128_at, u8_at};
use crate::file::LinkType;
use crate::segment::{Addresses, Segment, mapped};

/// Most layers that are peeled off one packet.
const DEPTH_LIMIT: usize = 24;
/// Most IPv6 extension headers of one packet.
const EXTENSIONS_LIMIT: usize = 8;

/// What a packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    Segment(Segment<'a>),
    Fragment(Fragment<'a>),
}

/// A piece of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment<'a> {
    pub(crate) addresses: Addresses,
    pub(crate) protocol: u8,
    pub(crate) identification: u32,
    pub(crate) offset: usize,
    pub(crate) is_last: bool,
    pub(crate) payload: &'a [u8],
}

/// A layer whose first byte is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Ethernet,
    EtherType(u16),
    Mpls,
    Ppp,
    Pppoe,
    Ip,
    /// An IP protocol.
    Protocol(u8),
}

/// Peels a frame.
#[inline]
pub(crate) fn peel(link: LinkType, frame: &[u8]) -> Option<Found<'_>> {
    let (layer, bytes) = link_layer(link, frame)?;
    peel_from(layer, Addresses::default(), bytes)
}

/// Peels what fragments were put together to.
pub(crate) fn peel_protocol(protocol: u8, addresses: Addresses, bytes: &[u8]) -> Option<Found<'_>> {
    peel_from(Layer::Protocol(protocol), addresses, bytes)
}

/// `addresses` are those of the last IP layer, without which no protocol is read.
fn peel_from(mut layer: Layer, mut addresses: Addresses, mut bytes: &[u8]) -> Option<Found<'_>> {
    // A datagram on a tunnel's port may be no tunnel after all.
    let mut carrier = None;
    for _ in 0..DEPTH_LIMIT {
        let next = match layer {
            Layer::Ethernet => ethernet(bytes),
            Layer::EtherType(kind) => ether_type(kind, bytes),
            Layer::Mpls => mpls(bytes),
            Layer::Ppp => ppp(bytes),
            Layer::Pppoe => after(bytes, 6, Layer::Ppp),
            Layer::Ip => match ip(bytes) {
                Some(Ip::Whole(protocol, between, payload)) => {
                    addresses = between;
                    Some((Layer::Protocol(protocol), payload))
                }
                Some(Ip::Fragment(fragment)) => return Some(Found::Fragment(fragment)),
                None => None,
            },
            Layer::Protocol(6) => return Segment::tcp(addresses, bytes).map(Found::Segment),
            Layer::Protocol(17) => {
                let Some(datagram) = Segment::udp(addresses, bytes) else { break };
                match tunnel(&datagram) {
                    Some(next) => {
                        carrier = carrier.or(Some(datagram));
                        Some(next)
                    }
                    None => return Some(Found::Segment(datagram)),
                }
            }
            Layer::Protocol(protocol) => encapsulated(protocol, bytes),
        };
        let Some(next) = next else { break };
        (layer, bytes) = next;
    }
    carrier.map(Found::Segment)
}

type Next<'a> = Option<(Layer, &'a [u8])>;

#[inline]
fn after(bytes: &[u8], header: usize, layer: Layer) -> Next<'_> {
    Some((layer, bytes.get(header..)?))
}

fn link_layer(link: LinkType, frame: &[u8]) -> Next<'_> {
    match link.0 {
        // NULL and LOOP name the address family in someone's byte order; the IP version says the same.
        0 | 108 => after(frame, 4, Layer::Ip),
        1 => Some((Layer::Ethernet, frame)),
        // PPP, PPP_HDLC.
        9 | 50 => Some((Layer::Ppp, frame)),
        // PPP_ETHER.
        51 => Some((Layer::Pppoe, frame)),
        // RAW as written by various systems, and in the registry; IPV4, IPV6.
        12 | 14 | 101 | 228 | 229 => Some((Layer::Ip, frame)),
        // C_HDLC: address, control, and an EtherType.
        104 => after(frame, 4, Layer::EtherType(be16_at(frame, 2)?)),
        // LINUX_SLL.
        113 => after(frame, 16, Layer::EtherType(be16_at(frame, 14)?)),
        // PPP_PPPD: a byte for the direction.
        166 => after(frame, 1, Layer::Ppp),
        // LINUX_SLL2.
        276 => after(frame, 20, Layer::EtherType(be16_at(frame, 0)?)),
        _ => None,
    }
}

#[inline]
fn ethernet(bytes: &[u8]) -> Next<'_> {
    after(bytes, 14, Layer::EtherType(be16_at(bytes, 12)?))
}

#[inline]
fn ether_type(kind: u16, bytes: &[u8]) -> Next<'_> {
    match kind {
        0x0800 | 0x86dd => Some((Layer::Ip, bytes)),
        // 802.1Q, 802.1ad and the QinQ of before.
        0x8100 | 0x88a8 | 0x9100 | 0x9200 => after(bytes, 4, Layer::EtherType(be16_at(bytes, 2)?)),
        0x8847 | 0x8848 => Some((Layer::Mpls, bytes)),
        0x8864 => Some((Layer::Pppoe, bytes)),
        // PPP in GRE (RFC 2637).
        0x880b => Some((Layer::Ppp, bytes)),
        // Cisco metadata: version, number of options, options of four bytes, an EtherType.
        0x8909 => {
            let header = 2 + 4 * usize::from(u8_at(bytes, 1)?);
            after(bytes, header + 2, Layer::EtherType(be16_at(bytes, header)?))
        }
        // Transparent Ethernet bridging (RFC 1701).
        0x6558 => Some((Layer::Ethernet, bytes)),
        // A length: LLC, of which only SNAP leads to IP.
        0..=1500 if bytes.starts_with(&[0xaa, 0xaa, 0x03, 0, 0, 0]) => {
            after(bytes, 8, Layer::EtherType(be16_at(bytes, 6)?))
        }
        _ => None,
    }
}

/// RFC 3032; what follows the bottom label is told by its first nibble (RFC 4928).
fn mpls(bytes: &[u8]) -> Next<'_> {
    let is_bottom = u8_at(bytes, 2)? & 1 == 1;
    if !is_bottom {
        return after(bytes, 4, Layer::Mpls);
    }
    match u8_at(bytes, 4)? >> 4 {
        4 | 6 => after(bytes, 4, Layer::Ip),
        // A pseudowire's control word.
        0 => after(bytes, 8, Layer::Ethernet),
        _ => after(bytes, 4, Layer::Ethernet),
    }
}

/// RFC 1661 and 1662, with and without address and control, and with a compressed protocol.
fn ppp(bytes: &[u8]) -> Next<'_> {
    let bytes = bytes.strip_prefix(&[0xff, 0x03]).unwrap_or(bytes);
    let (protocol, header) = match u8_at(bytes, 0)? {
        byte if byte & 1 == 1 => (u16::from(byte), 1),
        _ => (be16_at(bytes, 0)?, 2),
    };
    match protocol {
        0x0021 | 0x0057 => after(bytes, header, Layer::Ip),
        0x0281 | 0x0283 => after(bytes, header, Layer::Mpls),
        _ => None,
    }
}

enum Ip<'a> {
    /// The protocol, between whom, and its bytes.
    Whole(u8, Addresses, &'a [u8]),
    Fragment(Fragment<'a>),
}

#[inline]
fn ip(bytes: &[u8]) -> Option<Ip<'_>> {
    match u8_at(bytes, 0)? >> 4 {
        4 => ipv4(bytes),
        6 => ipv6(bytes),
        _ => None,
    }
}

/// RFC 791. A total length of 0 is what segmentation offload leaves behind.
#[inline]
fn ipv4(bytes: &[u8]) -> Option<Ip<'_>> {
    let header = usize::from(u8_at(bytes, 0)? & 0x0f) * 4;
    let end = match usize::from(be16_at(bytes, 2)?) {
        0 => bytes.len(),
        length => length.min(bytes.len()),
    };
    if header < 20 {
        return None;
    }
    let payload = bytes.get(header..end)?;
    let addresses =
        Addresses { source: mapped(be32_at(bytes, 12)?), destination: mapped(be32_at(bytes, 16)?) };
    let protocol = u8_at(bytes, 9)?;
    let fragmentation = be16_at(bytes, 6)?;
    let (more, offset) = (fragmentation & 0x2000 != 0, usize::from(fragmentation & 0x1fff) * 8);
    if !more && offset == 0 {
        return Some(Ip::Whole(protocol, addresses, payload));
    }
    let identification = be16_at(bytes, 4)?.into();
    Some(Ip::Fragment(Fragment { addresses, protocol, identification, offset, is_last: !more, payload }))
}

/// RFC 8200. A payload length of 0 is a jumbogram or what segmentation offload leaves behind.
fn ipv6(bytes: &[u8]) -> Option<Ip<'_>> {
    let end = match usize::from(be16_at(bytes, 4)?) {
        0 => bytes.len(),
        length => (40 + length).min(bytes.len()),
    };
    let addresses = Addresses { source: be128_at(bytes, 8)?, destination: be128_at(bytes, 24)? };
    let mut protocol = u8_at(bytes, 6)?;
    let mut payload = bytes.get(40..end)?;
    for _ in 0..EXTENSIONS_LIMIT {
        let length = match protocol {
            // Hop-by-hop, routing, destination, mobility, HIP, Shim6.
            0 | 43 | 60 | 135 | 139 | 140 => 8 + 8 * usize::from(u8_at(payload, 1)?),
            // Authentication (RFC 4302).
            51 => 8 + 4 * usize::from(u8_at(payload, 1)?),
            44 => {
                let (field, identification) = (be16_at(payload, 2)?, be32_at(payload, 4)?);
                let (next, rest) = (u8_at(payload, 0)?, payload.get(8..)?);
                let (more, offset) = (field & 1 != 0, usize::from(field & 0xfff8));
                if more || offset != 0 {
                    return Some(Ip::Fragment(Fragment {
                        addresses,
                        protocol: next,
                        identification,
                        offset,
                        is_last: !more,
                        payload: rest,
                    }));
                }
                8
            }
            _ => return Some(Ip::Whole(protocol, addresses, payload)),
        };
        protocol = u8_at(payload, 0)?;
        payload = payload.get(length..)?;
    }
    None
}

/// IP in IP, GRE, and an authentication header.
fn encapsulated(protocol: u8, bytes: &[u8]) -> Next<'_> {
    match protocol {
        4 | 41 => Some((Layer::Ip, bytes)),
        47 => gre(bytes),
        137 => Some((Layer::Mpls, bytes)),
        _ => None,
    }
}

/// RFC 2784 and 2890, and the version 1 of RFC 2637.
fn gre(bytes: &[u8]) -> Next<'_> {
    let flags = be16_at(bytes, 0)?;
    let acknowledged = flags & 0x0007 == 1 && flags & 0x0080 != 0;
    let optional = [flags & 0x8000 != 0, flags & 0x2000 != 0, flags & 0x1000 != 0, acknowledged];
    let header = 4 + 4 * optional.iter().filter(|&&present| present).count();
    after(bytes, header, Layer::EtherType(be16_at(bytes, 2)?))
}

/// Tunnels over UDP, told by their ports.
fn tunnel<'a>(datagram: &Segment<'a>) -> Next<'a> {
    let bytes = datagram.payload;
    match datagram.destination.port {
        2152 => gtp(bytes),
        // VXLAN (RFC 7348) and the port that Linux used before.
        4789 | 8472 if u8_at(bytes, 0)? & 0x08 != 0 => after(bytes, 8, Layer::Ethernet),
        // GENEVE (RFC 8926).
        6081 if u8_at(bytes, 0)? >> 6 == 0 => {
            let header = 8 + 4 * usize::from(u8_at(bytes, 0)? & 0x3f);
            after(bytes, header, Layer::EtherType(be16_at(bytes, 2)?))
        }
        _ => None,
    }
}

/// GTP-U version 1, a G-PDU (3GPP TS 29.281).
fn gtp(bytes: &[u8]) -> Next<'_> {
    let flags = u8_at(bytes, 0)?;
    if flags & 0xf0 != 0x30 || u8_at(bytes, 1)? != 0xff {
        return None;
    }
    if flags & 0x07 == 0 {
        return after(bytes, 8, Layer::Ip);
    }
    let mut header = 12;
    if flags & 0x04 != 0 {
        let mut extension = u8_at(bytes, 11)?;
        for _ in 0..EXTENSIONS_LIMIT {
            if extension == 0 {
                break;
            }
            header += 4 * usize::from(u8_at(bytes, header)?).max(1);
            extension = u8_at(bytes, header - 1)?;
        }
    }
    after(bytes, header, Layer::Ip)
}
