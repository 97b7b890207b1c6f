//! Replays a capture file through the reader of server names.
