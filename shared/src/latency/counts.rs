//! Counts by bucket: pairs while they are few, then pages.

use super::PAGE;

/// So many different buckets are kept as pairs; a page takes as much memory as 512 pairs, and most histograms have
/// several.
const FEW: usize = 256;
/// The same where they come in order, and mostly are only read: pairs are made faster than pages.
const FEW_IN_ORDER: usize = 2_048;

/// How often each bucket was met.
///
/// Most histograms are those of one name in one second of one worker: a few samples, which as pages
/// of 8 KiB would cost a master of a thousand workers all its time.
#[derive(Clone)]
pub(super) enum Counts {
    /// Buckets and their counts, ascending.
    Few(Vec<(u16, u64)>),
    Paged(Pages),
}

type Pages = Vec<Option<Box<[u64; PAGE]>>>;

impl Default for Counts {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Counts {
    pub(super) fn add(&mut self, bucket: usize, n: u64) {
        if n == 0 {
            return;
        }
        if let Self::Few(few) = self {
            match few.binary_search_by_key(&bucket, |(b, _)| usize::from(*b)) {
                Ok(at) => return add(&mut few[at].1, n),
                Err(at) if few.len() < FEW => return few.insert(at, (bucket as u16, n)),
                Err(_) => {}
            }
        }
        add_to(self.pages(), bucket, n);
    }

    /// Adds buckets that ascend.
    pub(super) fn add_in_order(&mut self, buckets: Vec<(u16, u64)>) {
        match self {
            Self::Few(few) if few.is_empty() && buckets.len() <= FEW_IN_ORDER => *few = buckets,
            _ => buckets.into_iter().for_each(|(bucket, n)| self.add(usize::from(bucket), n)),
        }
    }

    /// Pages from now on.
    fn pages(&mut self) -> &mut Pages {
        if let Self::Few(few) = self {
            let mut pages = Pages::new();
            for (bucket, n) in few.iter() {
                add_to(&mut pages, usize::from(*bucket), *n);
            }
            *self = Self::Paged(pages);
        }
        match self {
            Self::Paged(pages) => pages,
            Self::Few(_) => unreachable!("they were just turned into pages"),
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        let theirs = match other {
            Self::Few(few) => return few.iter().for_each(|(bucket, n)| self.add(usize::from(*bucket), *n)),
            Self::Paged(pages) => pages,
        };
        let mine = self.pages();
        if mine.len() < theirs.len() {
            mine.resize(theirs.len(), None);
        }
        for (mine, theirs) in mine.iter_mut().zip(theirs) {
            let Some(theirs) = theirs else { continue };
            match mine {
                Some(mine) => mine.iter_mut().zip(theirs.iter()).for_each(|(a, b)| add(a, *b)),
                None => *mine = Some(theirs.clone()),
            }
        }
    }

    /// Buckets that were met, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let (few, pages) = match self {
            Self::Few(few) => (few.as_slice(), &[][..]),
            Self::Paged(pages) => (&[][..], pages.as_slice()),
        };
        let pages = pages.iter().enumerate().filter_map(|(p, page)| Some((p, page.as_ref()?)));
        let paged = pages.flat_map(|(p, page)| {
            page.iter().enumerate().filter(|(_, n)| **n > 0).map(move |(i, n)| (p * PAGE + i, *n))
        });
        few.iter().map(|(bucket, n)| (usize::from(*bucket), *n)).chain(paged)
    }
}

fn add_to(pages: &mut Pages, bucket: usize, n: u64) {
    let page = bucket / PAGE;
    if pages.len() <= page {
        pages.resize(page + 1, None);
    }
    add(&mut pages[page].get_or_insert_with(|| Box::new([0; PAGE]))[bucket % PAGE], n);
}

fn add(sum: &mut u64, n: u64) {
    *sum = sum.saturating_add(n);
}

/// What was met, however it is kept.
impl PartialEq for Counts {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Counts {}

const _: () = assert!(super::BUCKETS <= u16::MAX as usize, "a bucket fits a pair");

#[cfg(test)]
mod tests {
    use super::*;

    fn of(buckets: impl IntoIterator<Item = usize>) -> Counts {
        let mut counts = Counts::default();
        buckets.into_iter().for_each(|bucket| counts.add(bucket, 1));
        counts
    }

    #[test]
    fn few_in_high_buckets_and_many_in_low_ones_lose_nothing() {
        let (few, many) = (of([3, 9 * PAGE + 1]), of(0..200));
        let sum = |counts: &Counts| counts.iter().map(|(_, n)| n).sum::<u64>();
        for (mine, theirs) in [(&few, &many), (&many, &few), (&few, &few), (&many, &many)] {
            let mut both = mine.clone();
            both.merge(theirs);
            assert_eq!(sum(&both), sum(mine) + sum(theirs));
            let mut other_way = theirs.clone();
            other_way.merge(mine);
            assert!(both == other_way, "in whichever order");
        }
    }
}
