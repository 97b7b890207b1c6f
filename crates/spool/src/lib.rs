//! A crash-safe queue of events on disk.
