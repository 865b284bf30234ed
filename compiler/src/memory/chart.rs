//! A plan for people: the certificate and the picture of memory over time, as text and as SVG.

mod svg;

use std::cmp::Reverse;
use std::fmt::Write as _;

use super::problem::{Buffer, Problem};
use super::solver::Plan;

pub use svg::svg;

/// How good the plan is, and what stands in the way of a better one:
///
/// ```
/// use kiln::memory::{Buffer, Options, Problem, chart, plan};
/// let buffers = vec![Buffer::new("x", 256, 0, 2), Buffer::new("h", 512, 1, 3), Buffer::new("y", 128, 2, 4)];
/// let problem = Problem::new(buffers).unwrap();
/// let plan = plan(&problem, &Options::default());
/// assert_eq!(chart::certificate(&problem, &plan), "\
/// memory plan: 3 buffers, 0 of them aliases, aligned to 64 bytes
///   lower bound              768 bytes  largest sum of live bytes, reached at step 1
///   plan                     768 bytes  optimal; greedy by size
///   gap                     0.00 %
///   naive total              896 bytes  1.17 times the plan
/// held at step 1:
///           512   66.7 %  h
///           256   33.3 %  x
/// ");
/// ```
pub fn certificate(problem: &Problem, plan: &Plan) -> String {
    let aliases = problem.buffers().iter().filter(|b| b.alias_of.is_some()).count();
    let peak_step = fullest_step(problem);
    let mut text = String::new();
    // Writing to a String cannot fail; the same holds for every `let _` below.
    let _ = writeln!(
        text,
        "memory plan: {} buffers, {aliases} of them aliases, aligned to {} bytes",
        problem.buffers().len(),
        problem.alignment()
    );
    let _ = writeln!(
        text,
        "  lower bound  {:>15} bytes  largest sum of live bytes, reached at step {peak_step}",
        plan.lower_bound
    );
    let _ = writeln!(text, "  plan         {:>15} bytes  {}; {}", plan.peak, standing(plan), plan.solver);
    let _ = writeln!(text, "  gap          {:>15.2} %", 100.0 * plan.gap());
    let times = if plan.peak == 0 { 1.0 } else { plan.naive as f64 / plan.peak as f64 };
    let _ = writeln!(text, "  naive total  {:>15} bytes  {times:.2} times the plan", plan.naive);
    text + &holders(problem, peak_step, plan.lower_bound)
}

/// Who holds the peak: the storages live at the fullest step, largest first.
pub fn holders_of_peak(problem: &Problem) -> String {
    holders(problem, fullest_step(problem), problem.lower_bound())
}

/// What is known about the peak.
fn standing(plan: &Plan) -> String {
    if plan.proved {
        "optimal".to_owned()
    } else if plan.proved_bound > plan.lower_bound {
        format!("no plan is below {} bytes", plan.proved_bound)
    } else {
        "not proved optimal".to_owned()
    }
}

/// First step at which most bytes are live.
fn fullest_step(problem: &Problem) -> u32 {
    let profile = problem.live_bytes();
    profile.iter().max_by_key(|&&(step, bytes)| (bytes, Reverse(step))).map_or(0, |&(step, _)| step)
}

/// Storages listed as holding the peak; the rest is summed up.
const LISTED: usize = 12;

/// The storages live at `step`, largest first, by the name of their root.
fn holders(problem: &Problem, step: u32, total: u64) -> String {
    let live = |lower: u32, upper: u32| lower <= step && step < upper;
    let mut holders: Vec<(u64, &Buffer)> = problem
        .storages()
        .iter()
        .filter(|s| live(s.lower, s.upper))
        .map(|s| (s.size, &problem.buffers()[s.root]))
        .collect();
    // A stable sort: equals stay in the problem's order.
    holders.sort_by_key(|&(size, _)| Reverse(size));
    let share = |bytes: u64| 100.0 * bytes as f64 / total.max(1) as f64;
    let mut text = format!("held at step {step}:\n");
    for (size, buffer) in holders.iter().take(LISTED) {
        let _ = writeln!(text, "  {size:>11}  {:>5.1} %  {}", share(*size), buffer.id);
    }
    if holders.len() > LISTED {
        let rest: u64 = holders[LISTED..].iter().map(|&(size, _)| size).sum();
        let _ = writeln!(text, "  {rest:>11}  {:>5.1} %  in {} more", share(rest), holders.len() - LISTED);
    }
    text
}

/// Columns and rows of the text chart.
const COLUMNS: usize = 60;
const ROWS: usize = 20;

/// Memory over time as text, at most 60 columns of steps by 20 rows of bytes. A `#` is live bytes, a `:` is a hole: free,
/// but below something live. A column shows the fullest of its steps.
pub fn text(problem: &Problem, plan: &Plan) -> String {
    let span = Span::of(problem);
    let columns = span.columns(problem, plan);
    let mut text = String::new();
    for row in (0..ROWS).rev() {
        // A cell is drawn once its middle is reached.
        let level = (2 * row as u128 + 1) * u128::from(plan.peak);
        let reaches = |bytes: u64| u128::from(bytes) * (2 * ROWS as u128) >= level && bytes > 0;
        let label = u128::from(plan.peak) * (row as u128 + 1) / ROWS as u128;
        let cells: String = columns
            .iter()
            .map(|&(live, top)| {
                if reaches(live) {
                    '#'
                } else if reaches(top) {
                    ':'
                } else {
                    ' '
                }
            })
            .collect();
        let _ = writeln!(text, "{label:>15} |{}", cells.trim_end());
    }
    let _ = writeln!(text, "{:>15} +{}", 0, "-".repeat(columns.len()));
    let (first, last) = (span.first.to_string(), span.end.saturating_sub(1).to_string());
    let _ = writeln!(text, "{:>15}  {first}{last:>width$}", "step", width = columns.len().saturating_sub(first.len()));
    text
}

/// The steps of a problem: `first <= step < end`.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: u32,
    end: u32,
}

impl Span {
    fn of(problem: &Problem) -> Self {
        let buffers = problem.buffers();
        let first = buffers.iter().map(|b| b.lower).min().unwrap_or(0);
        Self { first, end: buffers.iter().map(|b| b.upper).max().unwrap_or(first) }
    }

    fn steps(&self) -> u64 {
        u64::from(self.end - self.first)
    }

    /// For each column the most live bytes and the highest taken byte of its steps.
    fn columns(&self, problem: &Problem, plan: &Plan) -> Vec<(u64, u64)> {
        let count = usize::try_from(self.steps()).map_or(COLUMNS, |steps| steps.min(COLUMNS));
        let mut columns = vec![(0, 0); count];
        let profile = problem.live_bytes();
        for (i, &(step, bytes)) in profile.iter().enumerate() {
            let until = profile.get(i + 1).map_or(self.end, |next| next.0);
            for column in &mut columns[self.column_range(step, until, count)] {
                column.0 = bytes.max(column.0);
            }
        }
        for s in problem.storages() {
            let top = plan.offsets[s.root] + s.size;
            for column in &mut columns[self.column_range(s.lower, s.upper, count)] {
                column.1 = top.max(column.1);
            }
        }
        columns
    }

    /// Columns that show a step of `lower..upper`.
    fn column_range(&self, lower: u32, upper: u32, count: usize) -> std::ops::Range<usize> {
        if lower >= upper {
            return 0..0;
        }
        let column = |step: u32| (u64::from(step - self.first) * count as u64 / self.steps()) as usize;
        column(lower)..column(upper - 1) + 1
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::super::{Options, plan};
    use super::*;

    fn example() -> (Problem, Plan) {
        let buffers = vec![
            Buffer::new("<a>", 128, 0, 2),
            Buffer::new("b", 64, 1, 4),
            Buffer::new("c", 128, 2, 4).alias_of(0),
            Buffer::new("d", 192, 4, 6),
        ];
        let problem = Problem::new(buffers).unwrap();
        let plan = plan(&problem, &Options::default());
        (problem, plan)
    }

    #[test]
    fn text_has_a_column_per_step_and_twenty_rows() {
        let (problem, plan) = example();
        let text = text(&problem, &plan);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 22);
        assert_eq!(lines[0], "            192 | #####");
        assert_eq!(lines[19], "              9 |######");
        assert_eq!(&lines[20..], ["              0 +------", "           step  0    5"]);
    }

    #[test]
    fn holes_are_shown() {
        let buffers = vec![Buffer::new("low", 64, 0, 1), Buffer::new("high", 64, 0, 2)];
        let problem = Problem::new(buffers).unwrap();
        let by_hand = Plan { offsets: vec![0, 64], peak: 128, ..plan(&problem, &Options::default()) };
        let text = text(&problem, &by_hand);
        assert!(text.starts_with("            128 |#:\n"), "{text}");
        assert!(text.contains("             64 |##\n"), "{text}");
    }

    #[test]
    fn long_problems_are_squeezed_into_sixty_columns() {
        let buffers = (0..1000).map(|i| Buffer::new(i.to_string(), 64, i, i + 2)).collect();
        let problem = Problem::new(buffers).unwrap();
        let text = text(&problem, &plan(&problem, &Options::default()));
        assert!(text.lines().all(|line| line.len() <= 17 + COLUMNS), "{text}");
    }

    #[test]
    fn certificate_of_an_empty_problem() {
        let problem = Problem::new(Vec::new()).unwrap();
        let plan = plan(&problem, &Options::default());
        assert!(certificate(&problem, &plan).contains("optimal"));
        assert_eq!(text(&problem, &plan).lines().count(), 22);
    }

    #[test]
    fn svg_has_a_box_with_a_tooltip_per_buffer() {
        let (problem, plan) = example();
        let svg = svg(&problem, &plan);
        assert_eq!(svg.matches("<title>").count(), problem.buffers().len() + 1);
        assert!(svg.contains("<title>&lt;a&gt;: 128 bytes at "), "{svg}");
        assert!(svg.contains("peak 192 bytes, lower bound 192"), "{svg}");
        assert!(!svg.contains("NaN"));
    }
}
