//! Durations for people (upstream `util/duration.HumanDuration`): `5s`, `3m20s`, `2d4h`.

use jiff::SignedDuration;

/// A duration with two units at most, coarser as it grows.
#[must_use]
pub fn human(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let pair = |major: i64, minor: i64, units: (&str, &str)| {
        if minor == 0 {
            format!("{major}{}", units.0)
        } else {
            format!("{major}{}{minor}{}", units.0, units.1)
        }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, seconds % 60, ("m", "s")),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, minutes % 60, ("h", "m")),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(hours / 24, hours % 24, ("d", "h")),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => pair(hours / 24 / 365, hours / 24 % 365, ("y", "d")),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_grow_coarser() {
        let (minute, hour, day) = (60, 3600, 86400);
        let cases = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (10 * minute, "10m"),
            (179 * minute, "179m"),
            (3 * hour, "3h"),
            (3 * hour + minute, "3h1m"),
            (8 * hour, "8h"),
            (47 * hour, "47h"),
            (2 * day, "2d"),
            (2 * day + hour, "2d1h"),
            (8 * day, "8d"),
            (729 * day, "729d"),
            (730 * day, "2y"),
            (731 * day, "2y1d"),
            (8 * 365 * day, "8y"),
        ];
        for (seconds, want) in cases {
            assert_eq!(human(SignedDuration::from_secs(seconds)), want, "{seconds}");
        }
    }
}
