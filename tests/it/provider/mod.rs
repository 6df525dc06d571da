//! The http provider against scripted services on loopback.

mod deployment;
mod encrypted;
mod manners;
pub(crate) mod server;
mod services;
mod trouble;
mod world;
