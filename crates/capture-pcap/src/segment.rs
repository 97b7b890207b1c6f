//! What a packet comes down to once its layers are peeled off: a TCP segment or a UDP
//! datagram between two endpoints.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::bytes::{be16_at, be32_at, u8_at};

/// An address and a port; IPv4 addresses as `::ffff:a.b.c.d`, so that there is one shape. As one number an
/// address is compared and hashed from registers, which bytes in an array are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    pub(crate) address: u128,
    pub(crate) port: u16,
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        let address = Ipv6Addr::from_bits(endpoint.address);
        let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
        Self::new(address, endpoint.port)
    }
}

/// IPv4 in the one shape of [`Endpoint`].
pub(crate) fn mapped(address: u32) -> u128 {
    Ipv4Addr::from_bits(address).to_ipv6_mapped().to_bits()
}

/// The addresses of an IP packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) source: u128,
    pub(crate) destination: u128,
}

/// The payload of a TCP segment or UDP datagram, and who sent it to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    pub(crate) source: Endpoint,
    pub(crate) destination: Endpoint,
    pub(crate) header: Header,
    pub(crate) payload: &'a [u8],
}

/// What the transport's header says that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    Tcp(TcpHeader),
    Udp,
}

/// What a TCP header says that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpHeader {
    pub(crate) sequence: u32,
    pub(crate) syn: bool,
    pub(crate) ack: bool,
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

impl<'a> Segment<'a> {
    /// Reads a TCP segment.
    #[inline]
    pub(crate) fn tcp(addresses: Addresses, bytes: &'a [u8]) -> Option<Self> {
        let header = usize::from(u8_at(bytes, 12)? >> 4) * 4;
        if header < TCP_HEADER {
            return None;
        }
        let flags = u8_at(bytes, 13)?;
        Some(Self {
            source: Endpoint { address: addresses.source, port: be16_at(bytes, 0)? },
            destination: Endpoint { address: addresses.destination, port: be16_at(bytes, 2)? },
            header: Header::Tcp(TcpHeader {
                sequence: be32_at(bytes, 4)?,
                syn: flags & SYN != 0,
                ack: flags & ACK != 0,
            }),
            payload: bytes.get(header..).unwrap_or_default(),
        })
    }

    /// Reads a UDP datagram; what lies beyond its own length is padding.
    #[inline]
    pub(crate) fn udp(addresses: Addresses, bytes: &'a [u8]) -> Option<Self> {
        let end = match usize::from(be16_at(bytes, 4)?) {
            0 => bytes.len(),
            length => length.min(bytes.len()),
        };
        Some(Self {
            source: Endpoint { address: addresses.source, port: be16_at(bytes, 0)? },
            destination: Endpoint { address: addresses.destination, port: be16_at(bytes, 2)? },
            header: Header::Udp,
            payload: bytes.get(UDP_HEADER..end)?,
        })
    }
}
