//! A plot of a few lines, as SVG that reads on light and dark pages.

use std::fmt::Write;

/// A plot.
pub(crate) struct Plot {
    /// What it is of.
    pub(crate) title: &'static str,
    /// What goes to the right.
    pub(crate) x: (&'static str, Scale),
    /// What goes up.
    pub(crate) y: (&'static str, Scale),
    /// Lines, with what each is of.
    pub(crate) series: Vec<(String, Vec<(f64, f64)>)>,
}

/// How far numbers are apart.
#[derive(Clone, Copy)]
pub(crate) enum Scale {
    /// By their difference.
    Linear,
    /// By their ratio.
    Log,
}

const COLORS: [&str; 6] = ["#2f80d0", "#d9722e", "#2a9d6a", "#b64fa8", "#b38600", "#7a7fd6"];
const LEFT: f64 = 62.0;
const TOP: f64 = 34.0;
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 220.0;
/// Gray is seen on both, the text a little better with the page's own.
const HEAD: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 300" width="640" height="300" font-family="system-ui, sans-serif" font-size="12">
<style>text { fill: #444 } .grid { stroke: #8888; stroke-width: 0.5 } @media (prefers-color-scheme: dark) { text { fill: #ccc } }</style>
"##;

impl Plot {
    /// As SVG.
    pub(crate) fn draw(&self) -> String {
        let (x, y) = (self.axis(|point| point.0, self.x.1), self.axis(|point| point.1, self.y.1));
        let right = |value| LEFT + x.part(value) * WIDTH;
        let down = |value| TOP + (1.0 - y.part(value)) * HEIGHT;
        let mut svg = String::from(HEAD);
        let mut line = |text: String| svg.write_fmt(format_args!("{text}\n")).unwrap_or_default();
        line(format!(r#"<text x="{LEFT}" y="18" font-weight="600">{}</text>"#, self.title));
        for tick in x.ticks() {
            let at = right(tick);
            line(format!(r#"<path class="grid" d="M{at:.1} {TOP}v{HEIGHT}"/>"#));
            line(format!(r#"<text x="{at:.1}" y="270" text-anchor="middle">{tick}</text>"#));
        }
        for tick in y.ticks() {
            let at = down(tick);
            line(format!(r#"<path class="grid" d="M{LEFT} {at:.1}h{WIDTH}"/>"#));
            line(format!(r#"<text x="56" y="{:.1}" text-anchor="end">{tick}</text>"#, at + 4.0));
        }
        line(format!(r#"<text x="262" y="290" text-anchor="middle">{}</text>"#, self.x.0));
        line(format!(
            r#"<text transform="translate(14 144) rotate(-90)" text-anchor="middle">{}</text>"#,
            self.y.0
        ));
        for (nth, ((name, points), color)) in self.series.iter().zip(COLORS).enumerate() {
            let at: Vec<String> =
                points.iter().map(|(x, y)| format!("{:.1},{:.1}", right(*x), down(*y))).collect();
            let points = at.join(" ");
            line(format!(
                r#"<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>"#
            ));
            let y = TOP + 12.0 + 20.0 * nth as f64;
            line(format!(r#"<path d="M474 {y}h18" stroke="{color}" stroke-width="3"/>"#));
            line(format!(r#"<text x="498" y="{}">{name}</text>"#, y + 4.0));
        }
        svg + "</svg>\n"
    }

    fn axis(&self, of: impl Fn(&(f64, f64)) -> f64, scale: Scale) -> Axis {
        let all = || self.series.iter().flat_map(|(_, points)| points).map(&of);
        let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(f64::MIN, f64::max));
        match scale {
            Scale::Log => {
                Axis { scale, low: low.log10().floor(), high: high.log10().ceil(), step: 1.0 }
            }
            Scale::Linear => {
                let step = 10_f64.powf((high - low).log10().floor());
                let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
                Axis { scale, low, high, step }
            }
        }
    }
}

/// Its ends, in decades if it goes by ratio.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    fn part(&self, value: f64) -> f64 {
        let place = match self.scale {
            Scale::Linear => value,
            Scale::Log => value.log10(),
        };
        (place - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> Vec<f64> {
        let count = ((self.high - self.low) / self.step).round() as i32;
        let place = |nth: i32| self.low + f64::from(nth) * self.step;
        (0..=count)
            .map(|nth| match self.scale {
                // Without what floating point adds.
                Scale::Linear => (place(nth) * 1e6).round() / 1e6,
                Scale::Log => 10_f64.powf(place(nth)),
            })
            .collect()
    }
}
