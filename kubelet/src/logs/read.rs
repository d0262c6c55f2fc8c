//! Streams a log: from a time or a number of lines, to its end or as long as its container runs.

use std::future::Future;
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

use super::follow::Follower;
use super::tail::tail_start;
use super::{Line, Stream, parse};

/// How often, without news, the container is asked whether it still runs.
const STATE_CHECK: Duration = Duration::from_secs(1);

/// What is wanted of a log.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stay until the container has ended.
    pub follow: bool,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Only that many lines from the end (and what follows).
    pub tail: Option<u64>,
    /// At most that many bytes.
    pub limit: Option<u64>,
    /// The time before each line.
    pub timestamps: bool,
    /// Only what was written there.
    pub stream: Option<Stream>,
}

/// What becomes of lines on their way out.
struct Writer<'a> {
    options: &'a Options,
    out: &'a mpsc::Sender<io::Result<Bytes>>,
    remain: Option<u64>,
    /// The next line starts a new one.
    fresh: bool,
}

/// Nothing more is wanted.
struct Done;

impl Writer<'_> {
    async fn write(&mut self, line: &Line<'_>) -> Result<(), Done> {
        let fresh = std::mem::replace(&mut self.fresh, !line.partial);
        if self.options.since.is_some_and(|since| line.time < since)
            || self.options.stream.is_some_and(|stream| stream != line.stream)
        {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(line.content.len() + 40);
        if self.options.timestamps && fresh {
            bytes.extend_from_slice(line.fixed_time().as_bytes());
            bytes.push(b' ');
        }
        bytes.extend_from_slice(line.content);
        if let Some(remain) = &mut self.remain {
            bytes.truncate(usize::try_from(*remain).unwrap_or(usize::MAX));
            *remain -= bytes.len() as u64;
        }
        self.out.send(Ok(Bytes::from(bytes))).await.map_err(|_| Done)?;
        if self.remain == Some(0) { Err(Done) } else { Ok(()) }
    }
}

/// Sends the log at `path` to `out`. `is_running` tells whether its container may still write.
pub async fn read<F, Fut>(
    path: &Path,
    options: &Options,
    out: &mpsc::Sender<io::Result<Bytes>>,
    is_running: F,
) -> io::Result<()>
where
    F: Fn() -> Fut,
    Fut: Future<Output = bool>,
{
    if options.limit == Some(0) {
        return Ok(());
    }
    let path = tokio::fs::canonicalize(path).await?;
    // Watched before it is read, so that nothing is written between the two unnoticed.
    let follower = if options.follow { Some(Follower::new(&path).map_err(io::Error::other)?) } else { None };
    let mut reader = open(&path, options.tail).await?;
    let mut writer = Writer { options, out, remain: options.limit, fresh: true };
    let mut line = Vec::new();
    let mut ending = false;
    let mut replaced = false;
    let mut asked = false;
    loop {
        let complete = reader.read_until(b'\n', &mut line).await? > 0 && line.ends_with(b"\n");
        let last = follower.is_none() || ending;
        if complete || (last && !line.is_empty()) {
            if let Some(parsed) = parse(&line)
                && writer.write(&parsed).await.is_err()
            {
                return Ok(());
            }
            line.clear();
            if complete {
                continue;
            }
        }
        let Some(follower) = follower.as_ref().filter(|_| !ending) else { return Ok(()) };
        if !replaced && was_replaced(&path, reader.get_ref()).await {
            // What was written to the old file before it lost its name is read first.
            replaced = true;
            continue;
        }
        if std::mem::take(&mut replaced) {
            reader = open(&path, None).await?;
            line.clear();
            continue;
        }
        // Asked once at the first end of the log, as the container may have ended long ago, and then when nothing comes.
        let changed = std::mem::replace(&mut asked, true)
            && tokio::select! {
                changed = follower.changed(STATE_CHECK) => changed,
                () = out.closed() => return Ok(()),
            };
        // After the container has ended, what it wrote last is read once more.
        ending = !changed && !is_running().await;
    }
}

async fn open(path: &Path, tail: Option<u64>) -> io::Result<BufReader<File>> {
    let mut file = File::open(path).await?;
    if let Some(lines) = tail {
        let start = tail_start(&mut file, lines).await?;
        file.seek(SeekFrom::Start(start)).await?;
    }
    Ok(BufReader::new(file))
}

/// Whether another file has taken the name of the one that is open.
async fn was_replaced(path: &Path, file: &File) -> bool {
    match (tokio::fs::metadata(path).await, file.metadata().await) {
        (Ok(named), Ok(open)) => (named.dev(), named.ino()) != (open.dev(), open.ino()),
        _ => false,
    }
}
