//! The device's key, CSR, certificate and their store.
