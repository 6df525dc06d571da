//! What the fuzzer has found worth keeping (`fuzz/corpus/reply`), replayed; see docs/FUZZING.md.

use std::path::Path;

use listmill_worker::provider::smtp::reply;

#[path = "../../../fuzz/check.rs"]
mod check;

#[test]
fn replies_of_the_corpus_hold_the_invariants() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut files = 0;
    for entry in std::fs::read_dir(root.join("fuzz/corpus/reply")).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("a file");
        assert!(bytes.len() > 2, "{} says nothing", path.display());
        // Seen only when it fails.
        println!("{}", path.display());
        check::check(&bytes);
        files += 1;
    }
    assert!(files >= 100, "{files} files are not the whole corpus");
}
