//! The worker: takes batch references from the queue, leases batches, verifies their addresses and
//! settles what it found.
//!
//! ```text
//! queue ──▶ runtime (apalis) ──▶ processor: lease ──▶ run: verify ▸ … ──▶ settler ──▶ store ──▶ merger
//!                                                      ▲ stops: cancelled and paused tasks
//!                                                      ▲ leases: kept alive, or lost
//! dispatcher: who is next, whenever there is room
//! sweeper: expired leases, lost messages, what is due
//! ```
//!
//! Nothing here knows of API keys: a revocation has no way to reach a running task.

mod backlog;
mod company;
mod dispatcher;
pub mod doctor;
mod health;
mod leaser;
mod leases;
mod merger;
mod processor;
pub mod provider;
mod run;
mod runtime;
mod settler;
mod stops;
mod sweeper;
mod turns;

pub use runtime::{Home, WorkerError, run};
