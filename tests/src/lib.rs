//! Harness of the black-box suite: it starts real servers and real processes, and knows the
//! product only from outside (command line, settings, HTTP).
//!
//! Data structures:
//! - [`scratch`]: one temporary folder per test process, and the watchdog that removes it
//! - [`process::Process`]: a child that can be signalled, restarted and measured
//! - [`postgres::Postgres`], [`redis::Redis`]: private servers on free ports
//! - [`proxy::Proxy`]: a wire before such a server that can go dead; [`freeze::Frozen`]: a process
//!   that is stopped until it is dropped
//! - [`postfix::Postfix`], [`postgrey::Postgrey`], [`nsd::Nsd`]: likewise, the world that is asked
//! - [`forwarder::Forwarder`], [`disk::Disk`], [`faketime`]: a database that moves, a file system that can
//!   be full, a clock that is wrong
//! - [`deployment::Deployment`]: a running product in one of two [`Size`]s
//! - [`client::Client`]: the API as a holder of one key sees it
//! - [`browser::Browser`]: the dashboard as a person with a browser sees it
//! - [`letterbox::Letterbox`]: where the product's own mails go
//! - [`archive`], [`workbook`]: ZIP and XLSX, as somebody else reads and writes them
//!
//! Invariants:
//! - Nothing is left behind, however the test process ends: children carry a parent-death
//!   signal, the folder is removed by the watchdog.
//! - Servers that were running before are never touched.
//! - Every deployment ends in [`Deployment::finish`], which sums the ledger. A test that
//!   forgets it fails.
//!
//! Settings: `LISTMILL_BIN` (binary under test), `LISTMILL_TEST_SEED` (repeat random choices),
//! `LISTMILL_TEST_OUTAGE` (seconds, 30), `LISTMILL_TEST_FAIR_SECONDS` (20), `LISTMILL_TEST_DISK_FULL` (seconds,
//! 10), `LISTMILL_TEST_FREEZE` (seconds, 20), `LISTMILL_TEST_FREEZES` (12), `LISTMILL_TEST_LONGEST_FREEZE`
//! (seconds, 5), `LISTMILL_TEST_IMPORT_ROWS` (20,000), `LISTMILL_TEST_PROPERTY_CASES` (24),
//! `LISTMILL_TEST_VERIFY_ENDS` (by each signal, 1), `LISTMILL_TEST_BIG=1`
//! and `LISTMILL_TEST_SOAK=1` (longer lists, longer waits), `LISTMILL_TEST_SCALE=1` (very many tasks), `LISTMILL_TEST_PICTURES=1`
//! (make the pictures in `docs/pictures` anew), `LISTMILL_TEST_KEEP=1` (leave logs and databases),
//! `LISTMILL_TEST_TIMES` (a file: how long each deployment was held).

pub mod admin;
pub mod archive;
pub mod browser;
pub mod client;
pub mod clock;
pub mod dashboard;
pub mod deployment;
pub mod disk;
pub mod events;
pub mod faketime;
pub mod forwarder;
pub mod freeze;
pub mod html;
pub mod letterbox;
pub mod lists;
pub mod metrics;
pub mod nsd;
pub mod poll;
pub mod ports;
pub mod postfix;
pub mod postgres;
pub mod postgrey;
pub mod process;
pub mod proxy;
pub mod random;
pub mod redis;
pub mod replica;
pub mod reply;
pub mod scratch;
pub mod sessions;
pub mod setup;
pub mod slots;
pub mod sql;
pub mod task;
pub mod workbook;

pub use admin::{Customer, Key};
pub use browser::Browser;
pub use client::Client;
pub use dashboard::{Login, Person};
pub use deployment::Deployment;
pub use poll::{eventually, within};
pub use reply::Reply;
pub use setup::{Setup, Size};
pub use slots::Weight;
pub use task::Task;

/// Turns `async fn name(size: Size)` into two tests, `name::embedded` and `name::scaled`.
#[macro_export]
macro_rules! for_each_size {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                super::$name($crate::Size::Embedded).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn scaled() {
                super::$name($crate::Size::SCALED).await;
            }
        }
    )+};
}

#[cfg(test)]
mod selftest;
