//! What the fuzzer has found worth keeping (`fuzz/corpus`), replayed; see docs/FUZZING.md.

use std::path::Path;

use listmill_worker::provider::smtp::{classify, fault, reply};

#[path = "../../fuzz/check_block.rs"]
mod check_block;
#[path = "../../fuzz/check_reply.rs"]
mod check_reply;

/// Feeds each file of a target's corpus to `check`.
fn replay(target: &str, check: fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let folder = root.join("fuzz/corpus").join(target);
    let mut files = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("a file");
        // Seen only when it fails.
        println!("{}", path.display());
        check(&bytes);
        files += 1;
    }
    assert!(files >= 100, "{files} files are not the whole corpus");
}

#[test]
fn replies_hold_the_invariants() {
    replay("reply", check_reply::check);
}

#[test]
fn blocks_hold_the_invariants() {
    replay("block", check_block::check);
}
