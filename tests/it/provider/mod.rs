//! The http provider against scripted services on loopback.

mod deployment;
mod manners;
mod server;
mod services;
mod trouble;
mod world;
