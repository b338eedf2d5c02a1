//! Relays on real servers.
