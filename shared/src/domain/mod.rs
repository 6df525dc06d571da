//! Pure types and rules; no I/O.

pub mod address;
pub mod audit;
pub mod batch;
pub mod block;
pub mod clock;
pub mod done;
pub mod factor;
pub mod id;
pub mod key;
pub mod key_scan;
pub mod ledger;
pub mod payload;
pub mod permission;
pub mod request;
pub mod root_key;
pub mod task;
pub mod verdict;
