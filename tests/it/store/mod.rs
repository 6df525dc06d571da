//! The conformance suite of the store: the same tests on PostgreSQL and SQLite, driving the
//! use-cases by hand, with time and randomness of their own.

mod abuse;
mod audit_log;
mod blocks;
mod cancel;
mod convert;
mod credit_page;
mod deferrals;
mod faults;
mod flags;
mod identities;
mod lease;
mod limit_factor;
mod live;
mod once;
mod operators;
mod people;
mod plans;
mod property;
mod receive;
mod request_log;
mod sandbox;
mod settle;
mod source;
mod spend;
mod statements;
mod sweep;
mod timeline;
mod world;

/// Turns `async fn name(world: World)` into two tests, `name::postgres` and `name::sqlite`.
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                super::$name($crate::store::world::World::postgres().await).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::$name($crate::store::world::World::sqlite().await).await;
            }
        }
    )+};
}
pub(crate) use on_both_engines;
