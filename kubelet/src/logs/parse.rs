//! One line of a log in the format of the container runtime interface: `TIME STREAM TAG CONTENT`.

use jiff::Timestamp;

/// Where a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was written.
    pub time: Timestamp,
    /// The time as it stands in the log.
    pub time_text: &'a str,
    /// Where it was written to.
    pub stream: Stream,
    /// More of this line follows.
    pub partial: bool,
    /// Its bytes; the newline is there unless the line is partial.
    pub content: &'a [u8],
}

/// Reads a line with its newline; `None` when it has another form.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut rest = line;
    let mut word = || {
        let at = rest.iter().position(|byte| *byte == b' ')?;
        let (word, after) = rest.split_at(at);
        rest = after.get(1..)?;
        std::str::from_utf8(word).ok()
    };
    let time_text = word()?;
    let time = time_text.parse().ok()?;
    let stream = match word()? {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
    let partial = word()?.split(':').next() == Some("P");
    let content = if partial { rest.strip_suffix(b"\n").unwrap_or(rest) } else { rest };
    Some(Line { time, time_text, stream, partial, content })
}

impl Line<'_> {
    /// The time with nine digits of a second, as `kubectl logs --timestamps` shows it.
    #[must_use]
    pub fn fixed_time(&self) -> String {
        let text = self.time_text;
        let zone = text.rfind(['Z', '+', '-']).filter(|at| *at > 10).unwrap_or(text.len());
        let (time, zone) = text.split_at(zone);
        let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
        format!("{seconds}.{fraction:0<9}{zone}")
    }
}
