//! Pure types and rules; no I/O.

pub mod abuse;
pub mod account;
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
pub mod network;
pub mod payload;
pub mod permission;
pub mod person;
pub mod request;
pub mod result_filter;
pub mod root_key;
pub mod spelling;
pub mod task;
pub mod task_event;
pub mod verdict;
