//! Several threads for one decision.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// How many threads to compute with, if no more than `most` are wanted.
#[must_use]
pub fn threads(most: usize) -> usize {
    most.min(thread::available_parallelism().map_or(1, Into::into)).max(1)
}

/// Does `work` for `0..count`, in blocks of so many, each thread with a state of its own. Work that says `true` says
/// that enough is known: no further block is begun. Gives the results of the first blocks, in their order, however
/// many there are: what comes out of them does not depend on which thread was faster.
///
/// The threads begin and end here, which takes some 50 µs: it pays for work that takes longer.
pub fn in_blocks<S, T: Send>(
    threads: usize,
    count: usize,
    block: usize,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, Range<usize>) -> (T, bool) + Sync,
) -> Vec<T> {
    let (next, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    let blocks = count.div_ceil(block);
    // Blocks are begun in their order and finished once begun, so those that are done are the first ones.
    let run = || {
        let (mut state, mut done) = (state(), Vec::new());
        while !enough.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= blocks {
                break;
            }
            let (result, is_enough) = work(&mut state, at * block..count.min((at + 1) * block));
            done.push((at, result));
            if is_enough {
                enough.store(true, Ordering::Relaxed);
            }
        }
        done
    };
    let mut all = thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(blocks)).map(|_| scope.spawn(run)).collect();
        let mut all = run();
        for other in others {
            match other.join() {
                Ok(done) => all.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    all.sort_unstable_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_begin_with_the_first() {
        for threads in [1, 2, 5] {
            for (count, block) in [(0, 3), (1, 3), (9, 3), (10, 3), (100, 7)] {
                let blocks = in_blocks(threads, count, block, || 0, |_, range| (range, false));
                assert_eq!(
                    blocks.iter().cloned().flatten().collect::<Vec<_>>(),
                    (0..count).collect::<Vec<_>>()
                );
                let sum = AtomicUsize::new(0);
                let some = in_blocks(
                    threads,
                    count,
                    block,
                    || (),
                    |(), range| {
                        let before = sum.fetch_add(range.len(), Ordering::Relaxed);
                        (range.clone(), before + range.len() >= 20)
                    },
                );
                let seen: Vec<_> = some.into_iter().flatten().collect();
                assert!(seen.len() >= count.min(20), "{threads} threads, {count} by {block}");
                assert_eq!(seen, (0..seen.len()).collect::<Vec<_>>());
            }
        }
    }
}
