//! The plot: bars of the ratios, a row below the other.

mod svg;

use std::fmt;

use super::{Comparison, Line, Spread, Verdict};
use svg::{Anchor, Drawing};

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 16.0;
/// Where the heading ends and the scales begin.
const HEADING: f64 = 100.0;
/// Height of a row, and of its bar.
const ROW: f64 = 20.0;
const BAR: f64 = 12.0;
/// Room for the numbers of a scale, below it.
const FOOT: f64 = 30.0;

const TITLE: &str = "Our daemon, relative to the reference daemon";

/// Bars to one side of 1, on a logarithmic scale.
struct Panel {
    title: &'static str,
    /// Which side is the good one.
    hint: &'static str,
    /// Where it begins and ends.
    left: f64,
    right: f64,
    value: fn(&Line<'_>) -> Option<Spread>,
    /// What it should come up to.
    goal: f64,
}

const PANELS: [Panel; 2] = [
    Panel {
        title: "Operations per second",
        hint: "more is better",
        left: 185.0,
        right: 550.0,
        value: |line| line.speed,
        goal: 2.0,
    },
    Panel {
        title: "CPU time per operation",
        hint: "less is better",
        left: 590.0,
        right: WIDTH - MARGIN,
        value: |line| line.cpu,
        goal: 0.5,
    },
];

impl Comparison {
    /// The ratios of our daemon to the best of the reference daemon, as an SVG image that is
    /// legible on light and on dark ground; empty where there are not both.
    #[must_use]
    pub fn svg(&self) -> String {
        let verdict = Verdict::of(self);
        let lines = verdict.as_ref().map_or(&[][..], |verdict| &verdict.lines);
        let bottom = ROW.mul_add(lines.len() as f64, HEADING);
        let mut drawing = Drawing::new(WIDTH, bottom + FOOT + MARGIN);
        if let Some(verdict) = &verdict {
            self.draw_heading(&mut drawing, verdict);
        }
        for (n, line) in lines.iter().enumerate() {
            let middle = ROW.mul_add(n as f64 + 0.5, HEADING);
            let name = &line.row.name;
            drawing.text(
                "row",
                Anchor::End,
                (PANELS[0].left - 10.0, middle + 4.0),
                name,
            );
        }
        for panel in &PANELS {
            panel.draw(&mut drawing, lines, bottom);
        }
        drawing.finish()
    }

    fn draw_heading(&self, drawing: &mut Drawing, verdict: &Verdict<'_>) {
        let mean = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}x"));
        let name = |index: usize| &*self.contenders[index].name;
        let means = format!(
            "{} / {}; geometric means of {} rows: {} operations per second, {} CPU time",
            name(verdict.ours),
            name(verdict.reference),
            verdict.lines.len(),
            mean(verdict.speed()),
            mean(verdict.cpu())
        );
        drawing.text("title", Anchor::Start, (MARGIN, 26.0), TITLE);
        drawing.text("row", Anchor::Start, (MARGIN, 45.0), &means);
        drawing.text("note", Anchor::Start, (MARGIN, 62.0), &self.under());
    }
}

impl Panel {
    fn draw(&self, drawing: &mut Drawing, lines: &[Line<'_>], bottom: f64) {
        let title = format!("{} ({})", self.title, self.hint);
        drawing.text("panel", Anchor::Start, (self.left, HEADING - 12.0), &title);
        let spreads = || lines.iter().filter_map(self.value);
        let scale = Scale::of(spreads().flat_map(|s| [s.least, s.most]), self);
        for tick in scale.ticks() {
            let power = Power(tick);
            let x = scale.at(power.value());
            let class = if tick == 0 {
                "one"
            } else if power.value() == self.goal {
                "goal"
            } else {
                "grid"
            };
            drawing.line(class, (x, HEADING), (x, bottom));
            drawing.text(
                "note",
                Anchor::Middle,
                (x, bottom + 16.0),
                &power.to_string(),
            );
        }
        for (n, line) in lines.iter().enumerate() {
            let middle = ROW.mul_add(n as f64 + 0.5, HEADING);
            match (self.value)(line) {
                Some(spread) => self.draw_bar(drawing, &scale, spread, middle),
                None => {
                    let place = (scale.at(1.0) + 6.0, middle + 4.0);
                    drawing.text("note", Anchor::Start, place, "not of both");
                }
            }
        }
    }

    fn draw_bar(&self, drawing: &mut Drawing, scale: &Scale, spread: Spread, middle: f64) {
        let (one, end) = (scale.at(1.0), scale.at(spread.median));
        let reaches = |value: f64| (value - 1.0) * (self.goal - 1.0);
        let class = if reaches(spread.median) >= reaches(self.goal) {
            "far"
        } else if reaches(spread.median) >= 0.0 {
            "ahead"
        } else {
            "behind"
        };
        drawing.bar(
            class,
            (one.min(end), middle - BAR / 2.0),
            (one.max(end), middle + BAR / 2.0),
        );
        let (least, most) = (scale.at(spread.least), scale.at(spread.most));
        drawing.line("spread", (least, middle), (most, middle));
        let label = format!("{:.2}x", spread.median);
        // Beyond the bar and its spread, to the side where there is more room.
        let (anchor, x) = if end >= one {
            (Anchor::Start, most.max(one) + 5.0)
        } else {
            (Anchor::End, least.min(one) - 5.0)
        };
        drawing.text("value", anchor, (x, middle + 4.0), &label);
    }
}

/// A logarithmic scale, from a power of two to another.
struct Scale {
    left: f64,
    right: f64,
    /// Exponents of the first and the last power.
    low: i32,
    high: i32,
}

impl Scale {
    /// One that has all `values` and the panel's goal on it.
    fn of(values: impl Iterator<Item = f64>, panel: &Panel) -> Self {
        // Beyond, a bar ends with the scale, and its label says how far it would go.
        const BOUNDS: (i32, i32) = (-4, 5);
        let (mut low, mut high) = (-1, 1);
        for value in values.chain([panel.goal]).filter(|value| *value > 0.0) {
            low = low.min(value.log2().floor() as i32).max(BOUNDS.0);
            high = high.max(value.log2().ceil() as i32).min(BOUNDS.1);
        }
        let (left, right) = (panel.left, panel.right);
        Self {
            left,
            right,
            low,
            high,
        }
    }

    /// Where a value is. At the ends there is room for a bar's label.
    fn at(&self, value: f64) -> f64 {
        const LABEL: f64 = 44.0;
        let (low, high) = (f64::from(self.low), f64::from(self.high));
        let part = (value.log2().clamp(low, high) - low) / (high - low);
        (self.right - self.left - 2.0 * LABEL).mul_add(part, self.left + LABEL)
    }

    fn ticks(&self) -> impl Iterator<Item = i32> {
        self.low..=self.high
    }
}

/// A power of two, by its exponent, as a factor: `1/4x`, `8x`.
struct Power(i32);

impl Power {
    fn value(&self) -> f64 {
        f64::from(self.0).exp2()
    }
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            write!(f, "1/{:.0}x", 1.0 / self.value())
        } else {
            write!(f, "{:.0}x", self.value())
        }
    }
}

#[cfg(test)]
mod tests;
