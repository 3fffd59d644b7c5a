//! Numbers: printed as they come, one JSON object per line, and kept for the table.

use std::fmt::Write as _;

/// The median, the 99th percentile and the like of what was collected.
#[derive(Debug, Default, Clone)]
pub(crate) struct Samples(pub(crate) Vec<f64>);

impl Samples {
    /// The value that `share` of the samples do not exceed; not a number when there are none.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let index = (sorted.len() as f64 * share).ceil() as usize;
        sorted
            .get(index.clamp(1, sorted.len().max(1)) - 1)
            .copied()
            .unwrap_or(f64::NAN)
    }

    /// The value in the middle.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The largest.
    pub(crate) fn max(&self) -> f64 {
        self.quantile(1.0)
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Samples {
        Samples(samples.into_iter().collect())
    }
}

/// One line of the table.
struct Row {
    work: String,
    budget: String,
    measured: Vec<String>,
}

/// What was measured so far.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Begins a line of the table; `budget` is what the design allows, empty for what the machine can do.
    pub(crate) fn row(&mut self, work: &str, budget: &str) {
        self.rows.push(Row {
            work: work.to_owned(),
            budget: budget.to_owned(),
            measured: Vec::new(),
        });
    }

    /// A number of the current line.
    pub(crate) fn number(&mut self, metric: &str, value: f64, unit: &str) {
        let Some(row) = self.rows.last_mut() else { return };
        let value = rounded(value);
        println!(
            "{}",
            serde_json::json!({ "work": row.work, "metric": metric, "value": value, "unit": unit })
        );
        row.measured
            .push(format!("{metric} {value} {unit}").trim_end().to_owned());
    }

    /// Several rounds of one number: the median, and from where to where they went.
    pub(crate) fn rounds(&mut self, metric: &str, rounds: &Samples, unit: &str) {
        self.number(metric, rounds.median(), unit);
        if rounds.0.len() > 1 {
            let (low, high) = (rounded(rounds.quantile(0.0)), rounded(rounds.max()));
            if let Some(text) = self.rows.last_mut().and_then(|row| row.measured.last_mut()) {
                // Writing to a String cannot fail.
                let _ = write!(text, " ({low}–{high})");
            }
        }
    }

    /// The table, in Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = "| work | budget | measured |\n|---|---|---|\n".to_owned();
        for Row {
            work,
            budget,
            measured,
        } in &self.rows
        {
            let _ = writeln!(text, "| {work} | {budget} | {} |", measured.join("; "));
        }
        text
    }
}

/// Three significant digits, or all digits before the point.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = (2.0 - value.abs().log10().floor()).max(0.0);
    let scale = 10f64.powf(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let samples: Samples = (1..=100).rev().map(f64::from).collect();
        assert_eq!(
            (
                samples.quantile(0.0),
                samples.median(),
                samples.quantile(0.99),
                samples.max()
            ),
            (1.0, 50.0, 99.0, 100.0)
        );
        assert!(Samples::default().median().is_nan());
    }

    #[test]
    fn numbers_keep_what_matters() {
        assert_eq!(
            [0.123_456, 12.345_6, 12_345.6, 0.0].map(rounded),
            [0.123, 12.3, 12_346.0, 0.0]
        );
    }

    #[test]
    fn the_table_has_a_line_per_work() {
        let mut report = Report::default();
        report.row("W0", "≤ 1 ms");
        report.rounds("p50", &Samples(vec![3.0, 1.0, 2.0]), "ms");
        report.number("failed", 0.0, "");
        assert!(
            report
                .markdown()
                .ends_with("| W0 | ≤ 1 ms | p50 2 ms (1–3); failed 0 |\n"),
            "{}",
            report.markdown()
        );
    }
}
