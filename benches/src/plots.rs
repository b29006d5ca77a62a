//! The figures as SVG plots: how Ambit compares with the better peer, how throughput and processor time
//! go with the number of streams, how latency goes with the rate, how both go with the delay.
//!
//! Only what a run has measured is drawn.

use std::fs;
use std::path::Path as File;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::cases::{Case, Direction, Metric, Spread};
use crate::figures::Figure;
use crate::lane::Path;
use crate::statistics::Estimate;

/// Draws every plot that the figures allow into the directory, which is made if need be.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn draw(figures: &[Figure], directory: &File) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let comparisons = comparisons(figures);
    if !comparisons.is_empty() {
        draw_comparisons(&comparisons, &directory.join("ratios.svg"))?;
    }
    for chart in charts(figures) {
        chart.draw(&directory.join(format!("{}.svg", chart.name)))?;
    }
    Ok(())
}

/// Ambit's ratio to the better peer, of each figure that has one.
fn comparisons(figures: &[Figure]) -> Vec<(String, Estimate)> {
    let of_ambit = figures.iter().filter(|figure| figure.path == Path::Ambit);
    of_ambit
        .filter_map(|figure| {
            Some((format!("{}, {}", figure.case, figure.metric), figure.ratios.better_peer?))
        })
        .collect()
}

/// Lines over a row of places, one for each path.
#[derive(Debug, PartialEq)]
struct Chart {
    name: String,
    title: String,
    x_title: &'static str,
    places: Vec<String>,
    lines: Vec<(Path, Vec<(usize, Estimate)>)>,
}

fn charts(figures: &[Figure]) -> Vec<Chart> {
    let mut charts = Vec::new();
    for metric in [Metric::Throughput, Metric::CpuPerGigabyte] {
        for (direction, of_direction) in [(Direction::Send, "send"), (Direction::Receive, "receive")] {
            for (spread, of_spread) in
                [(Spread::Together, "one destination"), (Spread::Apart, "a destination each")]
            {
                let place = |case: Case| streams(case, spread, direction).map(|streams| streams.to_string());
                let name = format!("{metric}-{of_direction}-{}", of_spread.replace(' ', "-"));
                let title = format!("{metric} ({}), {of_direction}, {of_spread}", metric.unit());
                charts.extend(chart(figures, metric, place, (name, title, "streams")));
            }
        }
    }
    for metric in [Metric::LatencyMedian, Metric::Latency99, Metric::Latency999] {
        let titles = (
            format!("{metric}-at-fixed-rates"),
            format!("{metric} ({})", metric.unit()),
            "requests per second",
        );
        charts.extend(chart(figures, metric, rate, titles));
    }
    for metric in [Metric::Throughput, Metric::Latency99] {
        let titles = (
            format!("{metric}-over-delay"),
            format!("{metric} ({}), 0.1 % loss", metric.unit()),
            "round trip",
        );
        charts.extend(chart(figures, metric, delay, titles));
    }
    charts
}

/// Of a case of bulk data with this spread and direction; one stream belongs to either spread.
fn streams(case: Case, wanted: Spread, direction: Direction) -> Option<u16> {
    match case {
        Case::Bulk { streams, spread, direction: of_case } => {
            (of_case == direction && (spread == wanted || streams == 1)).then_some(streams)
        }
        Case::Http { .. }
        | Case::Paced(_)
        | Case::ConnectionsWarm
        | Case::ConnectionsCold
        | Case::Passthrough
        | Case::Fairness
        | Case::Churn
        | Case::Delayed { .. }
        | Case::MemoryIdle
        | Case::MemoryPerConnection => None,
    }
}

fn rate(case: Case) -> Option<String> {
    if let Case::Paced(pace) = case { Some(pace.per_second.to_string()) } else { None }
}

fn delay(case: Case) -> Option<String> {
    if let Case::Delayed { millis } = case { Some(format!("{millis} ms")) } else { None }
}

/// None where there are not two places to draw a line between.
fn chart(
    figures: &[Figure],
    metric: Metric,
    place: impl Fn(Case) -> Option<String>,
    (name, title, x_title): (String, String, &'static str),
) -> Option<Chart> {
    let figures: Vec<(String, &Figure)> = figures
        .iter()
        .filter(|figure| figure.metric == metric)
        .filter_map(|figure| Some((place(figure.case)?, figure)))
        .collect();
    let mut places: Vec<String> = Vec::new();
    for (place, _) in &figures {
        if !places.contains(place) {
            places.push(place.clone());
        }
    }
    let line = |path: Path| {
        let points =
            figures.iter().filter(|(_, figure)| figure.path == path).filter_map(|(place, figure)| {
                Some((places.iter().position(|other| other == place)?, figure.estimate))
            });
        (path, points.collect::<Vec<_>>())
    };
    let lines = Path::ALL.map(line).into_iter().filter(|(_, points)| !points.is_empty()).collect();
    (places.len() > 1).then_some(Chart { name, title, x_title, places, lines })
}

impl Chart {
    fn draw(&self, file: &File) -> Result<()> {
        let root = sheet(file, (800, 500))?;
        let highest = self.lines.iter().flat_map(|(_, points)| points).map(|(_, point)| point.high);
        let top = highest.fold(0.0, f64::max) * 1.1;
        let mut area = ChartBuilder::on(&root)
            .caption(&self.title, ("sans-serif", 20))
            .margin(15)
            .x_label_area_size(45)
            .y_label_area_size(70)
            .build_cartesian_2d(-0.3..self.places.len() as f64 - 0.7, 0.0..top)
            .map_err(undrawn)?;
        area.configure_mesh()
            .x_desc(self.x_title)
            .x_labels(self.places.len() * 2 + 1)
            .x_label_formatter(&|x| label(&self.places, *x))
            .disable_x_mesh()
            .draw()
            .map_err(undrawn)?;
        for (path, points) in &self.lines {
            let color = color(*path);
            let medians = points.iter().map(|(place, point)| (*place as f64, point.median));
            area.draw_series(LineSeries::new(medians, color.stroke_width(2)))
                .map_err(undrawn)?
                .label(path.name())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
            let intervals = points.iter().map(|(place, Estimate { median, low, high })| {
                ErrorBar::new_vertical(*place as f64, *low, *median, *high, color.filled(), 8)
            });
            area.draw_series(intervals).map_err(undrawn)?;
        }
        area.configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()
            .map_err(undrawn)?;
        root.present().map_err(undrawn)
    }
}

fn draw_comparisons(comparisons: &[(String, Estimate)], file: &File) -> Result<()> {
    let height = 90 + 24 * u32::try_from(comparisons.len())?;
    let root = sheet(file, (1000, height))?;
    let names: Vec<String> = comparisons.iter().map(|(name, _)| name.clone()).collect();
    let right = comparisons.iter().map(|(_, ratio)| ratio.high).fold(1.0, f64::max) * 1.05;
    let rows = comparisons.len() as f64;
    let mut area = ChartBuilder::on(&root)
        .caption("Ambit to the better HBONE peer, 95 % intervals", ("sans-serif", 20))
        .margin(15)
        .x_label_area_size(30)
        .y_label_area_size(330)
        // The first one is on top.
        .build_cartesian_2d(0.0..right, rows - 0.5..-0.5)
        .map_err(undrawn)?;
    area.configure_mesh()
        .y_labels(comparisons.len() * 2 + 1)
        .y_label_formatter(&|y| label(&names, *y))
        .disable_y_mesh()
        .draw()
        .map_err(undrawn)?;
    area.draw_series(LineSeries::new([(1.0, rows - 0.5), (1.0, -0.5)], BLACK.stroke_width(1)))
        .map_err(undrawn)?;
    let intervals = comparisons.iter().enumerate().map(|(row, (_, Estimate { median, low, high }))| {
        ErrorBar::new_horizontal(row as f64, *low, *median, *high, color(Path::Ambit).filled(), 10)
    });
    area.draw_series(intervals).map_err(undrawn)?;
    root.present().map_err(undrawn)
}

/// What stands at a place of an axis: its name at a whole number, and nothing between two.
fn label(names: &[String], at: f64) -> String {
    let nearest = at.round();
    let is_place = (at - nearest).abs() < 0.01 && nearest >= 0.0;
    let name = is_place.then(|| names.get(nearest as usize)).flatten();
    name.cloned().unwrap_or_default()
}

fn color(path: Path) -> RGBColor {
    match path {
        Path::Plain => RGBColor(120, 120, 120),
        Path::Relay => RGBColor(230, 140, 20),
        Path::RelayTls => RGBColor(200, 60, 40),
        Path::Envoy => RGBColor(170, 60, 150),
        Path::Istio => RGBColor(40, 150, 90),
        Path::Ambit => RGBColor(20, 110, 190),
    }
}

fn sheet(file: &File, size: (u32, u32)) -> Result<DrawingArea<SVGBackend<'_>, Shift>> {
    let root = SVGBackend::new(file, size).into_drawing_area();
    root.fill(&WHITE).map_err(undrawn)?;
    Ok(root)
}

/// The errors of the drawing crate hold what cannot leave a thread.
fn undrawn(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("a plot cannot be drawn: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::Reading;
    use crate::figures::Readings;

    fn some_figures() -> Vec<Figure> {
        let mut readings = Readings::default();
        for case in Case::all().into_iter().filter(|case| matches!(case, Case::Bulk { .. } | Case::Paced(_)))
        {
            for (path, value) in [(Path::Plain, 10.0), (Path::Envoy, 2.0), (Path::Ambit, 3.0)] {
                let metric = if rate(case).is_some() { Metric::Latency99 } else { Metric::Throughput };
                readings.add(case, path, [Reading::new(metric, value), Reading::new(metric, value + 1.0)]);
            }
        }
        readings.figures()
    }

    #[test]
    fn streams_are_in_order_and_one_stream_is_on_both_plots_of_a_direction() {
        let charts = charts(&some_figures());
        let throughput =
            charts.iter().find(|chart| chart.name == "throughput-send-a-destination-each").unwrap();
        assert_eq!(throughput.places, ["1", "2", "8", "64"]);
        assert_eq!(throughput.lines.len(), 3);
        assert!(charts.iter().any(|chart| chart.name == "latency_p99-at-fixed-rates"));
        assert_eq!(charts.len(), 5);
    }

    #[test]
    fn what_was_not_measured_is_not_drawn() {
        assert!(charts(&[]).is_empty());
        assert!(comparisons(&[]).is_empty());
    }

    #[test]
    fn every_place_has_its_name_once() {
        let names = ["a".to_owned(), "b".to_owned()];
        let labels: Vec<String> = [-0.5, 0.0, 0.5, 1.0, 2.0].iter().map(|at| label(&names, *at)).collect();
        assert_eq!(labels, ["", "a", "", "b", ""]);
    }

    #[test]
    fn plots_are_files_of_svg() {
        let directory = std::env::temp_dir().join(format!("bench-plots-{}", std::process::id()));
        draw(&some_figures(), &directory).unwrap();
        let ratios = fs::read_to_string(directory.join("ratios.svg")).unwrap();
        assert!(ratios.starts_with("<svg") && ratios.contains("paced-500, latency_p99"), "{ratios}");
        fs::remove_dir_all(&directory).unwrap();
    }
}
