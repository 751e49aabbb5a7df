//! The doors from outside: a real server on real sockets, simulated devices, a fake
//! APNs. One module per door.

mod house;

mod api_commands;
mod compat_nanomdm;
mod device_door;
mod hardening;
mod restart;
mod vectors;
