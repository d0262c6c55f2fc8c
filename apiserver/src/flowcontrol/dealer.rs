//! Shuffle sharding: each flow gets a hand of few queues out of many, so that two flows seldom share all of theirs
//! (upstream `util/shufflesharding`).

/// The largest hand; upstream's validation allows no larger one.
pub const MAX_HAND: usize = 15;
/// The bits of a hash that are used.
const HASH_BITS: f64 = 60.0;
const MAX_DECK: usize = 1 << 26;

/// Deals hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dealer {
    deck: usize,
    hand: usize,
}

/// Cards in the order in which they were dealt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hand {
    cards: [usize; MAX_HAND],
    size: usize,
}

impl Hand {
    /// The cards.
    #[must_use]
    pub fn cards(&self) -> &[usize] {
        &self.cards[..self.size]
    }
}

impl Dealer {
    /// Deals hands of `hand` cards out of `deck`; `None` if there is no such way to deal, or a hash would not be
    /// long enough for it.
    #[must_use]
    pub fn new(deck: usize, hand: usize) -> Option<Self> {
        let possible = hand >= 1 && hand <= deck && hand <= MAX_HAND && deck <= MAX_DECK;
        let bits = (deck.max(1) as f64).log2() * hand as f64;
        (possible && bits.ceil() <= HASH_BITS).then_some(Self { deck, hand })
    }

    /// The hand for a hash.
    #[must_use]
    pub fn deal(&self, mut hash: u64) -> Hand {
        // Each card is first drawn as a place among those that are left ...
        let mut drawn = [0; MAX_HAND];
        for (i, card) in drawn.iter_mut().enumerate().take(self.hand) {
            let left = (self.deck - i) as u64;
            *card = (hash % left) as usize;
            hash /= left;
        }
        // ... then counted past those that were dealt before it.
        let mut cards = drawn;
        for (i, card) in cards.iter_mut().enumerate().take(self.hand) {
            for before in drawn[..i].iter().rev() {
                if *card >= *before {
                    *card += 1;
                }
            }
        }
        Hand { cards, size: self.hand }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // After upstream's TestNewDealer, but for its limit of the hand.
    #[test]
    fn only_hands_that_a_hash_can_tell_apart_are_dealt() {
        for (deck, hand, possible) in [
            (0, 1, false),
            (1, 0, false),
            (100, 101, false),
            ((1 << 26) + 1, 1, false),
            (512, 8, false),
            (100, 8, true),
            (1 << 26, 1, true),
            (64, 6, true),
            (128, 6, true),
        ] {
            assert_eq!(Dealer::new(deck, hand).is_some(), possible, "{hand} of {deck}");
        }
    }

    // After upstream's TestDealer cases of collisions and TestDeal.
    #[test]
    fn no_card_is_dealt_twice() {
        for (deck, hand, hash) in [(6, 6, 0), (6, 6, 719), (128, 6, 987_654_321), (9, 3, 1_001_001_001)] {
            let dealt = Dealer::new(deck, hand).expect("possible").deal(hash);
            let mut cards = dealt.cards().to_vec();
            assert!(cards.iter().all(|card| *card < deck), "{cards:?}");
            cards.sort_unstable();
            cards.dedup();
            assert_eq!(cards.len(), hand, "{hash}: {:?}", dealt.cards());
        }
    }

    // After upstream's TestUniformDistribution: all hands are equally likely.
    #[test]
    fn all_hands_are_equally_likely() {
        let dealer = Dealer::new(4, 2).expect("possible");
        let mut seen = std::collections::BTreeMap::new();
        for hash in 0..12 {
            *seen.entry(dealer.deal(hash).cards().to_vec()).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 12);
        assert!(seen.values().all(|count| *count == 1), "{seen:?}");
    }
}
