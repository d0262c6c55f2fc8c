//! Cron schedules: five fields, names, ranges, steps, and the usual short forms.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// When something is to happen, over and over.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// At the moments that the fields match.
    Fields(Box<Fields>),
    /// At a fixed distance.
    Every(SignedDuration),
}

/// The moments that match, in a time zone.
#[derive(Clone, Debug)]
pub struct Fields {
    minutes: Field,
    hours: Field,
    days: Field,
    months: Field,
    weekdays: Field,
    zone: TimeZone,
}

#[derive(Clone, Debug)]
struct Field {
    bits: u64,
    any: bool,
}

impl Field {
    fn has(&self, value: u8) -> bool {
        self.bits & (1 << value) != 0
    }
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    /// Reads a schedule. A `TZ=` in it counts more than the zone given beside it.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, String> {
        let mut text = text.trim();
        let mut zone = zone.map(str::to_owned);
        if let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            let (name, rest) = rest.split_once(' ').ok_or("no schedule after the time zone")?;
            zone = Some(name.to_owned());
            text = rest.trim();
        }
        let zone = match zone.as_deref() {
            None | Some("" | "UTC") => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| format!("provided bad location {name}"))?,
        };
        if let Some(distance) = text.strip_prefix("@every ") {
            let every = client::leader::parse_duration(distance.trim())?;
            let every = SignedDuration::try_from(every).map_err(|error| error.to_string())?;
            return Ok(Self::Every(SignedDuration::from_secs(every.as_secs().max(1))));
        }
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<_> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: {fields:?}", fields.len()));
        };
        Ok(Self::Fields(Box::new(Fields {
            minutes: field(minutes, 0, 59, &[])?,
            hours: field(hours, 0, 23, &[])?,
            days: field(days, 1, 31, &[])?,
            months: field(months, 1, 12, &MONTHS)?,
            weekdays: field(weekdays, 0, 6, &DAYS)?,
            zone,
        })))
    }

    /// The first moment after `after`; `None` when there is none within five years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(distance) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(*distance).ok()
            }
            Self::Fields(fields) => fields.next(after),
        }
    }
}

impl Fields {
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let mut date = after.to_zoned(self.zone.clone()).date();
        for _ in 0..5 * 366 {
            if self.has_day(date)
                && let Some(found) = self.on_day(date, after)
            {
                return Some(found);
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    /// When both days are restricted, either may match.
    fn has_day(&self, date: Date) -> bool {
        let small = |number: i8| u8::try_from(number).unwrap_or(0);
        let day = self.days.has(small(date.day()));
        let weekday = self.weekdays.has(small(date.weekday().to_sunday_zero_offset()));
        let days = if self.days.any || self.weekdays.any { day && weekday } else { day || weekday };
        self.months.has(small(date.month())) && days
    }

    fn on_day(&self, date: Date, after: Timestamp) -> Option<Timestamp> {
        let hours = (0..24).filter(|hour| self.hours.has(*hour));
        for (hour, minute) in hours.flat_map(|hour| (0..60).map(move |minute| (hour, minute))) {
            if !self.minutes.has(minute) {
                continue;
            }
            let time = Time::new(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0).ok()?;
            let wall = date.to_datetime(time);
            let zoned = self.zone.to_zoned(wall).ok()?;
            // A time that the clock skips does not happen.
            if zoned.datetime() == wall && zoned.timestamp() > after {
                return Some(zoned.timestamp());
            }
        }
        None
    }
}

fn field(text: &str, min: u8, max: u8, names: &[&str]) -> Result<Field, String> {
    let mut field = Field { bits: 0, any: false };
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let bad = || format!("failed to parse {part:?}");
        let (first, last) = match range {
            "*" | "?" => {
                field.any |= step.is_none_or(|step| step == "1");
                (min, max)
            }
            _ => match range.split_once('-') {
                Some((first, last)) => (value(first, min, names)?, value(last, min, names)?),
                None => {
                    let first = value(range, min, names)?;
                    (first, if step.is_some() { max } else { first })
                }
            },
        };
        let step: u8 = step.map_or(Ok(1), |step| step.parse().map_err(|_| bad()))?;
        // Sunday may be 7 at the end of a range, as people write it.
        if first < min || last > max || first > last || step == 0 {
            return Err(format!("{part:?} is not within {min}-{max}"));
        }
        (first..=last).step_by(usize::from(step)).for_each(|value| field.bits |= 1 << value);
    }
    Ok(field)
}

fn value(text: &str, min: u8, names: &[&str]) -> Result<u8, String> {
    let lower = text.to_ascii_lowercase();
    if let Some(position) = names.iter().position(|name| *name == lower) {
        return Ok(min + u8::try_from(position).unwrap_or(0));
    }
    text.parse().map_err(|_| format!("failed to parse number {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, zone: Option<&str>, after: &str) -> String {
        let after: Timestamp = after.parse().expect("a time");
        let schedule = Schedule::parse(schedule, zone).expect("a schedule");
        schedule.next(after).map_or_else(|| "never".to_owned(), |at| at.to_string())
    }

    #[test]
    fn next_moments() {
        for (schedule, after, expected) in [
            ("* * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"),
            ("0 12 * * MON-FRI", "2026-01-02T12:00:00Z", "2026-01-05T12:00:00Z"),
            ("30 6 1,15 * *", "2026-01-01T06:30:00Z", "2026-01-15T06:30:00Z"),
            ("0 0 13 * 5", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 29 feb ?", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 31 2 *", "2026-01-01T00:00:00Z", "never"),
            ("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
            ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@every 1m30s", "2026-01-01T00:00:00.5Z", "2026-01-01T00:01:30Z"),
            ("5/20 * * * *", "2026-01-01T00:05:00Z", "2026-01-01T00:25:00Z"),
        ] {
            assert_eq!(next(schedule, None, after), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for schedule in ["", "* * * *", "60 * * * *", "* * 0 * *", "x * * * *", "*/0 * * * *", "5-1 * * * *"]
        {
            assert!(Schedule::parse(schedule, None).is_err(), "{schedule}");
        }
        assert!(Schedule::parse("* * * * *", Some("Not/AZone")).is_err());
    }
}
