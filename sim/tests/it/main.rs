//! The simulator against real counterparts: its fake APNs against an HTTP/2
//! client, its devices and its load generator against a toy server.

#![expect(clippy::unwrap_used, reason = "a test may stop at a surprise")]

mod apns;
mod fleet;
mod load;
mod tls_server;
mod toy_server;
