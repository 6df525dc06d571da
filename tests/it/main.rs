//! The black-box suite: what the product promises, asked over HTTP or the command line; and the
//! conformance suite of the store ([`store`]).

mod bad_input;
mod bad_input_lists;
mod cancel;
mod crash;
mod credits;
mod doctor;
mod documents;
mod downloads;
mod engine;
mod events;
mod fairness;
mod freezes;
mod gate;
mod idempotency;
mod key_outlives;
mod keys;
mod layers;
mod manners;
mod memory;
mod outage;
mod provider;
mod rate_limits;
mod revocation;
mod routes;
mod seed_routes;
mod shares;
mod states;
mod store;
mod submission;
mod tasks;
mod verdicts;
mod verify;
