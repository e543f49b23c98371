//! Few cases that contain every pair of levels of any two factors.
//!
//! A fault that shows only in one combination of two factors (a bitrate with a number of rows, a
//! dtype with an epilogue) is then met; the whole product is left to the GPUs, which are fast
//! enough for it.

/// Cases as a level per factor, `levels[f]` being the number of levels of factor f. Greedy: each
/// case begins with a pair that is still missing, then every other factor takes the level that
/// adds most missing pairs.
pub fn cover<const FACTORS: usize>(levels: &[usize; FACTORS]) -> Vec<[usize; FACTORS]> {
    let mut missing = Missing::all(levels);
    let mut cases: Vec<[usize; FACTORS]> = Vec::new();
    while let Some((first, second)) = missing.any() {
        let mut chosen = vec![first, second];
        for factor in (0..FACTORS).filter(|&f| f != first.0 && f != second.0) {
            let gain = |level: usize| {
                let pairs = chosen.iter().filter(|&&c| missing.has(c, (factor, level)));
                pairs.count()
            };
            // Of equal gains the first after a start that moves on: or level 0 would come too often.
            let start = cases.len();
            let level = (0..levels[factor])
                .map(|i| (start + i) % levels[factor])
                .rev()
                .max_by_key(|&level| gain(level))
                .expect("every factor has a level");
            chosen.push((factor, level));
        }
        for (i, &a) in chosen.iter().enumerate() {
            for &b in &chosen[..i] {
                missing.remove(a, b);
            }
        }
        let mut case = [0; FACTORS];
        for (factor, level) in chosen {
            case[factor] = level;
        }
        cases.push(case);
    }
    cases
}

/// A factor and one of its levels.
type Choice = (usize, usize);

/// The pairs that no case contains yet.
struct Missing {
    pairs: std::collections::BTreeSet<(Choice, Choice)>,
}

impl Missing {
    fn all(levels: &[usize]) -> Self {
        let choices = |f: usize| (0..levels[f]).map(move |level| (f, level));
        let mut pairs = std::collections::BTreeSet::new();
        for b in 0..levels.len() {
            for a in 0..b {
                pairs.extend(choices(a).flat_map(|x| choices(b).map(move |y| (x, y))));
            }
        }
        Missing { pairs }
    }

    fn any(&self) -> Option<(Choice, Choice)> {
        self.pairs.first().copied()
    }

    fn has(&self, a: Choice, b: Choice) -> bool {
        self.pairs.contains(&(a.min(b), a.max(b)))
    }

    fn remove(&mut self, a: Choice, b: Choice) {
        self.pairs.remove(&(a.min(b), a.max(b)));
    }
}
