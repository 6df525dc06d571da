//! The engine against scripted mail servers and a zone of its own, and against real servers; all on
//! loopback.

mod corpus;
mod deployment;
mod facts;
mod hostile;
mod manners;
mod names;
mod server;
mod servers;
mod sessions;
mod world;
mod zone;
