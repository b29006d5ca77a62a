//! The figures as a table for people, in Markdown: one row for each case and metric.

use crate::figures::Figure;
use crate::lane::Path;

/// The table. Where there is no figure there is no row or an empty cell.
pub(crate) fn render(figures: &[Figure]) -> String {
    let mut rows = vec![heading()];
    let mut last = None;
    for figure in figures {
        let subject = (&figure.case, &figure.metric);
        if last != Some(subject) {
            rows.push(row(figure, figures));
        }
        last = Some(subject);
    }
    align(&rows)
}

fn heading() -> Vec<String> {
    let paths = Path::ALL.map(Path::name);
    ["case", "figure"].into_iter().chain(paths).chain(["ambit / envoy"]).map(str::to_owned).collect()
}

/// What `subject` is of, on every path: the median, and in parentheses its ratio to the plain path.
fn row(subject: &Figure, figures: &[Figure]) -> Vec<String> {
    let of_path = |path: Path| {
        figures.iter().find(|figure| {
            (&figure.case, &figure.metric) == (&subject.case, &subject.metric) && figure.path == path.name()
        })
    };
    let cell = |path: Path| of_path(path).map(|figure| median(figure, path)).unwrap_or_default();
    let ratio = of_path(Path::Ambit).zip(of_path(Path::Envoy));
    let name = [subject.case.clone(), format!("{}, {}", subject.metric, subject.unit)];
    let to_envoy = ratio.map(|(ambit, envoy)| format!("{:.2}", ambit.median / envoy.median));
    name.into_iter().chain(Path::ALL.map(cell)).chain([to_envoy.unwrap_or_default()]).collect()
}

fn median(figure: &Figure, path: Path) -> String {
    let median = number(figure.median);
    match figure.ratio_to_plain {
        Some(ratio) if path != Path::Plain => format!("{median} ({ratio:.2})"),
        Some(_) | None => median,
    }
}

/// Four digits that count.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        at_least if at_least >= 1000.0 => 0,
        at_least if at_least >= 100.0 => 1,
        at_least if at_least >= 10.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Columns under each other: text to the left, numbers to the right.
fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut lines: Vec<String> = rows.iter().map(|row| line(row, &widths)).collect();
    let rule = |(column, width): (usize, &usize)| {
        let end = if is_text(column) { "-" } else { ":" };
        format!("{}{end}", "-".repeat(width - 1))
    };
    let rules: Vec<String> = widths.iter().enumerate().map(rule).collect();
    lines.insert(1, line(&rules, &widths));
    lines.concat()
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let pad = |(column, (cell, width)): (usize, (&String, &usize))| {
        if is_text(column) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    };
    let padded: Vec<String> = cells.iter().zip(widths).enumerate().map(pad).collect();
    format!("| {} |\n", padded.join(" | "))
}

fn is_text(column: usize) -> bool {
    column < 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_one_row_with_a_cell_for_each_path() {
        let figure = |path: &str, metric: &str, median: f64, ratio_to_plain| Figure {
            case: "http-1".into(),
            path: path.into(),
            metric: metric.into(),
            unit: "1/s".into(),
            median,
            min: median,
            max: median,
            ratio_to_plain,
        };
        let text = render(&[
            figure("plain", "requests", 17284.0, Some(1.0)),
            figure("envoy", "requests", 4321.0, Some(0.25)),
            figure("ambit", "requests", 8642.0, Some(0.5)),
            figure("ambit", "other", 0.5, None),
        ]);
        assert_eq!(
            text,
            "| case   | figure        | plain | relay |       envoy |       ambit | ambit / envoy |\n\
             | ------ | ------------- | ----: | ----: | ----------: | ----------: | ------------: |\n\
             | http-1 | requests, 1/s | 17284 |       | 4321 (0.25) | 8642 (0.50) |          2.00 |\n\
             | http-1 | other, 1/s    |       |       |             |       0.500 |               |\n"
        );
    }

    #[test]
    fn numbers_show_four_digits() {
        for (value, text) in [(12345.6, "12346"), (123.45, "123.5"), (12.345, "12.35"), (0.12345, "0.123")] {
            assert_eq!(number(value), text);
        }
    }
}
