//! What counts between processes: how often, how many at once, and whose turn it is. Where there is
//! no Redis, or it is away, each process counts alone: a count that is a little generous beats one that
//! shuts everybody out.
//!
//! Each script is a `.lua` file beside the Rust that calls it; its head names keys, arguments and
//! answer. The connection is the queue's ([`crate::queue::RedisQueue`]); the queue knows nothing of this
//! room.
//!
//! Redis keys (all begin with the namespace, and expire by themselves):
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `NS:limit:…` | string | GCRA state of a request limit (see [`requests`]) |
//! | `NS:pace:…` | string | GCRA state of a pace (see [`pace`]) |
//! | `NS:line:…` | string | how far turns at a pace are promised (see [`line`]) |
//! | `NS:share:…` | hash | each process's part of something (see [`share`]) |
//! | `NS:in_flight…` | channel, lists | requests in flight (see [`in_flight`]) |
//! | `NS:window:{OWNER}:MS:NAME` | list | uses in a sliding window (see [`windows`]) |

mod away;
mod gathered;
mod gcra;
pub mod in_flight;
pub mod line;
pub mod look;
pub mod pace;
pub mod requests;
pub mod share;
mod sliding;
pub mod windows;
