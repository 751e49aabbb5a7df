//! Dialects of the servers whose users come to us.

pub mod nanomdm;
