//! The SMTP reply parser and the classifier behind it, fed with bytes that nobody vouches for. Their
//! own source files are built here, without the rest of the product: they need nothing of it.

#![no_main]

#[path = "../check_reply.rs"]
mod check;
#[path = "../../worker/src/provider/smtp/classify/mod.rs"]
#[allow(dead_code)]
mod classify;
#[path = "../../worker/src/provider/smtp/fault.rs"]
#[allow(dead_code)]
mod fault;
#[path = "../../worker/src/provider/smtp/reply.rs"]
#[allow(dead_code)]
mod reply;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
