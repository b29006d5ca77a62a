//! The figures and the targets as tables for people, in Markdown.

use std::collections::BTreeSet;

use crate::cases::{Case, Metric};
use crate::figures::Figure;
use crate::lane::Path;
use crate::machine::Peers;
use crate::statistics::Estimate;
use crate::targets::Target;

/// Medians of every path that was measured, and how Ambit's compares: one row for each case and metric.
/// Where there is no figure there is an empty cell.
pub(crate) fn figures(figures: &[Figure]) -> String {
    let subjects: BTreeSet<(Case, Metric)> =
        figures.iter().map(|figure| (figure.case, figure.metric)).collect();
    let is_measured = |path: &Path| figures.iter().any(|figure| figure.path == *path);
    let paths: Vec<Path> = Path::ALL.into_iter().filter(is_measured).collect();
    let names = paths.iter().map(|path| path.name().to_owned());
    let ratios = others(&paths).map(|path| format!("to {path}"));
    let heading = ["case", "figure"].map(str::to_owned).into_iter().chain(names).chain(ratios);
    let rows = subjects.into_iter().map(|subject| row(subject, &paths, figures));
    align(&[heading.collect()].into_iter().chain(rows).collect::<Vec<_>>(), 2)
}

/// What is wanted, and whether it was reached: one row for each target.
pub(crate) fn targets(targets: &[Target], peers: &Peers) -> String {
    let heading = ["target", "figure", "against", "wanted", "measured", "verdict"];
    let rows = targets.iter().map(|target| {
        let Target { row, figure, against, bound, measured, verdict, note } = target;
        let remark = if note.is_empty() { String::new() } else { format!(": {note}") };
        vec![
            (*row).to_owned(),
            figure.clone(),
            against.map(|versus| peers.name(versus)).unwrap_or_default(),
            bound.clone(),
            measured.map(interval).unwrap_or_default(),
            format!("{}{remark}", verdict.text()),
        ]
    });
    let rows = [heading.map(str::to_owned).to_vec()].into_iter().chain(rows).collect::<Vec<_>>();
    align(&rows, heading.len())
}

/// The paths that Ambit's is compared with.
fn others(paths: &[Path]) -> impl Iterator<Item = Path> {
    paths.iter().copied().filter(|path| *path != Path::Ambit)
}

fn row((case, metric): (Case, Metric), paths: &[Path], figures: &[Figure]) -> Vec<String> {
    let of_path = |path: Path| {
        figures.iter().find(|figure| (figure.case, figure.metric, figure.path) == (case, metric, path))
    };
    let median = |path: &Path| of_path(*path).map(|figure| number(figure.estimate.median));
    let medians = paths.iter().map(|path| median(path).unwrap_or_default());
    let ratios = of_path(Path::Ambit).map(|figure| figure.ratios).unwrap_or_default();
    let ratios = others(paths).map(|path| ratios.with(path).map(interval).unwrap_or_default());
    let name = [case.to_string(), format!("{metric}, {}", metric.unit())];
    name.into_iter().chain(medians).chain(ratios).collect()
}

/// A median with its confidence interval.
pub(crate) fn interval(Estimate { median, low, high }: Estimate) -> String {
    format!("{} [{}, {}]", number(median), number(low), number(high))
}

/// Three digits behind the point of what is small, none of what is large.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        at_least if at_least >= 1000.0 => 0,
        at_least if at_least >= 100.0 => 1,
        at_least if at_least >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Columns under each other: the first `texts` to the left, numbers to the right.
pub(crate) fn align(rows: &[Vec<String>], texts: usize) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut lines: Vec<String> = rows.iter().map(|row| line(row, &widths, texts)).collect();
    let rule = |(column, width): (usize, &usize)| {
        let end = if column < texts { "-" } else { ":" };
        format!("{}{end}", "-".repeat(width - 1))
    };
    let rules: Vec<String> = widths.iter().enumerate().map(rule).collect();
    lines.insert(1, line(&rules, &widths, texts));
    lines.concat()
}

fn line(cells: &[String], widths: &[usize], texts: usize) -> String {
    let pad = |(column, (cell, width)): (usize, (&String, &usize))| {
        if column < texts { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    };
    let padded: Vec<String> = cells.iter().zip(widths).enumerate().map(pad).collect();
    format!("| {} |\n", padded.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::Reading;
    use crate::figures::Readings;
    use crate::targets::evaluate;

    fn some_figures() -> Vec<Figure> {
        let mut readings = Readings::default();
        for (path, value) in [(Path::Plain, 17284.0), (Path::Envoy, 4321.0), (Path::Ambit, 8642.0)] {
            readings.add(Case::HTTP_ONE, path, [Reading::new(Metric::Requests, value)]);
        }
        readings.add(Case::HTTP_ONE, Path::Ambit, [Reading::new(Metric::CpuPerTenThousand, 0.5)]);
        readings.figures()
    }

    #[test]
    fn a_subject_is_one_row_with_a_cell_for_each_measured_path_and_ratio() {
        assert_eq!(
            figures(&some_figures()),
            "| case   | figure                  | plain | envoy | ambit |             to plain |          to envoy |\n\
             | ------ | ----------------------- | ----: | ----: | ----: | -------------------: | ----------------: |\n\
             | http-1 | requests, 1/s           | 17284 |  4321 |  8642 | 0.500 [0.500, 0.500] | 2.00 [2.00, 2.00] |\n\
             | http-1 | cpu_per_10k_requests, s |       |       | 0.500 |                      |                   |\n"
        );
    }

    #[test]
    fn the_targets_name_the_peer_with_its_version() {
        let peers = Peers { envoy: "1.40.0".into(), haproxy: "2.6".into(), istio: None };
        let text = targets(&evaluate(&some_figures()), &peers);
        let line = text.lines().find(|line| line.contains("http-1, latency_p50")).unwrap();
        assert!(line.contains("Envoy 1.40.0") && line.contains("not in this run"), "{line}");
        assert!(text.lines().any(|line| line.contains("waypoint") && line.contains("measured elsewhere: ")));
    }

    #[test]
    fn numbers_show_what_counts() {
        for (value, text) in [(12345.6, "12346"), (123.45, "123.5"), (12.345, "12.35"), (0.12345, "0.123")] {
            assert_eq!(number(value), text);
        }
    }
}
