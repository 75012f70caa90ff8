//! What processes that died left in a spool's folders.

use super::folder::{COUNTED, Folder, OFFERED, SEALED};
use super::{Left, Spool, decode};
use crate::heir::Heir;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a session left.
#[derive(Debug)]
pub struct Estate {
    /// Where it lies.
    pub path: PathBuf,
    /// Who delivers it.
    pub heir: Heir,
}

/// What lies below `dir` of processes that do not live any more. It is locked: no other process finds it too.
pub fn find(dir: &Path) -> Vec<Estate> {
    // without a folder there is nothing in it
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    // ids of runs sort by time: the newest first
    paths.sort_unstable_by(|a, b| b.cmp(a));
    paths.into_iter().filter_map(Folder::of_the_dead).filter_map(estate).collect()
}

fn estate(mut folder: Folder) -> Option<Estate> {
    let path = folder.path().to_owned();
    let left = match left(&mut folder) {
        Ok(left) => left,
        Err(error) => {
            tracing::warn!("cannot read what a worker left in {}: {error}", path.display());
            return None;
        }
    };
    let (home, last_word) = (folder.home().clone(), folder.last_note());
    let spool = Spool::found(Box::new(folder), left);
    if spool.is_empty() && last_word.is_none() {
        return None;
    }
    Some(Estate { path, heir: Heir::new(home.run, (home.session, home.secret), spool, last_word) })
}

/// A frame that was counted under a number that is not known must not be counted again: each must begin where the one
/// before it ended, or it and those after it are left where they are.
fn left(folder: &mut Folder) -> io::Result<Left> {
    let [counted, offered, sealed] = [COUNTED, OFFERED, SEALED].map(|ending| folder.numbers(ending));
    let (counted, offered, sealed) = (counted?, offered?, sealed?);
    folder.take_over(offered.len() + sealed.len(), &counted);
    let counted = counted.last().copied();
    let mut left = Left { acknowledged: counted.unwrap_or(0), ..Left::default() };
    let counted = counted.map(|seq| folder.read(seq, COUNTED)).transpose()?;
    let mut to = match counted.map(|bytes| decode(&bytes).ok_or(io::ErrorKind::InvalidData)).transpose()? {
        Some((body, _)) => body.to_second,
        None => 0,
    };
    let mut next = |number, ending| {
        let (body, sealed_at) = decode(&folder.read(number, ending)?).ok_or(io::ErrorKind::InvalidData)?;
        // the last one may share its second
        if body.from_second + u32::from(body.last) < to {
            return Err(io::Error::other(format!("frame {number} ({ending}) is of a time before the one before it")));
        }
        to = body.to_second;
        Ok((body, sealed_at))
    };
    let take = || {
        for (seq, expected) in offered.iter().zip(left.acknowledged + 1..) {
            if *seq != expected {
                return Err(io::Error::other(format!("frame {expected} is not there")));
            }
            left.offered.push(next(*seq, OFFERED)?);
        }
        for number in sealed {
            next(number, SEALED)?;
            left.sealed.push(number);
        }
        Ok(())
    };
    if let Err(error) = take() {
        tracing::warn!("not all that a worker left in {} can be delivered: {error}", folder.path().display());
    }
    Ok(left)
}
