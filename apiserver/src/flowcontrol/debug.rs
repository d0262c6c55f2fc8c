//! What is going on, as tables of text below `/debug/api_priority_and_fairness/` (upstream
//! `apf_controller_debug.go`).

use std::time::Duration;

use jiff::Timestamp;

use super::FlowControl;
use super::level::Rider;
use super::queueset::{Row, Time};

/// Where the tables are.
const PREFIX: &str = "/debug/api_priority_and_fairness/";
/// The time of what has not happened.
const NEVER: &str = "0001-01-01T00:00:00Z";

const LEVELS: [&str; 10] = [
    "PriorityLevelName",
    "ActiveQueues",
    "IsIdle",
    "IsQuiescing",
    "WaitingRequests",
    "ExecutingRequests",
    "DispatchedRequests",
    "RejectedRequests",
    "TimedoutRequests",
    "CancelledRequests",
];
const QUEUES: [&str; 9] = [
    "PriorityLevelName",
    "Index",
    "PendingRequests",
    "ExecutingRequests",
    "SeatsInUse",
    "NextDispatchR",
    "InitialSeatsSum",
    "MaxSeatsSum",
    "TotalWorkSum",
];
// One of them is misspelt, as upstream.
const REQUESTS: [&str; 10] = [
    "PriorityLevelName",
    "FlowSchemaName",
    "QueueIndex",
    "RequestIndexInQueue",
    "FlowDistingsher",
    "ArriveTime",
    "InitialSeats",
    "FinalSeats",
    "AdditionalLatency",
    "StartTime",
];
const DETAILS: [&str; 8] =
    ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];

type Cells = Vec<String>;

impl FlowControl {
    /// The table at a path, if there is one. `details` are of requests.
    #[must_use]
    pub fn dump(&self, path: &str, details: bool) -> Option<String> {
        let rows = match path.strip_prefix(PREFIX)? {
            "dump_priority_levels" => self.dump_levels(),
            "dump_queues" => self.dump_queues(),
            "dump_requests" => self.dump_requests(details),
            _ => return None,
        };
        Some(align(&rows))
    }

    fn dump_levels(&self) -> Vec<Cells> {
        let configuration = self.configuration.lock();
        let levels = configuration.entries().map(|entry| {
            let (dump, idle) = entry.level.with(|set, _| (set.dump(), set.is_idle()));
            let active = dump.queues.iter().filter(|queue| queue.waiting > 0).count();
            let mut cells = vec![entry.level.name.clone(), active.to_string()];
            cells.extend([idle, entry.quiescing].map(|is| is.to_string()));
            cells.extend([dump.waiting, dump.executing].map(|count| count.to_string()));
            let counts = dump.counts;
            // Nothing is counted as timed out, as upstream.
            cells.extend(
                [counts.dispatched, counts.rejected, 0, counts.cancelled].map(|count| count.to_string()),
            );
            cells
        });
        std::iter::once(header(&LEVELS)).chain(levels).collect()
    }

    fn dump_queues(&self) -> Vec<Cells> {
        let mut rows = vec![header(&QUEUES)];
        for entry in self.configuration.lock().entries() {
            let dump = entry.level.with(|set, _| set.dump());
            rows.extend(dump.queues.iter().enumerate().map(|(index, queue)| {
                vec![
                    entry.level.name.clone(),
                    index.to_string(),
                    queue.waiting.to_string(),
                    queue.executing.to_string(),
                    queue.seats_in_use.to_string(),
                    queue.next_r.to_string(),
                    queue.initial_seats.to_string(),
                    queue.max_seats.to_string(),
                    queue.work.to_string(),
                ]
            }));
        }
        rows
    }

    fn dump_requests(&self, details: bool) -> Vec<Cells> {
        let mut head = header(&REQUESTS);
        if details {
            head.extend(header(&DETAILS));
        }
        let mut rows = vec![head];
        for entry in self.configuration.lock().entries() {
            entry.level.with(|set, now| {
                set.visit(|row| {
                    let mut cells = request(&entry.level.name, &row, now);
                    if details {
                        cells.extend(of_request(row.passenger));
                    }
                    rows.push(cells);
                });
            });
        }
        rows
    }
}

fn header(names: &[&str]) -> Cells {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn request(level: &str, row: &Row<'_, Rider>, now: Time) -> Cells {
    let place = |place: Option<usize>| place.map_or_else(|| "-1".to_owned(), |place| place.to_string());
    vec![
        level.to_owned(),
        row.passenger.flow.schema.clone(),
        place(row.queue),
        place(row.place),
        row.passenger.distinguisher().to_owned(),
        wall_clock(now.saturating_sub(row.arrival)),
        row.estimate.initial_seats.to_string(),
        row.estimate.final_seats.to_string(),
        short(row.estimate.additional_latency),
        row.since.map_or_else(|| NEVER.to_owned(), |since| wall_clock(now.saturating_sub(since))),
    ]
}

/// As Go writes spans of less than a minute.
fn short(span: Duration) -> String {
    if span.is_zero() { "0s".to_owned() } else { format!("{span:?}") }
}

fn wall_clock(ago: Duration) -> String {
    let ago = jiff::SignedDuration::try_from(ago).unwrap_or_default();
    Timestamp::now().checked_sub(ago).map_or_else(|_| NEVER.to_owned(), |time| time.to_string())
}

fn of_request(rider: &Rider) -> Cells {
    let info = &rider.details.info;
    let version = match info.group.is_empty() {
        true => info.version.clone(),
        false => format!("{}/{}", info.group, info.version),
    };
    let [user, verb, path] = [&rider.details.user.name, &info.verb, &info.path].map(Clone::clone);
    let [namespace, name] = [&info.namespace, &info.name].map(Clone::clone);
    vec![user, verb, path, namespace, name, version, info.resource.clone(), info.subresource.clone()]
}

/// Columns are as wide as their widest cell with a comma and a space, and no narrower than eight characters; the last
/// one is as wide as it is.
fn align(rows: &[Cells]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count() + 2).max().unwrap_or_default().max(8)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            if column + 1 == row.len() {
                text.push_str(cell);
            } else {
                text.push_str(&format!("{:<1$}", format!("{cell},"), widths[column]));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["PriorityLevelName", "Index", "Last"], ["a", "12345678", ""]].map(|row| header(&row));
        let expected = "PriorityLevelName, Index,    Last\na,                 12345678, \n";
        assert_eq!(align(&rows), expected);
    }
}
