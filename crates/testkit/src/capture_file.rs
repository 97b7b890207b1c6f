//! Writes a capture file of any number of TLS and QUIC flows, the same bytes for the same numbers: ClientHellos of
//! 517 and 1,800 bytes, whole, split, and out of order; one flow in six QUIC with real encrypted Initial packets;
//! flows interleaved, each with some packets that say nothing. Holds only the flows that are open.

use std::io::{self, Write};

use ring::aead::quic::{AES_128 as AES_128_MASK, HeaderProtectionKey};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;

/// What is written.
#[derive(Clone, Copy, Debug)]
pub struct CaptureFile {
    /// How many flows.
    pub flows: u32,
    /// Changes every number that is drawn.
    pub seed: u64,
    /// How many flows are open at once.
    pub open_flows: usize,
}

impl CaptureFile {
    /// Writes the file, in the classic format with Ethernet frames.
    pub fn write(&self, output: &mut impl Write) -> io::Result<()> {
        let mut random = Random(self.seed | 1);
        let initials = initial_packets(&mut random)?;
        output.write_all(&pcap_header())?;
        let mut file = Frames { output, timestamp_us: 1_767_225_600_000_000, frame: Vec::new() };
        let mut open = Vec::new();
        let mut begun = 0;
        while begun < self.flows || !open.is_empty() {
            while open.len() < self.open_flows.max(1) && begun < self.flows {
                open.push(Script::new(begun, &initials, &mut random));
                begun += 1;
            }
            let chosen = random.below(open.len());
            if let Some(script) = open.get_mut(chosen)
                && !script.write_next(&initials, &mut file)?
            {
                open.swap_remove(chosen);
            }
        }
        Ok(())
    }
}

/// The server name of a TCP flow, by its number. QUIC flows share [`QUIC_NAME`] and one in eight flows is a provider's.
pub fn tcp_name(flow: u32) -> String {
    const PROVIDERS: [&str; 4] =
        ["api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com", "api.mistral.ai"];
    match PROVIDERS.get(flow as usize / 8 % 4) {
        Some(name) if flow.is_multiple_of(8) => (*name).to_owned(),
        _ => format!("host-{flow:08}.example.net"),
    }
}

/// The server name of every QUIC flow.
pub const QUIC_NAME: &str = "chat.openai.com";

/// Whether a flow is QUIC.
pub fn is_quic(flow: u32) -> bool {
    flow % 6 == 5
}

const SMALL_HELLO: usize = 517;
const LARGE_HELLO: usize = 1800;
const SEGMENT: usize = 1400;
const INITIALS: usize = 512;
/// Length of an Initial packet, which is a datagram's least (RFC 9000, 14.1).
const INITIAL: usize = 1200;

/// What is still to be sent of a flow, last packet first.
struct Script {
    client: Endpoint,
    server: Endpoint,
    packets: Vec<Scripted>,
}

#[derive(Clone, Copy)]
struct Endpoint {
    address: [u8; 4],
    port: u16,
}

enum Scripted {
    Tcp {
        from_client: bool,
        flags: u8,
        sequence: u32,
        payload: Vec<u8>,
    },
    Udp {
        from_client: bool,
        payload: Vec<u8>,
    },
    /// The datagram of this number.
    Initial(usize),
}

const SYN: u8 = 0x02;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

impl Script {
    fn new(flow: u32, initials: &[Vec<Vec<u8>>], random: &mut Random) -> Self {
        let [_, a, b, c] = flow.to_be_bytes();
        let client = Endpoint { address: [10, a, b, c], port: 32_768 + (random.next() % 28_000) as u16 };
        let server = Endpoint { address: [198, 18, (random.next() % 256) as u8, b], port: 443 };
        let mut packets =
            if is_quic(flow) { quic_packets(initials, random) } else { tcp_packets(flow, random) };
        packets.reverse();
        Self { client, server, packets }
    }

    /// Whether there is more to write.
    fn write_next<W: Write>(
        &mut self,
        initials: &[Vec<Vec<u8>>],
        file: &mut Frames<'_, W>,
    ) -> io::Result<bool> {
        let ends =
            |from_client| if from_client { (self.client, self.server) } else { (self.server, self.client) };
        match self.packets.pop() {
            None => return Ok(false),
            Some(Scripted::Tcp { from_client, flags, sequence, payload }) => {
                file.tcp(ends(from_client), flags, sequence, &payload)?;
            }
            Some(Scripted::Udp { from_client, payload }) => file.udp(ends(from_client), &payload)?,
            Some(Scripted::Initial(number)) => {
                let datagram = initials.iter().flatten().nth(number);
                file.udp(ends(true), datagram.map_or(&[], Vec::as_slice))?;
            }
        }
        Ok(!self.packets.is_empty())
    }
}

fn tcp_packets(flow: u32, random: &mut Random) -> Vec<Scripted> {
    let (client_start, server_start) = (random.next() as u32, random.next() as u32);
    let kind = random.below(10);
    let hello = client_hello(&tcp_name(flow), if kind < 6 { SMALL_HELLO } else { LARGE_HELLO }, random);
    let cuts = match kind {
        0..5 => vec![],
        5 => vec![1 + random.below(250), 251 + random.below(250)],
        _ => vec![SEGMENT],
    };
    let mut hello_packets = Vec::new();
    let mut from = 0;
    for to in cuts.into_iter().chain([hello.len()]) {
        let payload = hello.get(from..to).unwrap_or_default().to_vec();
        let sequence = client_start.wrapping_add(1 + from as u32);
        hello_packets.push(Scripted::Tcp { from_client: true, flags: PSH | ACK, sequence, payload });
        from = to;
    }
    if kind == 9 {
        hello_packets.reverse();
    }
    let tcp = |from_client, flags, sequence: u32, length| {
        let payload = vec![0x17; length];
        Scripted::Tcp { from_client, flags, sequence, payload }
    };
    let after_hello = client_start.wrapping_add(1 + hello.len() as u32);
    let mut packets = vec![
        tcp(true, SYN, client_start, 0),
        tcp(false, SYN | ACK, server_start, 0),
        tcp(true, ACK, client_start.wrapping_add(1), 0),
    ];
    packets.extend(hello_packets);
    packets.extend([
        tcp(false, PSH | ACK, server_start.wrapping_add(1), 300),
        tcp(true, PSH | ACK, after_hello, 120),
        tcp(false, PSH | ACK, server_start.wrapping_add(301), 200),
        tcp(true, FIN | ACK, after_hello.wrapping_add(120), 0),
    ]);
    packets
}

fn quic_packets(initials: &[Vec<Vec<u8>>], random: &mut Random) -> Vec<Scripted> {
    let connection = random.below(initials.len());
    let first: usize = initials.iter().take(connection).map(Vec::len).sum();
    let count = initials.get(connection).map_or(0, Vec::len);
    let mut packets: Vec<_> = (first..first + count).map(Scripted::Initial).collect();
    // A server's Handshake packet to the client's empty identifier, then short headers both ways.
    let handshake =
        [&[0xe0, 0, 0, 0, 1, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0x41, 0x00][..], &[0x5a; 300]].concat();
    packets.push(Scripted::Udp { from_client: false, payload: handshake });
    packets.push(Scripted::Udp { from_client: true, payload: vec![0x45; 120] });
    packets.push(Scripted::Udp { from_client: false, payload: vec![0x45; 300] });
    packets
}

/// A TLS record with a ClientHello, `length` bytes in all.
fn client_hello(name: &str, length: usize, random: &mut Random) -> Vec<u8> {
    let message = hello_message(name, length - 5, random);
    let mut record = vec![0x16, 3, 1];
    record.extend_from_slice(&(message.len() as u16).to_be_bytes());
    record.extend_from_slice(&message);
    record
}

/// A ClientHello message (RFC 8446, 4.1.2), `length` bytes in all by its padding (RFC 7685).
fn hello_message(name: &str, length: usize, random: &mut Random) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend_from_slice(&random.bytes::<32>());
    body.push(32);
    body.extend_from_slice(&random.bytes::<32>());
    let suites = [0x1301_u16, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0x009c];
    push_u16(&mut body, suites.len() * 2);
    suites.iter().for_each(|suite| body.extend_from_slice(&suite.to_be_bytes()));
    body.extend_from_slice(&[1, 0]);

    let mut extensions = Vec::new();
    let mut key_share = vec![0, 0x1d, 0, 32];
    key_share.extend_from_slice(&random.bytes::<32>());
    if length > 1400 {
        // X25519MLKEM768.
        key_share.splice(0..0, [&[0x11, 0xec, 0x04, 0xc0][..], &vec![0x5c; 1216]].concat());
    }
    let key_shares = [&(key_share.len() as u16).to_be_bytes()[..], &key_share].concat();
    push_extension(&mut extensions, 0x000a, &[0, 4, 0x11, 0xec, 0, 0x1d]);
    push_extension(&mut extensions, 0x000d, &[0, 6, 4, 3, 8, 4, 8, 5]);
    push_extension(&mut extensions, 0x0010, &[0, 3, 2, b'h', b'2']);
    push_extension(&mut extensions, 0x002b, &[4, 3, 4, 3, 3]);
    push_extension(&mut extensions, 0x0033, &key_shares);
    let mut server_name = Vec::new();
    push_u16(&mut server_name, name.len() + 3);
    server_name.push(0);
    push_u16(&mut server_name, name.len());
    server_name.extend_from_slice(name.as_bytes());
    push_extension(&mut extensions, 0, &server_name);

    let padding = length.saturating_sub(4 + body.len() + 2 + extensions.len() + 4);
    push_extension(&mut extensions, 0x0015, &vec![0; padding]);
    push_u16(&mut body, extensions.len());
    body.extend_from_slice(&extensions);

    let mut message = (body.len() as u32).to_be_bytes().to_vec();
    message[0] = 1;
    message.extend_from_slice(&body);
    message
}

fn push_u16(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend_from_slice(&(number as u16).to_be_bytes());
}

fn push_extension(extensions: &mut Vec<u8>, kind: u16, content: &[u8]) {
    extensions.extend_from_slice(&kind.to_be_bytes());
    push_u16(extensions, content.len());
    extensions.extend_from_slice(content);
}

/// The datagrams of [`INITIALS`] connections, each with identifiers of its own; one in eight
/// has its hello in two datagrams.
fn initial_packets(random: &mut Random) -> io::Result<Vec<Vec<Vec<u8>>>> {
    let mut connections = Vec::new();
    for number in 0..INITIALS {
        let keys = InitialKeys::derive(&random.bytes::<8>());
        let hello = hello_message(QUIC_NAME, if number % 8 == 0 { 1600 } else { 512 }, random);
        let datagrams = hello
            .chunks(1000)
            .enumerate()
            .map(|(index, chunk)| {
                keys.seal(index as u16, index * 1000, chunk).ok_or(io::ErrorKind::Other.into())
            })
            .collect::<io::Result<_>>()?;
        connections.push(datagrams);
    }
    Ok(connections)
}

/// Keys of a client's Initial packets (RFC 9001, 5.2), QUIC version 1.
struct InitialKeys {
    destination_id: [u8; 8],
    packet: [u8; 16],
    iv: [u8; 12],
    header: [u8; 16],
}

impl InitialKeys {
    const SALT: [u8; 20] = [
        0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc,
        0xbb, 0x7f, 0x0a,
    ];

    fn derive(destination_id: &[u8; 8]) -> Self {
        let initial = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &Self::SALT), destination_id);
        let client = expand::<32>(initial.as_ref(), "client in");
        Self {
            destination_id: *destination_id,
            packet: expand(&client, "quic key"),
            iv: expand(&client, "quic iv"),
            header: expand(&client, "quic hp"),
        }
    }

    /// An Initial packet of [`INITIAL`] bytes with one CRYPTO frame.
    fn seal(&self, number: u16, position: usize, crypto: &[u8]) -> Option<Vec<u8>> {
        let mut packet = vec![0xc1, 0, 0, 0, 1, 8];
        packet.extend_from_slice(&self.destination_id);
        packet.extend_from_slice(&[0, 0]);
        let rest = INITIAL - packet.len() - 2;
        push_u16(&mut packet, 0x4000 | rest);
        let number_at = packet.len();
        packet.extend_from_slice(&number.to_be_bytes());

        let mut frames = vec![6];
        push_u16(&mut frames, 0x4000 | position);
        push_u16(&mut frames, 0x4000 | crypto.len());
        frames.extend_from_slice(crypto);
        frames.resize(rest - 2 - AES_128_GCM.tag_len(), 0);
        let mut nonce = self.iv;
        let [high, low] = number.to_be_bytes();
        nonce[10] ^= high;
        nonce[11] ^= low;
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &self.packet).ok()?);
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce, Aad::from(&packet), &mut frames).ok()?;
        packet.extend_from_slice(&frames);

        let sample = packet.get(number_at + 4..number_at + 20)?;
        let mask = HeaderProtectionKey::new(&AES_128_MASK, &self.header).ok()?.new_mask(sample).ok()?;
        packet[0] ^= mask[0] & 0x0f;
        for (byte, mask) in packet.iter_mut().skip(number_at).zip([mask[1], mask[2]]) {
            *byte ^= mask;
        }
        Some(packet)
    }
}

/// HKDF-Expand-Label (RFC 8446, 7.1) for at most one block.
fn expand<const N: usize>(secret: &[u8], label: &str) -> [u8; N] {
    let mut info = vec![0, N as u8, 6 + label.len() as u8];
    info.extend_from_slice(b"tls13 ");
    info.extend_from_slice(label.as_bytes());
    info.extend_from_slice(&[0, 1]);
    let block = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), &info);
    let mut output = [0; N];
    output.iter_mut().zip(block.as_ref()).for_each(|(to, from)| *to = *from);
    output
}

fn pcap_header() -> [u8; 24] {
    let mut header = [0; 24];
    header[..4].copy_from_slice(&0xa1b2_c3d4_u32.to_le_bytes());
    header[4] = 2;
    header[6] = 4;
    header[16..20].copy_from_slice(&262_144_u32.to_le_bytes());
    header[20] = 1;
    header
}

/// Puts payloads into frames and frames into records.
struct Frames<'a, W> {
    output: &'a mut W,
    timestamp_us: u64,
    frame: Vec<u8>,
}

impl<W: Write> Frames<'_, W> {
    fn tcp(
        &mut self,
        (source, destination): (Endpoint, Endpoint),
        flags: u8,
        sequence: u32,
        payload: &[u8],
    ) -> io::Result<()> {
        let mut header = [0; 32];
        header[..2].copy_from_slice(&source.port.to_be_bytes());
        header[2..4].copy_from_slice(&destination.port.to_be_bytes());
        header[4..8].copy_from_slice(&sequence.to_be_bytes());
        header[12] = 0x80;
        header[13] = flags;
        header[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        // Two no-operations, then timestamps.
        header[20..24].copy_from_slice(&[1, 1, 8, 10]);
        self.ipv4(source, destination, 6, &header, payload)
    }

    fn udp(&mut self, (source, destination): (Endpoint, Endpoint), payload: &[u8]) -> io::Result<()> {
        let mut header = [0; 8];
        header[..2].copy_from_slice(&source.port.to_be_bytes());
        header[2..4].copy_from_slice(&destination.port.to_be_bytes());
        header[4..6].copy_from_slice(&(8 + payload.len() as u16).to_be_bytes());
        self.ipv4(source, destination, 17, &header, payload)
    }

    fn ipv4(
        &mut self,
        source: Endpoint,
        destination: Endpoint,
        protocol: u8,
        header: &[u8],
        payload: &[u8],
    ) -> io::Result<()> {
        self.timestamp_us += 10;
        let length = 20 + header.len() + payload.len();
        self.frame.clear();
        for number in [
            self.timestamp_us / 1_000_000,
            self.timestamp_us % 1_000_000,
            14 + length as u64,
            14 + length as u64,
        ] {
            self.frame.extend_from_slice(&(number as u32).to_le_bytes());
        }
        self.frame.extend_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, 0x45, 0]);
        self.frame.extend_from_slice(&(length as u16).to_be_bytes());
        self.frame.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
        self.frame.extend_from_slice(&source.address);
        self.frame.extend_from_slice(&destination.address);
        self.frame.extend_from_slice(header);
        self.frame.extend_from_slice(payload);
        self.output.write_all(&self.frame)
    }
}

/// A small generator (xorshift64*) that gives the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit.max(1)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }
}
