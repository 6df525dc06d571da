//! What every Listmill process is made of: pure rules ([`domain`]), the only room with SQL
//! ([`store`]), the queue ([`queue`]), what counts between processes ([`throttle`]) and the use-cases on top
//! of them ([`app`]). What is asked by many at once is gathered ([`gather`]); mails of our own are sent by [`mail`].

pub mod app;
pub mod domain;
pub mod gather;
pub mod mail;
pub mod queue;
pub mod settings;
pub mod store;
pub mod throttle;
