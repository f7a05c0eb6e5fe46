use super::{Comparison, Outcome, Party, Row, Sample, Spread, geometric_mean};

/// A row of less is no clear gain.
pub(super) const CLEAR: f64 = 1.2;

/// Our daemon as it is by default, held against the best of the reference daemon.
///
/// The best is the setting that has the greatest geometric mean of operations per second over all
/// rows. For each row there is also the setting that is best at it.
#[derive(Debug)]
pub struct Verdict<'a> {
    /// The index of our contender.
    pub ours: usize,
    /// The index of the reference daemon's best.
    pub reference: usize,
    /// A line for each row.
    pub lines: Vec<Line<'a>>,
}

/// What there is to say about a row. Ratios are ours to the reference daemon's.
#[derive(Debug)]
pub struct Line<'a> {
    /// The row.
    pub row: &'a Row,
    /// What our daemon did.
    pub ours: &'a Outcome,
    /// What the reference daemon's best setting did.
    pub reference: &'a Outcome,
    /// Of operations per second.
    pub speed: Option<Spread>,
    /// Of processor time for an operation.
    pub cpu: Option<Spread>,
    /// The index of the setting of the reference daemon that is best at it; `None` where none does
    /// it.
    pub rival: Option<usize>,
    /// Of operations per second, to that setting.
    pub rival_speed: Option<Spread>,
    /// Of operations per second, to what takes no daemon.
    pub native_speed: Option<Spread>,
}

impl<'a> Verdict<'a> {
    /// `None` where there are not both of the daemons.
    #[must_use]
    pub fn of(comparison: &'a Comparison) -> Option<Self> {
        let mut parties = comparison.contenders.iter().map(|c| c.party);
        let ours = parties.position(|party| party == Party::Ours)?;
        let reference = best(comparison, Party::Reference, &comparison.rows)?;
        let lines = comparison.rows.iter();
        let lines = lines.filter_map(|row| Line::of(comparison, row, ours, reference));
        Some(Self {
            ours,
            reference,
            lines: lines.collect(),
        })
    }

    /// The geometric mean of the rows' ratios of operations per second.
    #[must_use]
    pub fn speed(&self) -> Option<f64> {
        geometric_mean(self.lines.iter().filter_map(|l| Some(l.speed?.median)))
    }

    /// That of the ratios to the settings that are best at each row.
    #[must_use]
    pub fn rival_speed(&self) -> Option<f64> {
        let ratios = self.lines.iter();
        geometric_mean(ratios.filter_map(|line| Some(line.rival_speed?.median)))
    }

    /// That of the ratios of processor time for an operation.
    #[must_use]
    pub fn cpu(&self) -> Option<f64> {
        geometric_mean(self.lines.iter().filter_map(|l| Some(l.cpu?.median)))
    }

    /// The rows where ours is not clearly faster, the slowest first.
    #[must_use]
    pub fn unclear(&self) -> Vec<(&'a str, f64)> {
        let mut rows = self.speeds();
        rows.retain(|(_, speed)| *speed < CLEAR);
        rows
    }

    /// The row with the lowest ratio of operations per second.
    #[must_use]
    pub fn lowest(&self) -> Option<(&'a str, f64)> {
        self.speeds().first().copied()
    }

    fn speeds(&self) -> Vec<(&'a str, f64)> {
        let lines = self.lines.iter();
        let mut rows: Vec<(&str, f64)> = lines
            .filter_map(|line| Some((&*line.row.name, line.speed?.median)))
            .collect();
        rows.sort_by(|one, other| one.1.total_cmp(&other.1));
        rows
    }
}

impl<'a> Line<'a> {
    fn of(comparison: &Comparison, row: &'a Row, ours: usize, reference: usize) -> Option<Self> {
        let one = std::slice::from_ref(row);
        let rival = best(comparison, Party::Reference, one);
        let native = best(comparison, Party::Native, one);
        let outcome = |index: usize| row.outcomes.get(index);
        let (ours, reference) = (outcome(ours)?, outcome(reference)?);
        let speed_to = |other| ours.ratio(other, rate);
        Some(Self {
            row,
            ours,
            reference,
            speed: speed_to(reference),
            cpu: ours.ratio(reference, |sample| sample.cpu_us),
            rival,
            rival_speed: rival.and_then(outcome).and_then(speed_to),
            native_speed: native.and_then(outcome).and_then(speed_to),
        })
    }
}

/// The index of the setting with the greatest geometric mean over those of `rows` that all of the
/// party's settings do.
fn best(comparison: &Comparison, party: Party, rows: &[Row]) -> Option<usize> {
    let contenders = comparison.contenders.iter().enumerate();
    let settings: Vec<usize> = contenders
        .filter(|(_, contender)| contender.party == party)
        .map(|(index, _)| index)
        .collect();
    let rate_of = |row: &Row, index: usize| row.outcomes.get(index)?.median(rate);
    let common = |row: &&Row| settings.iter().all(|&n| rate_of(row, n).is_some());
    let rows: Vec<&Row> = rows.iter().filter(common).collect();
    let mean = |index| {
        let rates = rows.iter().filter_map(|row| rate_of(row, index));
        Some((index, geometric_mean(rates)?))
    };
    let means = settings.iter().copied().filter_map(mean);
    let (index, _) = means.max_by(|one, other| one.1.total_cmp(&other.1))?;
    Some(index)
}

const fn rate(sample: &Sample) -> f64 {
    sample.ops_per_second
}

#[cfg(test)]
mod tests {
    use super::super::testing::comparison;
    use super::*;

    #[test]
    fn the_best_setting_is_that_of_the_greatest_geometric_mean() {
        // The second has the greater sum, the first the greater product.
        let found = comparison(&[("a", &[10.0, 5.0, 1.0]), ("b", &[10.0, 5.0, 20.0])]);
        let verdict = Verdict::of(&found).unwrap();
        assert_eq!((verdict.ours, verdict.reference), (0, 1));
        let speeds: Vec<f64> = verdict
            .lines
            .iter()
            .map(|line| line.speed.unwrap().median)
            .collect();
        assert_eq!(speeds, [2.0, 2.0]);
        let rivals: Vec<Option<usize>> = verdict.lines.iter().map(|line| line.rival).collect();
        assert_eq!(rivals, [Some(1), Some(2)]);
        assert_eq!(verdict.lines[1].rival_speed.unwrap().median, 0.5);
        assert!((verdict.speed().unwrap() - 2.0).abs() < 1e-12);
        assert!((verdict.rival_speed().unwrap() - 1.0).abs() < 1e-12);
        assert!((verdict.cpu().unwrap() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn rows_without_a_clear_gain_are_named_the_slowest_first() {
        let found = comparison(&[
            ("a", &[11.0, 10.0]),
            ("b", &[30.0, 10.0]),
            ("c", &[9.0, 10.0]),
        ]);
        let verdict = Verdict::of(&found).unwrap();
        assert_eq!(verdict.unclear(), [("c", 0.9), ("a", 1.1)]);
        assert_eq!(verdict.lowest(), Some(("c", 0.9)));
    }

    #[test]
    fn a_row_that_a_setting_does_not_do_does_not_choose_among_them() {
        let mut found = comparison(&[("a", &[1.0, 2.0, 1.0]), ("b", &[1.0, 1.0, 9.0])]);
        found.rows[1].outcomes[1].samples = vec![None];
        let verdict = Verdict::of(&found).unwrap();
        assert_eq!(verdict.reference, 1);
        assert_eq!(verdict.lines[1].speed, None);
    }

    #[test]
    fn without_one_of_the_daemons_there_is_none() {
        assert!(Verdict::of(&comparison(&[("a", &[1.0])])).is_none());
        assert!(Verdict::of(&comparison(&[])).is_none());
    }
}
