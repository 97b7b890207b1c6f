//! ClientHello messages, made field by field.

/// A ClientHello to be written.
#[derive(Clone, Debug)]
pub struct Hello {
    pub version: u16,
    pub session_id: Vec<u8>,
    pub cipher_suites: Vec<u16>,
    /// `None` for none at all, as in SSL 3.0.
    pub extensions: Option<Vec<(u16, Vec<u8>)>>,
}

impl Hello {
    /// With the extensions of a plain TLS 1.3 client.
    pub fn new(name: &str) -> Self {
        Self::without_name().with_extension(0, server_name(name.as_bytes()))
    }

    /// With about what Chrome sends, but for the order of extensions.
    pub fn like_a_browser(name: &str) -> Self {
        Self::new(name)
            .with_grease()
            .with_extension(5, vec![1, 0, 0, 0, 0])
            .with_extension(11, vec![1, 0])
            .with_extension(16, b"\x00\x0c\x02h2\x08http/1.1".to_vec())
            .with_extension(18, vec![])
            .with_extension(23, vec![])
            .with_extension(27, vec![2, 0, 2])
            .with_extension(35, vec![])
            .with_extension(0x4469, b"\x00\x03\x02h2".to_vec())
            .with_extension(0xff01, vec![0])
    }

    /// The same without a server name.
    pub fn without_name() -> Self {
        Self {
            version: 0x0303,
            session_id: vec![0x5a; 32],
            cipher_suites: vec![0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f],
            extensions: Some(vec![
                (10, vec![0, 4, 0, 0x1d, 0, 0x17]),
                (13, vec![0, 6, 4, 3, 8, 4, 4, 1]),
                (43, vec![4, 3, 4, 3, 3]),
                (45, vec![1, 1]),
                (51, [vec![0, 36, 0, 0x1d, 0, 32], vec![7; 32]].concat()),
            ]),
        }
    }

    /// With one more extension, which comes last.
    pub fn with_extension(mut self, kind: u16, content: Vec<u8>) -> Self {
        self.extensions.get_or_insert_default().push((kind, content));
        self
    }

    /// With reserved values wherever clients put them (RFC 8701).
    pub fn with_grease(mut self) -> Self {
        self.cipher_suites.insert(0, 0x8a8a);
        self.extensions.get_or_insert_default().insert(0, (0x3a3a, vec![]));
        self.with_extension(0xdada, vec![0])
    }

    /// With a key share of X25519MLKEM768, which makes it longer than a segment.
    pub fn with_post_quantum_share(mut self) -> Self {
        let shares =
            [vec![0x11, 0xec, 0x04, 0xc0], vec![9; 1216], vec![0, 0x1d, 0, 32], vec![7; 32]].concat();
        for (kind, content) in self.extensions.get_or_insert_default() {
            if *kind == 51 {
                *content = vector16(shares.clone());
            }
        }
        self
    }

    /// With an encrypted_client_hello extension.
    pub fn with_ech(self) -> Self {
        self.with_extension(0xfe0d, vec![0; 186])
    }

    /// With padding (RFC 7685) up to a length of the message.
    pub fn padded_to(self, length: usize) -> Self {
        let missing = length - self.message().len() - 4;
        self.with_extension(21, vec![0; missing])
    }

    /// The message's body.
    pub fn body(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([0x42; 32]);
        body.push(self.session_id.len() as u8);
        body.extend(&self.session_id);
        body.extend(vector16(self.cipher_suites.iter().flat_map(|suite| suite.to_be_bytes()).collect()));
        body.extend([1, 0]);
        if let Some(extensions) = &self.extensions {
            let list = extensions.iter().flat_map(|(kind, content)| {
                [kind.to_be_bytes().to_vec(), vector16(content.clone())].concat()
            });
            body.extend(vector16(list.collect()));
        }
        body
    }

    /// The handshake message.
    pub fn message(&self) -> Vec<u8> {
        handshake(1, &self.body())
    }
}

/// A handshake message of any kind.
pub fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&[kind, length[1], length[2], length[3]], body].concat()
}

/// The content of a server_name extension.
pub fn server_name(name: &[u8]) -> Vec<u8> {
    vector16([vec![0], vector16(name.to_vec())].concat())
}

/// A vector with a length of two bytes.
pub fn vector16(content: Vec<u8>) -> Vec<u8> {
    [(content.len() as u16).to_be_bytes().to_vec(), content].concat()
}
