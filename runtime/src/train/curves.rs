//! Curves of a training as SVG: one chart for the loss and one for each metric, training and test in each.

use std::io::Write;
use std::path::Path;

use plotters::prelude::*;

use super::report::Report;
use crate::atomic_file::{WriteError, write_atomically};

/// Width of the picture and height of each chart in pixels.
const WIDTH: u32 = 720;
const HEIGHT: u32 = 320;

const TRAIN: RGBColor = RGBColor(31, 119, 180);
const TEST: RGBColor = RGBColor(214, 96, 39);

/// Draws the curves and writes them to a file, atomically.
///
/// # Errors
/// [`WriteError`].
pub fn save(path: &Path, report: &Report) -> Result<(), WriteError> {
    write_atomically(path, |out| {
        let svg = draw(report).map_err(std::io::Error::other)?;
        out.write_all(svg.as_bytes())
    })
}

/// One line of a chart.
struct Series {
    name: &'static str,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

struct Chart {
    title: String,
    horizontal: &'static str,
    series: Vec<Series>,
}

/// Draws the curves over epochs; if no epoch was completed, the losses of the first steps. The picture is a function
/// of the report alone, without its time.
///
/// # Errors
/// What the drawing library reports.
pub fn draw(report: &Report) -> Result<String, String> {
    let charts = charts(report);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT * charts.len() as u32)).into_drawing_area();
        root.fill(&WHITE).map_err(|error| error.to_string())?;
        for (area, chart) in root.split_evenly((charts.len(), 1)).iter().zip(&charts) {
            chart.draw(area).map_err(|error| error.to_string())?;
        }
        root.present().map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

fn charts(report: &Report) -> Vec<Chart> {
    let history = &report.history;
    let numbered = |values: Vec<f64>| {
        let points = (1_u32..).map(f64::from).zip(values);
        points.filter(|(_, value)| value.is_finite()).collect::<Vec<_>>()
    };
    if history.epochs.is_empty() {
        let points = numbered(report.losses());
        let series = vec![Series { name: "train", color: TRAIN, points }];
        return vec![Chart { title: "loss".into(), horizontal: "step", series }];
    }
    let only_tested = history.test_names.iter().filter(|name| !history.train_names.contains(name));
    let names = history.train_names.iter().chain(only_tested);
    let charts = names.map(|name| {
        let series = [("train", TRAIN, history.train(name)), ("test", TEST, history.test(name))];
        let series = series
            .into_iter()
            .filter_map(|(label, color, values)| Some(Series { name: label, color, points: numbered(values?) }));
        Chart { title: name.to_string(), horizontal: "epoch", series: series.collect() }
    });
    charts.collect()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

impl Chart {
    fn draw(&self, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error + '_>> {
        let (horizontal, vertical) = self.ranges();
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(horizontal.clone(), vertical)
            .map_err(text)?;
        let whole = |value: &f64| format!("{value:.0}");
        let short = |value: &f64| short(*value);
        let labels = (horizontal.end - horizontal.start).ceil().clamp(2.0, 10.0) as usize;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(self.horizontal).y_desc(self.title.as_str()).x_labels(labels).y_labels(6);
        mesh.label_style(("sans-serif", 15)).axis_desc_style(("sans-serif", 16));
        mesh.x_label_formatter(&whole).y_label_formatter(&short).light_line_style(TRANSPARENT);
        mesh.draw().map_err(text)?;
        for series in &self.series {
            let (color, points) = (series.color, &series.points);
            let line = LineSeries::new(points.iter().copied(), color.stroke_width(2));
            let drawn = chart.draw_series(line).map_err(text)?;
            drawn
                .label(series.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
            // A single epoch has no line, and few are easier to read with their points.
            if points.len() <= 30 {
                let dots = points.iter().map(|&point| Circle::new(point, 3, color.filled()));
                chart.draw_series(dots).map_err(text)?;
            }
        }
        let mut legend = chart.configure_series_labels();
        legend
            .position(self.legend())
            .label_font(("sans-serif", 15))
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3));
        legend.draw().map_err(text)?;
        Ok(())
    }

    /// Where the curves are not: a loss falls, an accuracy rises.
    fn legend(&self) -> SeriesLabelPosition {
        let ends = self.series.first().and_then(|series| Some((series.points.first()?.1, series.points.last()?.1)));
        match ends {
            Some((first, last)) if last > first => SeriesLabelPosition::LowerRight,
            _ => SeriesLabelPosition::UpperRight,
        }
    }

    /// Ranges of the axes: all points, with some air.
    fn ranges(&self) -> (std::ops::Range<f64>, std::ops::Range<f64>) {
        let points = || self.series.iter().flat_map(|series| series.points.iter());
        let last = points().map(|point| point.0).fold(2.0, f64::max);
        let low = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
        let high = points().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        let air = ((high - low) * 0.05).max(high.abs().max(low.abs()) * 1e-6).max(1e-12);
        (1.0..last, low - air..high + air)
    }
}

fn text(error: impl std::fmt::Display) -> Box<dyn std::error::Error> {
    error.to_string().into()
}

/// A label without trailing zeros.
fn short(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude < 1e-12 => "0".into(),
        magnitude if !(1e-3..1e5).contains(&magnitude) => format!("{value:.1e}"),
        _ => format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]
    use super::*;
    use crate::train::report::{EpochSummary, History, Outcome};

    fn report(epochs: usize) -> Report {
        let summary = |i: usize| EpochSummary {
            train: vec![1.0 / (i + 1) as f64, 0.5 + 0.05 * i as f64],
            test: vec![1.1 / (i + 1) as f64, f64::NAN],
        };
        let names = || vec!["loss".into(), "accuracy".into()];
        let epochs = (0..epochs).map(summary).collect();
        Report {
            outcome: Outcome::Done,
            epochs: 0,
            steps: 3,
            resumed_from_step: None,
            seconds: 0.0,
            train: Vec::new(),
            test: Vec::new(),
            step_losses: vec![("loss".into(), vec![3.0, 2.0, 1.0])],
            history: History { train_names: names(), test_names: names(), epochs },
        }
    }

    #[test]
    fn both_charts_have_their_axes_and_series() {
        let svg = draw(&report(5)).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for word in ["loss", "accuracy", "epoch", "train", "test"] {
            assert!(svg.contains(&format!("\n{word}\n")), "{word}: {svg}");
        }
        assert!(svg.matches("<polyline").count() >= 3);
        assert_eq!(svg, draw(&report(5)).unwrap());
    }

    #[test]
    fn labels_are_short() {
        let labels = [0.0, 0.5, 1.0, -0.125, 1234.5, 2e-5, 3e7].map(short);
        assert_eq!(labels, ["0", "0.5", "1", "-0.125", "1234.5", "2.0e-5", "3.0e7"]);
    }

    #[test]
    fn few_values_are_no_trouble() {
        for epochs in [0, 1, 2, 100] {
            let svg = draw(&report(epochs)).unwrap();
            assert_eq!(svg.contains("\nstep\n"), epochs == 0);
        }
        let mut empty = report(0);
        empty.step_losses.clear();
        assert!(draw(&empty).is_ok());
    }
}
