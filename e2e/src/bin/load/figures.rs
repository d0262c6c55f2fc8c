//! What was measured, and how it is shown.

pub use e2e::measure::Requests;

/// The outcome of a case.
pub enum Figure {
    /// Things done, each with its latency.
    Requests(Requests),
    /// Resident memory now and at its peak, in megabytes; nothing where the process is not known.
    Memory(Option<(f64, f64)>),
}

/// The line above the figures.
#[must_use]
pub fn heading(targets: usize) -> String {
    let one = format!("{:>10} {:>9} {:>9} {:>8} {:>6}", "per s", "p50 ms", "p99 ms", "MB/s", "errors");
    let ratio = if targets > 1 { " | times better" } else { "" };
    format!("{:<42}{}{ratio}", "", vec![one; targets].join(" |"))
}

/// One case, all targets.
#[must_use]
pub fn line(name: &str, results: &[Figure]) -> String {
    let cells: Vec<_> = results.iter().map(cell).collect();
    let ratio = match results {
        [ours, theirs] => times_better(ours, theirs).map_or(String::new(), |r| format!(" | {r:.1}")),
        _ => String::new(),
    };
    format!("{name:<42}{}{ratio}", cells.join(" |"))
}

fn cell(figure: &Figure) -> String {
    match figure {
        Figure::Requests(r) => format!(
            "{:>10.0} {:>9.2} {:>9.2} {:>8.1} {:>6}",
            r.rate(),
            r.quantile(0.5),
            r.quantile(0.99),
            r.bytes as f64 / 1e6 / r.elapsed.as_secs_f64().max(1e-9),
            r.errors
        ),
        Figure::Memory(Some((now, peak))) => format!("{:>46}", format!("{now:.0} MB, peak {peak:.0} MB")),
        Figure::Memory(None) => format!("{:>46}", "-"),
    }
}

fn times_better(ours: &Figure, theirs: &Figure) -> Option<f64> {
    match (ours, theirs) {
        (Figure::Requests(a), Figure::Requests(b)) if a.paced => Some(b.quantile(0.99) / a.quantile(0.99)),
        (Figure::Requests(a), Figure::Requests(b)) => Some(a.rate() / b.rate()),
        (Figure::Memory(Some((a, _))), Figure::Memory(Some((b, _)))) => Some(b / a),
        _ => None,
    }
}
