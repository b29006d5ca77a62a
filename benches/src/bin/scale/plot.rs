//! What grows with a size, as panels beside each other in one SVG.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// One panel.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    /// Of what there are more and more.
    pub(crate) size: &'static str,
    /// What is not to be exceeded, where that was said.
    pub(crate) goal: Option<f64>,
    /// A name, empty where there is one line alone, and values over sizes.
    pub(crate) lines: Vec<(&'static str, Vec<(f64, f64)>)>,
    /// Whether sizes are spaced by their order of magnitude.
    pub(crate) logarithmic: bool,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the panels.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn draw(panels: &[Panel], file: &Path) -> Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    let width = WIDTH * u32::try_from(panels.len())?;
    let root = SVGBackend::new(file, (width, HEIGHT)).into_drawing_area();
    root.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
    for (area, panel) in root.split_evenly((1, panels.len())).iter().zip(panels) {
        panel.draw(area)?;
    }
    root.present().map_err(|error| anyhow!("{}: {error}", file.display()))
}

impl Panel {
    fn draw(&self, area: &Area<'_>) -> Result<()> {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let largest = points().map(|(size, _)| *size).fold(1.0, f64::max);
        let smallest = points().map(|(size, _)| *size).fold(largest, f64::min);
        let most = points().map(|(_, value)| *value).chain(self.goal).fold(0.0, f64::max) * 1.1;
        let mut builder = ChartBuilder::on(area);
        builder
            .caption(self.title, ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(48);
        if self.logarithmic {
            let sizes = (smallest..largest * 1.2).log_scale();
            self.fill(&mut builder.build_cartesian_2d(sizes, 0.0..most)?, smallest..largest * 1.2)
        } else {
            self.fill(&mut builder.build_cartesian_2d(0.0..largest * 1.05, 0.0..most)?, 0.0..largest * 1.05)
        }
    }

    fn fill<'a, X: Ranged<ValueType = f64> + ValueFormatter<f64>>(
        &self,
        chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, RangedCoordf64>>,
        across: std::ops::Range<f64>,
    ) -> Result<()> {
        let failed = |error: DrawingAreaErrorKind<_>| anyhow!("{error}");
        chart.configure_mesh().x_desc(self.size).x_labels(5).draw().map_err(failed)?;
        if let Some(goal) = self.goal {
            let line = [(across.start, goal), (across.end, goal)];
            chart.draw_series(LineSeries::new(line, RED.mix(0.5))).map_err(failed)?;
        }
        for ((name, points), color) in self.lines.iter().zip([BLUE, GREEN, MAGENTA].into_iter().cycle()) {
            let line = LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(4);
            let drawn = chart.draw_series(line).map_err(failed)?;
            if !name.is_empty() {
                drawn
                    .label(*name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
            }
        }
        if self.lines.len() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperLeft)
                .background_style(WHITE.mix(0.8))
                .draw()
                .map_err(failed)?;
        }
        Ok(())
    }
}

const WIDTH: u32 = 360;
const HEIGHT: u32 = 320;
