//! Lists of addresses. The sandbox provider answers by the start of the local part.

use std::io;

use flate2::write::GzEncoder;
use flate2::{Compress, Compression, FlushCompress, Status};
use futures::{Stream, stream};
use std::io::Write;

/// Deliverable, distinct.
pub fn people(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("person{i}@example.com")).collect()
}

/// Lines made on the way, a few thousand at a time, so that the test's own memory stays flat.
pub fn lines<F>(header: &str, count: u64, line: F) -> impl Stream<Item = io::Result<Vec<u8>>>
where
    F: Fn(u64) -> String,
{
    const CHUNK: u64 = 4_000;
    let head = stream::iter([Ok(header.as_bytes().to_vec())]);
    let chunks = (0..count.div_ceil(CHUNK)).map(move |chunk| {
        let mut bytes = Vec::with_capacity(160_000);
        for number in chunk * CHUNK..count.min((chunk + 1) * CHUNK) {
            bytes.extend_from_slice(line(number).as_bytes());
            bytes.push(b'\n');
        }
        Ok(bytes)
    });
    futures::StreamExt::chain(head, stream::iter(chunks))
}

/// `count` deliverable addresses over a thousand domains, one a line.
pub fn big_text(count: u64) -> impl Stream<Item = io::Result<Vec<u8>>> {
    lines("", count, |i| format!("person{i}@d{}.example.com", i % 1000))
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("writes to memory");
    encoder.finish().expect("writes to memory")
}

/// A gzip member that unfolds to `target` bytes of `pattern`. A flushed piece of deflate refers
/// only to itself, so repeating the piece repeats its text: no need to compress it all.
pub fn gzip_bomb(pattern: &[u8], target: u64) -> Vec<u8> {
    const PIECE: usize = 8 << 20;
    let plain: Vec<u8> = pattern.iter().copied().cycle().take(PIECE).collect();
    let mut piece = Vec::with_capacity(1 << 20);
    let mut deflate = Compress::new(Compression::default(), false);
    let status = deflate.compress_vec(&plain, &mut piece, FlushCompress::Full);
    assert_eq!(status.expect("deflates"), Status::Ok);
    assert_eq!(deflate.total_in(), PIECE as u64);
    let mut bomb = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    for _ in 0..target.div_ceil(PIECE as u64) {
        bomb.extend_from_slice(&piece);
    }
    bomb
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_bomb_unfolds() {
        let bomb = gzip_bomb(b"\n", 32 << 20);
        assert!(bomb.len() < 200_000, "{}", bomb.len());
        let mut plain = vec![0; 30 << 20];
        flate2::read::GzDecoder::new(&bomb[..]).read_exact(&mut plain).expect("unfolds");
        assert!(plain.iter().all(|byte| *byte == b'\n'));
    }
}
