//! Messages of real devices, sent over HTTP to a running server.

