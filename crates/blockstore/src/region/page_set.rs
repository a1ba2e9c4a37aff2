//! A set of pages, one bit a page.

use std::ops::Range;

const WORD_PAGES: u64 = u64::BITS as u64;

/// Which of the pages `0..pages` are in. 32 KiB of heap for a gigabyte in pages of 4 KiB.
#[derive(Debug)]
pub(crate) struct PageSet {
    words: Vec<u64>,
    pages: u64,
    count: u64,
}

impl PageSet {
    /// None of `pages` pages.
    pub(crate) fn new(pages: u64) -> Self {
        let words = usize::try_from(pages.div_ceil(WORD_PAGES)).unwrap_or(usize::MAX);
        Self { words: vec![0; words], pages, count: 0 }
    }

    /// How many are in.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Adds pages; how many of them were not in.
    pub(crate) fn insert(&mut self, pages: Range<u64>) -> u64 {
        let added = self.change(pages, |word, mask| *word |= mask);
        self.count += added;
        added
    }

    /// Takes pages out; how many of them were in.
    pub(crate) fn remove(&mut self, pages: Range<u64>) -> u64 {
        let removed = self.change(pages, |word, mask| *word &= !mask);
        self.count -= removed;
        removed
    }

    /// The first page from `from` on that is in, or the number of pages.
    pub(crate) fn next_in(&self, from: u64) -> u64 {
        self.next(from, 0)
    }

    /// The first page from `from` on that is not in, or the number of pages.
    pub(crate) fn next_out(&self, from: u64) -> u64 {
        self.next(from, u64::MAX)
    }

    /// The runs of pages that are in, as far as they lie in `pages`.
    pub(crate) fn runs_in(&self, pages: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let mut at = pages.start;
        std::iter::from_fn(move || {
            let start = self.next_in(at);
            at = self.next_out(start).min(pages.end);
            (start < pages.end).then_some(start..at)
        })
    }

    /// Applies `set` to each word and the bits of it that lie in `pages`; how many bits changed.
    fn change(&mut self, pages: Range<u64>, set: impl Fn(&mut u64, u64)) -> u64 {
        let end = pages.end.min(self.pages);
        let mut at = pages.start;
        let mut changed = 0;
        while at < end {
            let word_end = (at / WORD_PAGES + 1) * WORD_PAGES;
            let stop = word_end.min(end);
            let mask = (u64::MAX >> (WORD_PAGES - (stop - at))) << (at % WORD_PAGES);
            if let Some(word) = self.words.get_mut((at / WORD_PAGES) as usize) {
                let before = *word;
                set(word, mask);
                changed += u64::from((before ^ *word).count_ones());
            }
            at = stop;
        }
        changed
    }

    fn next(&self, from: u64, flip: u64) -> u64 {
        let mut at = from;
        while let Some(word) = self.words.get((at / WORD_PAGES) as usize) {
            let rest = (word ^ flip) >> (at % WORD_PAGES);
            if rest != 0 {
                return (at + u64::from(rest.trailing_zeros())).min(self.pages);
            }
            at = (at / WORD_PAGES + 1) * WORD_PAGES;
        }
        self.pages
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn random_operations_agree_with_a_naive_model() {
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let pages = 1 + random.below(300);
            let mut set = PageSet::new(pages);
            let mut model = vec![false; pages as usize];
            for _ in 0..300 {
                let start = random.below(pages + 1);
                let end = start + random.below(pages - start + 1);
                let put = random.below(2) == 0;
                let range = start as usize..end as usize;
                let differ = model[range.clone()].iter().filter(|page| **page != put).count() as u64;
                model[range.clone()].fill(put);
                let changed = if put { set.insert(start..end) } else { set.remove(start..end) };
                assert_eq!(changed, differ);
                assert_eq!(set.count(), model.iter().filter(|page| **page).count() as u64);
                let from = random.below(pages) as usize;
                let next = |wanted| model[from..].iter().position(|page| *page == wanted);
                let at = |found: Option<usize>| found.map_or(pages, |found| (from + found) as u64);
                assert_eq!(
                    (set.next_in(from as u64), set.next_out(from as u64)),
                    (at(next(true)), at(next(false)))
                );
                let runs: Vec<u64> = set.runs_in(start..end).flatten().collect();
                let expected: Vec<_> = (start..end).filter(|page| model[*page as usize]).collect();
                assert_eq!(runs, expected);
            }
        }
    }
}
