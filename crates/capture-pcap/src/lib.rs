//! Replays a capture file through the reader of server names.
//!
//! [`CaptureReader`] gives the packets of a pcap or pcapng file, [`Replay`] the flows in them, [`replay()`]
//! joins the two; [`payloads()`] gives what is in them as it was sent. Layers are peeled down to TCP and UDP through links, tags, labels and tunnels; TCP streams
//! and QUIC connections go to `toktra-hello`. Invariants: any bytes may come in and none panics; memory is
//! bounded by constants, not by the file; a flow that is decided is forgotten.
#![forbid(unsafe_code)]

mod bytes;
mod decided;
mod file;
mod flow;
mod fragments;
mod layers;
mod ng;
mod payloads;
mod quic;
mod replay;
mod segment;
mod tcp;
mod undecided;
mod window;

pub use file::{CaptureError, CaptureReader, INTERFACES_LIMIT, LinkType, Packet, RECORD_LIMIT};
pub use flow::{Flow, Outcome, Transport};
pub use payloads::{Payload, Place, payloads};
pub use replay::{Replay, Totals, replay};
pub use toktra_hello::{Prelude, Reason};
