//! The doors: how the world gets in.
//!
//! HTTP for devices and admins, the command line, the configuration, and the
//! composition root that puts the house together. The top floor: it may name
//! everything below, and nothing below names it.

pub mod admin_client;
pub mod api;
pub mod app;
pub mod auth;
mod body;
pub mod cli;
pub mod compat;
pub mod config;
pub mod demo;
pub mod enroll;
pub mod error;
pub mod identity;
pub mod link_limits;
pub mod mdm;
pub mod metrics;
pub mod public_url;
pub mod scep;
pub mod server;
pub mod tls;

pub use config::Config;
pub use server::{Running, serve};
