//! The table of the matrix, as markdown.

use super::Row;
use crate::{fault::Fault, figures::Figure};

/// A row of the table that there is no run for, and why.
pub type NotRun = (&'static Fault, &'static str);

/// A row a fault: runs that held, of how many; median and worst of each figure; bars; the verdict. What was not run follows.
pub fn table(rows: &[Row], not_run: &[NotRun]) -> String {
    let mut table = "| fault | held | median (worst) | bars | |\n|---|---|---|---|---|\n".to_owned();
    for row in rows {
        let held = row.runs.iter().filter(|run| run.wrong.is_empty()).count();
        let figures: Vec<String> = Figure::ALL.iter().filter_map(|figure| cell(row, *figure)).collect();
        let bars = row.fault.bars.iter().map(|(figure, bar)| format!("{} ≤ {bar}", figure.name()));
        let bars: Vec<String> = bars.collect();
        let verdict = if held == row.runs.len() { "ok" } else { "**MISSED**" };
        table.push_str(&format!(
            "| {} | {held} of {} | {} | {} | {verdict} |\n",
            row.fault.name,
            row.runs.len(),
            figures.join("; "),
            bars.join("; ")
        ));
    }
    for (fault, why) in not_run {
        table.push_str(&format!("| {} | not run: {why} | | | |\n", fault.name));
    }
    table
}

/// The median and the worst of a figure; none if it was never measured.
fn cell(row: &Row, figure: Figure) -> Option<String> {
    let mut values: Vec<f64> =
        row.runs.iter().filter_map(|run| run.figures.0.get(&figure).copied()).collect();
    values.sort_by(f64::total_cmp);
    let (median, worst) = (values.get(values.len() / 2)?, values.last()?);
    let text = |value: &f64| match figure {
        Figure::Failed
        | Figure::Lost
        | Figure::Elections
        | Figure::Repeated
        | Figure::WriteP99
        | Figure::Revoked => {
            format!("{value:.0}")
        }
        _ => format!("{value:.2}"),
    };
    Some(format!("{} {} ({})", figure.name(), text(median), text(worst)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fault, matrix::Run};

    #[test]
    fn a_row_has_median_and_worst_and_says_what_was_missed() {
        let mut faults = fault::all();
        let [fault, other] = [(); 2].map(|()| faults.next().expect("there are several"));
        let mut runs = vec![Run::default(); 3];
        for (run, value) in runs.iter_mut().zip([1.0, 3.0, 2.0]) {
            run.figures.add(Figure::CaughtUp, value);
        }
        let rows = [Row { fault, runs: runs.clone() }];
        let said = table(&rows, &[(other, "a reason")]);
        assert!(said.contains("| 3 of 3 | caught up, s 2.00 (3.00) |"), "{said}");
        assert!(said.contains("| ok |") && said.ends_with(" | not run: a reason | | | |\n"), "{said}");
        runs[0].wrong.push("all".into());
        assert!(table(&[Row { fault, runs }], &[]).contains("| 2 of 3 |"));
    }
}
