//! A generator of pseudo-random choices that gives the same ones for the same seed on every machine.
//! (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.)

/// Choices from a seed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that will always fall the same for a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice of their own for the `index`-th part of a whole, whatever the other parts use up.
    #[must_use]
    pub fn part(&self, index: u64) -> Self {
        let mut dice = Self(self.0 ^ index.wrapping_mul(0xd6e8_feb8_6659_fd93));
        dice.number();
        dice
    }

    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 where `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.number() % end).unwrap_or(0)
    }

    /// A number from `from` to `to`, both among them.
    pub fn between(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to + 1 - from)
    }

    /// Yes in so many of a hundred cases.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of a list that is not empty.
    ///
    /// # Panics
    /// Where the list is empty.
    #[must_use]
    pub fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }

    /// As [`Dice::pick`], for lists of values.
    ///
    /// # Panics
    /// Where the list is empty.
    #[must_use]
    pub fn one<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_choices_and_parts_differ() {
        let roll = |mut dice: Dice| (0..8).map(|_| dice.below(1000)).collect::<Vec<_>>();
        assert_eq!(roll(Dice::new(7)), roll(Dice::new(7)));
        assert_ne!(roll(Dice::new(7)), roll(Dice::new(8)));
        assert_ne!(roll(Dice::new(7).part(1)), roll(Dice::new(7).part(2)));
        let mut dice = Dice::new(1);
        assert!((0..100).all(|_| (3..=5).contains(&dice.between(3, 5))));
    }
}
