//! The SMTP reply parser, fed with bytes that nobody vouches for. The parser's own source file is
//! built here, without the rest of the product: it needs nothing of it.

#![no_main]

#[path = "../check_reply.rs"]
mod check;
#[path = "../../worker/src/provider/smtp/reply.rs"]
#[allow(dead_code)]
mod reply;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
