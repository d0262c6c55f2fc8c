//! The metrics of flow control, under upstream's names (`flowcontrol/metrics`). They are read from levels and flows
//! when they are asked for, so that nothing is counted twice.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

use super::FlowControl;
use super::configuration::Configuration;
use super::level::Entry;
use super::queueset::Meters;
use super::ratio::Ratios;
use super::statistics::{Histogram, REASONS, Statistics};

/// What a level shows at one moment.
struct Shown {
    name: String,
    ratios: Ratios,
    r: f64,
    meters: Meters,
    seats: u64,
}

impl FlowControl {
    /// All metrics as text.
    #[must_use]
    pub fn render_metrics(&self) -> String {
        let configuration = self.configuration.lock();
        let mut text = Text::default();
        of_flows(&mut text, &configuration);
        of_limits(&mut text, &configuration);
        of_queues(&mut text, &configuration);
        text.0
    }
}

fn of_flows(text: &mut Text, configuration: &Configuration) {
    let flows: Vec<(String, &Statistics)> = configuration
        .statistics()
        .map(|(schema, level, own)| (format!("priority_level=\"{level}\",flow_schema=\"{schema}\""), own))
        .collect();
    text.head("rejected_requests_total", "counter");
    for (labels, own) in &flows {
        for (reason, count) in REASONS.iter().zip(&own.rejected) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let labels = format!("{labels},reason=\"{}\"", reason.as_str());
                text.line("rejected_requests_total", &labels, count);
            }
        }
    }
    type Counter = (&'static str, fn(&Statistics) -> u64);
    let counters: [Counter; 2] = [
        ("dispatched_requests_total", |own| own.dispatched.load(Ordering::Relaxed)),
        ("request_dispatch_no_accommodation_total", |own| own.not_accommodated.load(Ordering::Relaxed)),
    ];
    for (name, read) in counters {
        text.head(name, "counter");
        flows.iter().for_each(|(labels, own)| text.line(name, labels, read(own)));
    }
    type Gauge = (&'static str, fn(&Statistics) -> i64);
    let gauges: [Gauge; 4] = [
        ("current_inqueue_requests", |own| own.waiting.load(Ordering::Relaxed)),
        ("current_inqueue_seats", |own| own.seats_waiting.load(Ordering::Relaxed)),
        ("current_executing_requests", |own| own.executing.load(Ordering::Relaxed)),
        ("current_executing_seats", |own| own.seats.load(Ordering::Relaxed)),
    ];
    for (name, read) in gauges {
        text.head(name, "gauge");
        flows.iter().for_each(|(labels, own)| text.line(name, labels, read(own)));
    }
    type Kept = (&'static str, &'static str, fn(&Statistics) -> &Histogram);
    let histograms: [Kept; 7] = [
        ("request_queue_length_after_enqueue", "", |own| &own.queue_length),
        ("request_wait_duration_seconds", ",execute=\"true\"", |own| &own.waited),
        ("request_wait_duration_seconds", ",execute=\"false\"", |own| &own.waited_in_vain),
        ("request_execution_seconds", ",type=\"regular\"", |own| &own.regular),
        ("request_execution_seconds", ",type=\"watch\"", |own| &own.watch),
        ("work_estimated_seats", "", |own| &own.estimated),
        ("watch_count_samples", "", |own| &own.watches),
    ];
    let mut last = "";
    for (name, label, read) in histograms {
        if name != last {
            text.head(name, "histogram");
        }
        last = name;
        for (labels, own) in &flows {
            let (buckets, count, sum) = read(own).buckets();
            if count > 0 {
                text.histogram(name, &format!("{labels}{label}"), buckets, count, sum);
            }
        }
    }
}

fn of_limits(text: &mut Text, configuration: &Configuration) {
    type Gauge = (&'static str, fn(&Entry) -> f64);
    let gauges: [Gauge; 8] = [
        ("nominal_limit_seats", |entry| entry.limits.nominal as f64),
        ("lower_limit_seats", |entry| entry.limits.min as f64),
        ("upper_limit_seats", |entry| entry.limits.max as f64),
        ("demand_seats_high_watermark", |entry| entry.demand.high_watermark as f64),
        ("demand_seats_average", |entry| entry.demand.average),
        ("demand_seats_stdev", |entry| entry.demand.deviation),
        ("demand_seats_smoothed", |entry| entry.demand.smoothed),
        ("target_seats", |entry| entry.target),
    ];
    for (name, read) in gauges {
        text.head(name, "gauge");
        for entry in configuration.entries() {
            text.line(name, &level_label(&entry.level.name), read(entry));
        }
    }
    text.head("seat_fair_frac", "gauge");
    text.line("seat_fair_frac", "", configuration.fair_fraction());
}

fn level_label(name: &str) -> String {
    format!("priority_level=\"{name}\"")
}

fn of_queues(text: &mut Text, configuration: &Configuration) {
    let levels: Vec<Shown> = configuration
        .entries()
        .map(|entry| {
            let (ratios, (r, meters), seats) =
                entry.level.with(|set, now| (set.ratios_until(now), set.meters(), set.limit()));
            Shown { name: entry.level.name.clone(), ratios, r, meters, seats }
        })
        .collect();
    type Gauge = (&'static str, &'static str, fn(&Shown) -> f64);
    let gauges: [Gauge; 8] = [
        ("current_limit_seats", "", |level| level.seats as f64),
        ("current_r", "", |level| level.r),
        ("dispatch_r", "", |level| level.meters.dispatch_r),
        ("latest_s", "", |level| level.meters.latest_s),
        ("next_s_bounds", ",bound=\"min\"", |level| level.meters.next_s.0),
        ("next_s_bounds", ",bound=\"max\"", |level| level.meters.next_s.1),
        ("next_discounted_s_bounds", ",bound=\"min\"", |level| level.meters.next_discounted_s.0),
        ("next_discounted_s_bounds", ",bound=\"max\"", |level| level.meters.next_discounted_s.1),
    ];
    let mut last = "";
    for (name, label, read) in gauges {
        if name != last {
            text.head(name, "gauge");
        }
        last = name;
        for level in &levels {
            text.line(name, &format!("{}{label}", level_label(&level.name)), read(level));
        }
    }
    type Timed = (&'static str, &'static str, fn(&Ratios) -> &super::ratio::Timed);
    let timed: [Timed; 4] = [
        ("priority_level_seat_utilization", ",phase=\"executing\"", |ratios| &ratios.seats),
        ("priority_level_request_utilization", ",phase=\"waiting\"", |ratios| &ratios.waiting),
        ("priority_level_request_utilization", ",phase=\"executing\"", |ratios| &ratios.executing),
        ("demand_seats", "", |ratios| &ratios.demand),
    ];
    let mut last = "";
    for (name, label, read) in timed {
        if name != last {
            text.head(name, "histogram");
        }
        last = name;
        for level in &levels {
            let (buckets, count, sum) = read(&level.ratios).buckets();
            text.histogram(name, &format!("{}{label}", level_label(&level.name)), buckets, count, sum);
        }
    }
}

/// Text as Prometheus reads it. Names of levels and schemas have no character that would have to be escaped.
#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str) {
        // Writing into a string does not fail.
        let _ = writeln!(self.0, "# TYPE apiserver_flowcontrol_{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        let _ = writeln!(self.0, "apiserver_flowcontrol_{name}{open}{labels}{close} {value}");
    }

    fn histogram(
        &mut self,
        name: &str,
        labels: &str,
        buckets: impl IntoIterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) {
        let bucket = format!("{name}_bucket");
        for (bound, so_far) in buckets {
            self.line(&bucket, &format!("{labels},le=\"{bound}\""), so_far);
        }
        self.line(&bucket, &format!("{labels},le=\"+Inf\""), count);
        self.line(&format!("{name}_sum"), labels, sum);
        self.line(&format!("{name}_count"), labels, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_written_as_prometheus_reads_them() {
        let mut text = Text::default();
        text.head("x", "histogram");
        text.histogram("x", "a=\"b\"", [(0.5, 1), (1.0, 2)], 3, 4.5);
        text.line("y", "", 1);
        let expected = "# TYPE apiserver_flowcontrol_x histogram\n\
            apiserver_flowcontrol_x_bucket{a=\"b\",le=\"0.5\"} 1\n\
            apiserver_flowcontrol_x_bucket{a=\"b\",le=\"1\"} 2\n\
            apiserver_flowcontrol_x_bucket{a=\"b\",le=\"+Inf\"} 3\n\
            apiserver_flowcontrol_x_sum{a=\"b\"} 4.5\n\
            apiserver_flowcontrol_x_count{a=\"b\"} 3\n\
            apiserver_flowcontrol_y 1\n";
        assert_eq!(text.0, expected);
    }
}
