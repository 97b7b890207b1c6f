//! TLS records around handshake bytes.

/// One handshake record.
pub fn record(content: &[u8]) -> Vec<u8> {
    record_of(22, content)
}

/// One record of any type.
pub fn record_of(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u16).to_be_bytes();
    [&[kind, 3, 1, length[0], length[1]], content].concat()
}

/// Records with a boundary at each of the positions, which are sorted.
pub fn records_cut_at(message: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut start = 0;
    for cut in cuts.iter().copied().chain([message.len()]) {
        stream.extend(record(&message[start..cut]));
        start = cut;
    }
    stream
}
