//! Spoiled bytes for tests of decoders: the same ones for the same seed, so that a failure comes again.

use crate::rng::KeyedRng;
use std::path::Path;

/// The files of a folder in order of their names, of one ending if it is given.
///
/// # Panics
///
/// If there are none: a test of nothing would pass.
pub fn corpus(folder: &Path, ending: Option<&str>) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("the corpus is in the repository");
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files.retain(|path| ending.is_none() || path.extension().and_then(|is| is.to_str()) == ending);
    assert!(!files.is_empty(), "no {ending:?} in {}", folder.display());
    files.iter().map(|path| std::fs::read(path).expect("the corpus is readable")).collect()
}

/// Some of `right`, spoiled in one to four places; now and then only noise.
pub fn mutated(rng: &mut KeyedRng, right: &[Vec<u8>]) -> Vec<u8> {
    if rng.below(10) == 0 {
        return (0..rng.below(300)).map(|_| rng.next_u64() as u8).collect();
    }
    let mut bytes = right[rng.below(right.len() as u64) as usize].clone();
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        let to = (at + rng.below(40) as usize).min(bytes.len());
        match rng.below(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..to)),
            2 => bytes.insert(at, rng.next_u64() as u8),
            3 => {
                let piece = bytes[at..to].to_vec();
                let place = rng.below(bytes.len() as u64 + 1) as usize;
                bytes.splice(place..place, piece);
            }
            4 => drop(bytes.splice(at..at, [0xff; 9])),
            5 => drop(bytes.splice(at..at, *b"18446744073709551616")),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
        }
    }
    bytes
}

/// Gives `decode` all of `right`, then as many spoiled ones as are asked for.
pub fn fuzz(seed: u64, cases: u64, right: &[Vec<u8>], mut decode: impl FnMut(&[u8])) {
    for bytes in right {
        decode(bytes);
    }
    let mut rng = KeyedRng::new(seed, 0, 0);
    for _ in 0..cases {
        decode(&mutated(&mut rng, right));
    }
}

/// The same in pieces: each input with up to three places to cut it at, in order.
pub fn fuzz_in_pieces(seed: u64, cases: u64, right: &[Vec<u8>], mut decode: impl FnMut(&[u8], &[usize])) {
    let mut rng = KeyedRng::new(seed, 1, 0);
    fuzz(seed, cases, right, |bytes| {
        let mut cuts: Vec<usize> = (0..rng.below(4)).map(|_| rng.below(bytes.len() as u64 + 1) as usize).collect();
        cuts.sort_unstable();
        decode(bytes, &cuts);
    });
}
