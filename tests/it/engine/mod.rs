//! The engine against scripted mail servers and a zone of its own, all on loopback.

mod deployment;
mod facts;
mod hostile;
mod manners;
mod names;
pub mod server;
mod sessions;
pub mod world;
pub mod zone;
