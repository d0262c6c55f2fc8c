//! Points in time.

use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Zoned};

use crate::cel::eval::Fault;

/// Seconds of the first and the last moment there are: the years 1 to 9999.
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;

/// A point in time and the offset it was written with.
#[derive(Clone, Copy, Debug)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
    /// Seconds east of UTC.
    pub offset: i32,
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Self) -> bool {
        self.instant() == other.instant()
    }
}

impl Timestamp {
    /// A moment in UTC, if there is such a moment.
    ///
    /// # Errors
    /// When it is before the year 1 or after 9999.
    pub fn new(seconds: i64, nanos: u32, offset: i32) -> Result<Self, Fault> {
        match (FIRST..=LAST).contains(&seconds) {
            true => Ok(Self { seconds, nanos, offset }),
            false => Err(Fault::new("timestamp overflow")),
        }
    }

    /// Reads an RFC 3339 time.
    ///
    /// # Errors
    /// When it is none, or out of range.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let bad = || Fault::new("type conversion error from 'string' to 'google.protobuf.Timestamp'");
        let (seconds, nanos) = crate::schema::parse_time(text).map_err(|_| bad())?;
        Self::new(seconds, nanos, offset_of(text))
    }

    pub(super) fn is_zero(self) -> bool {
        self.seconds == FIRST && self.nanos == 0
    }

    pub(super) fn instant(self) -> (i64, u32) {
        (self.seconds, self.nanos)
    }

    /// The moment `nanos` later.
    pub(super) fn plus(self, nanos: i64) -> Result<Self, Fault> {
        let total = i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos) + i128::from(nanos);
        let seconds =
            i64::try_from(total.div_euclid(1_000_000_000)).map_err(|_| Fault::new("timestamp overflow"))?;
        Self::new(seconds, total.rem_euclid(1_000_000_000) as u32, self.offset)
    }

    /// Nanoseconds from `other` to this.
    pub(super) fn since(self, other: Self) -> Result<i64, Fault> {
        let seconds = i128::from(self.seconds) - i128::from(other.seconds);
        let total = seconds * 1_000_000_000 + i128::from(self.nanos) - i128::from(other.nanos);
        i64::try_from(total).map_err(|_| Fault::new("timestamp overflow"))
    }

    /// The time shown by clocks in a zone: a name, or an offset such as `-08:00`; UTC if none is given.
    ///
    /// # Errors
    /// When there is no such zone.
    pub fn in_zone(self, zone: Option<&str>) -> Result<Zoned, Fault> {
        let zone = match zone {
            None => TimeZone::UTC,
            Some(zone) => find_zone(zone)?,
        };
        let moment = jiff::Timestamp::new(self.seconds, self.nanos as i32)
            .map_err(|_| Fault::new("timestamp overflow"))?;
        Ok(moment.to_zoned(zone))
    }

    /// As RFC 3339, with its own offset and as many digits of a second as it has.
    #[must_use]
    pub fn format(self) -> String {
        let local = crate::schema::format_time(self.seconds + i64::from(self.offset));
        let mut out = local.trim_end_matches('Z').to_owned();
        if self.nanos > 0 {
            let fraction = format!("{:09}", self.nanos);
            out.push('.');
            out.push_str(fraction.trim_end_matches('0'));
        }
        if self.offset == 0 {
            out.push('Z');
        } else {
            let sign = if self.offset < 0 { '-' } else { '+' };
            let minutes = self.offset.abs() / 60;
            out.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
        }
        out
    }
}

/// Seconds east of UTC at the end of an RFC 3339 time.
fn offset_of(text: &str) -> i32 {
    let Some(tail) = text.len().checked_sub(6).and_then(|at| text.get(at..)) else { return 0 };
    let sign = match tail.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return 0,
    };
    let number = |range: std::ops::Range<usize>| tail.get(range).and_then(|text| text.parse::<i32>().ok());
    match (number(1..3), number(4..6)) {
        (Some(hours), Some(minutes)) => sign * (hours * 60 + minutes) * 60,
        _ => 0,
    }
}

fn find_zone(zone: &str) -> Result<TimeZone, Fault> {
    let Some((hours, minutes)) = zone.split_once(':') else {
        if matches!(zone, "" | "UTC") {
            return Ok(TimeZone::UTC);
        }
        return TimeZone::get(zone).map_err(|_| Fault::new(format!("unknown time zone {zone}")));
    };
    let number = |text: &str| {
        text.parse::<i32>().map_err(|_| {
            Fault::new(format!(
                "strconv.Atoi: parsing {}: invalid syntax",
                crate::schema::scalar::go_quote(text)
            ))
        })
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let total = i64::from(hours) * 60 + i64::from(if zone.starts_with('-') { -minutes } else { minutes });
    let offset = Offset::UTC.checked_add(SignedDuration::from_mins(total));
    offset.map(TimeZone::fixed).map_err(|_| Fault::new(format!("unknown time zone {zone}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_offset() {
        for text in
            ["2009-02-13T23:31:30Z", "2011-10-05T14:48:00.001+02:30", "1901-01-01T00:00:00.000000001-08:00"]
        {
            assert_eq!(Timestamp::parse(text).map(Timestamp::format).ok().as_deref(), Some(text));
        }
        assert_eq!(Timestamp::parse("2020-01-01T00:00:00Z"), Timestamp::parse("2020-01-01T01:00:00+01:00"));
        assert!(Timestamp::parse("0000-00-00T00:00:00Z").is_err());
    }
}
