//! Plots as SVG, for a page that needs nothing else.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;
/// Ticks that an axis should have about.
const TICKS: f64 = 5.0;
const CHARACTER: f64 = 6.4;

/// How things of one kind look: see the page's style sheet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    Zoo,
    HeldOut,
    Generated,
    /// The nth of several that are less important.
    Other(usize),
}

impl Ink {
    fn class(self) -> String {
        match self {
            Self::Zoo => "zoo".into(),
            Self::HeldOut => "held-out".into(),
            Self::Generated => "generated".into(),
            Self::Other(n) => format!("other other{}", n % 7),
        }
    }
}

/// An axis: its title, range, and how its numbers are written.
pub struct Axis<'a> {
    /// What is shown, with its unit.
    pub title: &'a str,
    /// Least and greatest value.
    pub range: [f64; 2],
    /// A number for people.
    pub show: &'a dyn Fn(f64) -> String,
    /// By powers of ten.
    pub logarithmic: bool,
}

impl Axis<'_> {
    /// 0 at the beginning, 1 at the end.
    fn place(&self, value: f64) -> f64 {
        let scale = |x: f64| if self.logarithmic { x.log10() } else { x };
        let [least, greatest] = self.range.map(scale);
        ((scale(value) - least) / (greatest - least).max(1e-12)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let steps = (-9..9).flat_map(|power| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(power)));
            let within = |x: &f64| (self.range[0]..=self.range[1] * 1.0001).contains(x);
            return steps.filter(within).collect();
        }
        let [least, greatest] = self.range;
        let rough = ((greatest - least) / TICKS).max(1e-12);
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|factor| factor * power)
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(10.0 * power);
        let first = (least / step).ceil() as i64;
        let last = (greatest / step + 1e-9).floor() as i64;
        (first..=last).map(|i| i as f64 * step).collect()
    }
}

/// A range that holds all values with a little room.
pub fn range(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let finite = values.filter(|value| value.is_finite());
    let [least, greatest] = finite.fold([f64::INFINITY, f64::NEG_INFINITY], |[a, b], x| {
        [a.min(x), b.max(x)]
    });
    if least > greatest {
        return [0.0, 1.0];
    }
    let room = (0.04 * (greatest - least))
        .max(1e-6 * greatest.abs())
        .max(1e-9);
    [least - room, greatest + room]
}

/// A plot in the making.
pub struct Plot<'a> {
    x: Axis<'a>,
    y: Axis<'a>,
    height: f64,
    body: String,
    legend: Vec<(Ink, String)>,
}

impl<'a> Plot<'a> {
    /// With axes and nothing on them.
    pub fn new(x: Axis<'a>, y: Axis<'a>) -> Self {
        Self {
            x,
            y,
            height: 340.0,
            body: String::new(),
            legend: Vec::new(),
        }
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let width = WIDTH - LEFT - RIGHT;
        let height = self.height - TOP - BOTTOM;
        (
            LEFT + width * self.x.place(x),
            TOP + height * (1.0 - self.y.place(y)),
        )
    }

    /// A line through points, named in the legend.
    pub fn line(&mut self, ink: Ink, name: &str, points: impl Iterator<Item = (f64, f64)>) {
        let mut path = String::new();
        for (x, y) in points {
            let (x, y) = self.at(x, y);
            let command = if path.is_empty() { 'M' } else { 'L' };
            write!(path, "{command}{x:.1} {y:.1}").expect("strings grow");
        }
        let class = ink.class();
        self.add(&format!("<path class=\"line {class}\" d=\"{path}\"/>"));
        self.legend.push((ink, name.into()));
    }

    /// Points, named in the legend.
    pub fn dots(&mut self, ink: Ink, name: &str, points: impl Iterator<Item = (f64, f64)>) {
        let class = ink.class();
        self.add(&format!("<g class=\"dots {class}\">"));
        for (x, y) in points {
            let (x, y) = self.at(x, y);
            self.add(&format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"));
        }
        self.add("</g>");
        self.legend.push((ink, name.into()));
    }

    /// A horizontal line that a caption speaks of.
    pub fn level(&mut self, y: f64, name: &str) {
        let (_, y) = self.at(self.x.range[0], y);
        let end = WIDTH - RIGHT;
        self.add(&format!(
            "<path class=\"level\" d=\"M{LEFT} {y:.1}H{end}\"/><text class=\"level\" x=\"{:.1}\" \
             y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            end - 4.0,
            y - 5.0,
            escape(name)
        ));
    }

    fn add(&mut self, text: &str) {
        self.body.push_str(text);
    }

    /// The SVG element.
    pub fn finish(mut self) -> String {
        let bottom = self.height - BOTTOM;
        let mut axes = String::new();
        for tick in self.x.ticks() {
            let (x, _) = self.at(tick, self.y.range[0]);
            write!(
                axes,
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                escape(&(self.x.show)(tick))
            )
            .expect("strings grow");
        }
        for tick in self.y.ticks() {
            let (_, y) = self.at(self.x.range[0], tick);
            write!(
                axes,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{}\"/><text x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                escape(&(self.y.show)(tick))
            )
            .expect("strings grow");
        }
        let titles = format!(
            "<text class=\"title\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"title\" transform=\"translate(14 {:.1}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            self.height - 8.0,
            escape(self.x.title),
            (TOP + bottom) / 2.0,
            escape(self.y.title)
        );
        let legend = self.draw_legend();
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">{axes}{titles}{}\
             {legend}</svg>",
            self.height,
            escape(&format!("{} by {}", self.y.title, self.x.title)),
            self.body
        )
    }

    /// Below the plot, in as many lines as it takes.
    fn draw_legend(&mut self) -> String {
        let mut text = String::new();
        let (mut x, mut y) = (LEFT, self.height + 12.0);
        for (ink, name) in &self.legend {
            let width = 34.0 + CHARACTER * name.chars().count() as f64;
            if x + width > WIDTH - RIGHT {
                (x, y) = (LEFT, y + 20.0);
            }
            write!(
                text,
                "<path class=\"line {}\" d=\"M{x:.1} {:.1}h18\"/><text x=\"{:.1}\" \
                 y=\"{y:.1}\">{}</text>",
                ink.class(),
                y - 4.0,
                x + 24.0,
                escape(name)
            )
            .expect("strings grow");
            x += width;
        }
        self.height = y + 10.0;
        text
    }
}

/// One row of points a name: how values are spread.
pub fn strips<'s>(
    axis: &Axis<'_>,
    rows: impl Iterator<Item = (Ink, &'s str, &'s [f64])>,
    mark: Option<f64>,
) -> String {
    const ROW: f64 = 34.0;
    const NAMES: f64 = 190.0;
    let rows: Vec<_> = rows.collect();
    let height = TOP + ROW * rows.len() as f64;
    let place = |value: f64| NAMES + (WIDTH - NAMES - RIGHT) * axis.place(value);
    let mut text = String::new();
    let mut add = |part: String| text.push_str(&part);
    for tick in axis.ticks() {
        let x = place(tick);
        add(format!(
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{height}\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{}</text>",
            height + 16.0,
            escape(&(axis.show)(tick))
        ));
    }
    if let Some(mark) = mark {
        let x = place(mark);
        add(format!(
            "<path class=\"level\" d=\"M{x:.1} {TOP}V{height}\"/>"
        ));
    }
    for (i, (ink, name, values)) in rows.iter().enumerate() {
        let y = TOP + ROW * (i as f64 + 0.5);
        let class = ink.class();
        add(format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><g class=\"dots {class}\">",
            NAMES - 12.0,
            y + 4.0,
            escape(name)
        ));
        for (j, value) in values.iter().enumerate() {
            // The golden ratio scatters them evenly over the row.
            let offset = (j as f64 * 0.618_034).fract() - 0.5;
            let (x, y) = (place(*value), y + 20.0 * offset);
            add(format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>"));
        }
        add("</g>".into());
        if !values.is_empty() {
            let mean = place(values.iter().sum::<f64>() / values.len() as f64);
            add(format!(
                "<path class=\"mean {class}\" d=\"M{mean:.1} {:.1}v24\"/>",
                y - 12.0
            ));
        }
    }
    add(format!(
        "<text class=\"title\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        (NAMES + WIDTH - RIGHT) / 2.0,
        height + 36.0,
        escape(axis.title)
    ));
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"{}\">{text}</svg>",
        height + 44.0,
        escape(axis.title)
    )
}

/// Text as it must stand in HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = |range, logarithmic| Axis {
            title: "",
            range,
            show: &|x| x.to_string(),
            logarithmic,
        };
        let close = |found: &[f64], expected: &[f64]| {
            let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9;
            assert!(
                found.len() == expected.len() && found.iter().zip(expected).all(near),
                "{found:?}"
            );
        };
        close(&axis([0.93, 0.985], false).ticks(), &[0.94, 0.96, 0.98]);
        close(
            &axis([-3.0, 7.0], false).ticks(),
            &[-2.0, 0.0, 2.0, 4.0, 6.0],
        );
        let decades = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];
        close(&axis([1.0, 100.0], true).ticks(), &decades);
        close(&range([2.0, f64::NAN, 1.0].into_iter()), &[0.96, 2.04]);
    }

    #[test]
    fn names_cannot_break_the_page() {
        assert_eq!(escape("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
    }
}
