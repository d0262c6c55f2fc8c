//! The end of a log.

use std::io::SeekFrom;
use std::path::Path;

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::parse;

const BLOCK: u64 = 4096;

/// Offset of the last `lines` lines, read by blocks from the end.
pub async fn tail_start(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let end = file.seek(SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok(end);
    }
    let mut block = vec![0; BLOCK as usize];
    let mut left = end;
    let mut newlines = 0;
    while left > 0 {
        let size = left.min(BLOCK);
        left -= size;
        file.seek(SeekFrom::Start(left)).await?;
        let bytes = &mut block[..size as usize];
        file.read_exact(bytes).await?;
        for (at, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            // A newline at the very end closes the last line and does not begin one.
            if left + at as u64 + 1 == end {
                continue;
            }
            newlines += 1;
            if newlines == lines {
                return Ok(left + at as u64 + 1);
            }
        }
    }
    Ok(0)
}

/// The last `lines` lines of a log without their heads, at most `bytes` from the end.
pub async fn tail(path: &Path, lines: u64, bytes: usize) -> std::io::Result<String> {
    let mut file = File::open(path).await?;
    let start = tail_start(&mut file, lines).await?;
    file.seek(SeekFrom::Start(start)).await?;
    let mut raw = Vec::new();
    file.read_to_end(&mut raw).await?;
    let mut content = Vec::new();
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        if let Some(line) = parse(line) {
            content.extend_from_slice(line.content);
        }
    }
    let cut = content.len().saturating_sub(bytes);
    Ok(String::from_utf8_lossy(&content[cut..]).into_owned())
}
