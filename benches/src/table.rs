//! The figures as a table for people.

use std::fmt::Write;

use crate::figures::Figure;

/// One row for each case and metric and path, with the ratios to the plain path and to Envoy.
pub(crate) fn render(figures: &[Figure]) -> String {
    let mut text = String::new();
    let mut last = None;
    for figure in figures {
        let subject = (&figure.case, &figure.metric);
        if last != Some(subject) {
            let heading = format!("{} {} ({})", figure.case, figure.metric, figure.unit);
            let columns =
                ["median", "min", "max", "/ plain", "/ envoy"].map(|column| format!("{column:>10}"));
            let _ = writeln!(text, "\n{heading:<54}{}", columns.concat());
        }
        last = Some(subject);
        let envoy = figures
            .iter()
            .find(|other| (&other.case, &other.metric) == subject && other.path == "envoy")
            .map(|envoy| figure.median / envoy.median);
        let _ = writeln!(
            text,
            "  {:<52}{:>10}{:>10}{:>10}{:>10}{:>10}",
            figure.path,
            number(figure.median),
            number(figure.min),
            number(figure.max),
            ratio(figure.ratio_to_plain),
            ratio(envoy),
        );
    }
    text
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

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_one_heading_and_a_row_for_each_path() {
        let figure = |path: &str, median: f64, ratio_to_plain| Figure {
            case: "http-1".into(),
            path: path.into(),
            metric: "requests".into(),
            unit: "1/s".into(),
            median,
            min: median,
            max: median,
            ratio_to_plain,
        };
        let text = render(&[figure("envoy", 4321.0, None), figure("ambit", 8642.0, Some(0.5))]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1][..3], ["http-1", "requests", "(1/s)"]);
        assert_eq!(lines[2], ["envoy", "4321", "4321", "4321", "-", "1.00"]);
        assert_eq!(lines[3], ["ambit", "8642", "8642", "8642", "0.50", "2.00"]);
    }

    #[test]
    fn numbers_show_four_digits() {
        for (value, text) in [(12345.6, "12346"), (123.45, "123.5"), (12.345, "12.35"), (0.12345, "0.123")] {
            assert_eq!(number(value), text);
        }
    }
}
