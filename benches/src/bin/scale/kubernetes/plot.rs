//! The figures over the number of pods, as one SVG.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::Row;

/// A chart's caption, its goal, and what it shows of a row.
type Chart = (&'static str, f64, fn(&Row) -> f64);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws three charts beside each other.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn draw(rows: &[Row], file: &Path) -> Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    let root = SVGBackend::new(file, (1_080, 320)).into_drawing_area();
    root.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
    let areas = root.split_evenly((1, 3));
    let charts: [Chart; 3] = [
        ("a change at all nodes, p99 under load (ms)", 500.0, |row| row.loaded.p99.as_secs_f64() * 1e3),
        ("control's memory at most (MB)", 300.0, |row| row.memory.peak),
        ("control's processors under load", 1.0, |row| row.cores),
    ];
    for (area, (title, goal, value)) in areas.iter().zip(charts) {
        chart(area, title, goal, &rows.iter().map(|row| (row.pods as f64, value(row))).collect::<Vec<_>>())?;
    }
    root.present().map_err(|error| anyhow!("{}: {error}", file.display()))
}

fn chart(area: &Area<'_>, title: &str, goal: f64, points: &[(f64, f64)]) -> Result<()> {
    let failed = |error: DrawingAreaErrorKind<_>| anyhow!("{error}");
    let pods = points.iter().map(|(pods, _)| *pods).fold(1.0, f64::max);
    let most = points.iter().map(|(_, value)| *value).fold(goal, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..pods * 1.05, 0.0..most)
        .map_err(failed)?;
    chart.configure_mesh().x_desc("pods").x_labels(4).draw().map_err(failed)?;
    chart.draw_series(LineSeries::new([(0.0, goal), (pods * 1.05, goal)], RED.mix(0.5))).map_err(failed)?;
    chart
        .draw_series(LineSeries::new(points.iter().copied(), BLUE.stroke_width(2)).point_size(4))
        .map_err(failed)?;
    Ok(())
}
