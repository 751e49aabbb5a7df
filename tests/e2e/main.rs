//! The doors from outside: a real server on real sockets, simulated devices, a fake
//! APNs. One module per door.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod house;

mod acme;
mod admin_routes;
mod api_commands;
mod apns_faults;
mod backup;
mod bench;
mod canaries;
mod catalog;
mod checkin_server;
mod clock;
mod compat_nanomdm;
mod device_door;
mod doctor;
mod edge;
mod enrollment_links;
mod fitness;
mod full_disk;
mod hardening;
mod identities;
mod inventory;
mod kill;
mod never_unenroll;
mod ota;
mod pkcs12;
mod push_certificates;
mod pushes;
mod reenrollment;
mod renewals;
mod restart;
mod scep;
mod scep_matrix;
mod tls;
mod tools;
mod vectors;
