//! The engine against scripted mail servers and a zone of its own, and against real servers; all on
//! loopback.

mod breaker;
mod deployment;
mod facts;
mod hostile;
mod later;
mod lies;
mod line;
mod manners;
mod names;
mod network;
mod pace;
pub mod server;
mod servers;
mod sessions;
mod words;
pub mod world;
pub mod zone;
