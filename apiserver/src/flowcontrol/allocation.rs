//! Dividing seats in proportion to targets, each within its bounds (upstream `conc_alloc.go`).

/// One who gets a part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item {
    /// What it would like.
    pub target: f64,
    /// The least it gets.
    pub lower: f64,
    /// The most it gets.
    pub upper: f64,
}

/// Why there is no division.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// An item contradicts itself.
    #[error("item {0} has a target below its lower bound, or bounds that are not in order")]
    Inconsistent(usize),
    /// The lower bounds are too much together.
    #[error("the lower bounds sum to {0}, more than the {1} there are")]
    TooMuch(f64, f64),
    /// The upper bounds are too little together.
    #[error("the upper bounds sum to {0}, less than the {1} there are")]
    TooLittle(f64, f64),
}

/// Targets are taken to be at least this, so that they can be divided by.
const LEAST_TARGET: f64 = 0.001;
const EPSILON: f64 = 1e-7;

/// Divides `sum`: every item gets the same fraction of its target, or the bound that this fraction is beyond. Returns
/// the parts and the fraction.
pub fn divide(sum: u64, items: &[Item]) -> Result<(Vec<f64>, f64), Error> {
    let sum = sum as f64;
    let wrong = |item: &Item| item.lower < 0.0 || item.target < item.lower || item.upper < item.lower;
    if let Some(index) = items.iter().position(wrong) {
        return Err(Error::Inconsistent(index));
    }
    let lower: f64 = items.iter().map(|item| item.lower).sum();
    let upper: f64 = items.iter().map(|item| item.upper).sum();
    if lower - sum > EPSILON {
        return Err(Error::TooMuch(lower, sum));
    }
    if sum - upper > EPSILON {
        return Err(Error::TooLittle(upper, sum));
    }
    if sum == 0.0 {
        return Ok((vec![0.0; items.len()], 0.0));
    }
    let fraction = fraction(sum, items);
    Ok((items.iter().map(|item| part(item, fraction)).collect(), fraction))
}

fn target(item: &Item) -> f64 {
    item.target.max(LEAST_TARGET)
}

fn part(item: &Item, fraction: f64) -> f64 {
    (fraction * target(item)).max(item.lower).min(item.upper)
}

/// The fraction at which the parts sum to `sum`. The sum of the parts grows with the fraction, in straight pieces
/// between the points where an item meets one of its bounds: find the piece, then the point on it.
fn fraction(sum: f64, items: &[Item]) -> f64 {
    let total = |fraction: f64| items.iter().map(|item| part(item, fraction)).sum::<f64>();
    let mut corners: Vec<f64> =
        items.iter().flat_map(|item| [item.lower / target(item), item.upper / target(item)]).collect();
    corners.sort_by(f64::total_cmp);
    let above = corners.partition_point(|corner| total(*corner) < sum);
    let Some(end) = corners.get(above).copied() else { return corners.last().copied().unwrap_or(0.0) };
    let Some(begin) = above.checked_sub(1).map(|below| corners[below]) else { return end };
    let (low, high) = (total(begin), total(end));
    if high - low <= 0.0 {
        return end;
    }
    begin + (sum - low) / (high - low) * (end - begin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn item(target: f64, lower: f64, upper: f64) -> Item {
        Item { target, lower, upper }
    }

    #[test]
    fn parts_are_in_proportion_within_bounds() {
        let parts = |sum, items: &[Item]| divide(sum, items).map(|(parts, _)| parts);
        assert_eq!(parts(10, &[item(1.0, 0.0, 99.0), item(4.0, 0.0, 99.0)]), Ok(vec![2.0, 8.0]));
        assert_eq!(parts(10, &[item(1.0, 0.0, 99.0), item(4.0, 0.0, 6.0)]), Ok(vec![4.0, 6.0]));
        assert_eq!(parts(10, &[item(3.0, 3.0, 99.0), item(27.0, 0.0, 99.0)]), Ok(vec![3.0, 7.0]));
        assert_eq!(parts(0, &[item(0.0, 0.0, 9.0)]), Ok(vec![0.0]));
        assert_eq!(parts(0, &[]), Ok(vec![]));
        assert_eq!(parts(1, &[item(2.0, 2.0, 3.0)]), Err(Error::TooMuch(2.0, 1.0)));
        assert_eq!(parts(4, &[item(2.0, 2.0, 3.0)]), Err(Error::TooLittle(3.0, 4.0)));
        assert_eq!(parts(4, &[item(1.0, 2.0, 9.0)]), Err(Error::Inconsistent(0)));
        assert_eq!(parts(4, &[item(9.0, 2.0, 1.0)]), Err(Error::Inconsistent(0)));
    }

    // After upstream's TestConcAlloc, which looks at what is random as well.
    #[test]
    fn every_part_is_the_fraction_or_a_bound() {
        let mut random = StdRng::seed_from_u64(1_234_567_890);
        for _ in 0..10_000 {
            let count = [1, 2, 3, 4, 6, 9][random.random_range(0..6)];
            let mut items: Vec<Item> = (0..count)
                .map(|_| {
                    let lower = (random.random::<f64>() * 5.0 - 1.0).max(0.0);
                    item(lower + 2.0 * random.random::<f64>(), lower, lower + 3.0 * random.random::<f64>())
                })
                .collect();
            while random.random::<f64>() < 0.25 {
                items.push(item(0.0, 0.0, random.random::<f64>() + 0.00001));
            }
            let lower: f64 = items.iter().map(|item| item.lower).sum();
            let upper: f64 = items.iter().map(|item| item.upper).sum();
            let sum = (lower + (upper - lower) * random.random::<f64>()).round();
            let possible = lower <= sum && sum <= upper;
            let divided = divide(sum as u64, &items);
            assert_eq!(divided.is_ok(), possible, "{sum} over {items:?}: {divided:?}");
            let Ok((parts, fraction)) = divided else { continue };
            let off = (parts.iter().sum::<f64>() - sum).abs();
            assert!(off < 1e-6, "{sum} over {items:?}: {parts:?}");
            for (item, found) in items.iter().zip(parts) {
                let expected = (fraction * item.target.max(LEAST_TARGET)).clamp(item.lower, item.upper);
                assert!((found - expected).abs() < 1e-9, "{item:?} at {fraction}: {found}");
            }
        }
    }
}
