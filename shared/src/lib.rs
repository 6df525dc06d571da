//! What every Listmill process is made of: pure rules ([`domain`]), the only room with SQL
//! ([`store`]), the queue ([`queue`]), what counts between processes ([`throttle`]) and the use-cases on top
//! of them ([`app`]).

pub mod app;
pub mod domain;
pub mod queue;
pub mod settings;
pub mod store;
pub mod throttle;
