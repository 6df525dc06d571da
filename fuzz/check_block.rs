//! What must hold of the reader of result blocks whatever it is fed. Used by the fuzz target and by the
//! test that replays the corpus.
//!
//! Input: the body of a block, as it is before it is compressed and signed with its checksum.

use listmill_shared::domain::batch::BatchRef;
use listmill_shared::domain::block::{Block, Summary, decode, encode};

/// Panics where an invariant does not hold.
pub fn check(data: &[u8]) {
    let block = Block::of_body(data.to_vec());
    let Ok(results) = block.results() else { return };
    assert!(results.len() <= data.len(), "more results than bytes");
    assert!(results.windows(2).all(|pair| pair[0].place < pair[1].place), "places go up");
    let counted = Summary::of(&results).tally.processed();
    assert_eq!(counted, results.len() as i64, "each is counted once");
    let task = "task_00000000000000000000000000000000".parse().expect("an id");
    let batch = BatchRef { task, no: 7 };
    let again = encode(batch, &results).expect("it was small enough");
    let read = decode(batch, &again).expect("it is ours");
    assert_eq!(read.results().expect("it is ours"), results, "the same results");
}
