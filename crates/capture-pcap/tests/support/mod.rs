//! Capture files made by hand, around the one packet that the tests look for.
#![allow(dead_code, reason = "each test uses a part")]

/// A ClientHello for `test.example` in a TLS record: the least that is valid.
pub fn hello() -> Vec<u8> {
    let name = b"test.example";
    let mut extensions = vec![0, 0, 0, name.len() as u8 + 5, 0, name.len() as u8 + 3, 0, 0, name.len() as u8];
    extensions.extend_from_slice(name);
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 2, 0x13, 0x01, 1, 0, 0, extensions.len() as u8]);
    body.extend_from_slice(&extensions);
    let length = body.len() as u8;
    [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat()
}

/// A TCP segment.
pub fn tcp(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0xc0, 0, 0x01, 0xbb];
    segment.extend_from_slice(&sequence.to_be_bytes());
    segment.extend_from_slice(&[0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend_from_slice(payload);
    segment
}

/// An IPv4 packet, with four bytes of options.
pub fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_fragment(protocol, 0, payload)
}

/// An IPv4 packet with this flags-and-offset field.
pub fn ipv4_fragment(protocol: u8, fragmentation: u16, payload: &[u8]) -> Vec<u8> {
    let length = (24 + payload.len()) as u16;
    let mut packet = vec![0x46, 0];
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[0, 9]);
    packet.extend_from_slice(&fragmentation.to_be_bytes());
    packet.extend_from_slice(&[64, protocol, 0, 0, 10, 0, 0, 1, 192, 0, 2, 1, 1, 1, 1, 1]);
    packet.extend_from_slice(payload);
    packet
}

/// An IPv6 packet with a hop-by-hop and a destination header.
pub fn ipv6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&(16 + payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[0, 64]);
    packet.extend_from_slice(&[&[0x20, 1][..], &[0; 13], &[1]].concat());
    packet.extend_from_slice(&[&[0x20, 1][..], &[0; 13], &[2]].concat());
    packet.extend_from_slice(&[60, 0, 1, 4, 0, 0, 0, 0, protocol, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend_from_slice(payload);
    packet
}

/// A UDP datagram to a port.
pub fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let mut datagram = vec![0xc0, 0];
    datagram.extend_from_slice(&port.to_be_bytes());
    datagram.extend_from_slice(&length.to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    datagram
}

/// An Ethernet frame.
pub fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &ether_type.to_be_bytes(), payload].concat()
}

/// A classic capture file of these frames.
pub fn pcap(link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0];
    file.extend_from_slice(&link.to_le_bytes());
    for frame in frames {
        file.extend_from_slice(&[0; 8]);
        file.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        file.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        file.extend_from_slice(frame);
    }
    file
}

/// The names in a capture file.
pub fn names(file: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let (_, _) = toktra_capture_pcap::replay(file, |flow| {
        if let toktra_capture_pcap::Outcome::Name { name, .. } = &flow.outcome {
            names.push(name.to_string());
        }
    });
    names
}
