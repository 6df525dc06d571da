//! The conformance suite of the store: the same tests on PostgreSQL and SQLite, driving the
//! use-cases by hand, with time and randomness of their own.

mod audit_log;
mod blocks;
mod cancel;
mod convert;
mod deferrals;
mod faults;
mod lease;
mod limit_factor;
mod once;
mod plans;
mod property;
mod receive;
mod request_log;
mod settle;
mod spend;
mod statements;
mod sweep;
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
