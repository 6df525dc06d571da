//! The reader of result blocks, fed with bytes that nobody vouches for.

#![no_main]

#[path = "../check_block.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
