//! Events in a file, one a line, which is put aside when it has grown (upstream's `log` backend).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

/// Where events go and how much of them is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// The file; `-` is the standard output.
    pub path: PathBuf,
    /// The size in megabytes at which the file is put aside; 0 for 100.
    pub max_size: u64,
    /// How many old files are kept; 0 for all.
    pub max_backup: usize,
    /// How many days old files are kept; 0 for ever.
    pub max_age: u64,
}

const MEGABYTE: u64 = 1024 * 1024;
const DEFAULT_SIZE: u64 = 100;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The file, or standard output.
pub struct Log {
    config: LogConfig,
    open: Mutex<Option<(File, u64)>>,
}

impl Log {
    /// Opens the file.
    ///
    /// # Errors
    /// When it cannot be opened or made.
    pub fn open(config: LogConfig) -> io::Result<Self> {
        let open = match config.path.to_str() {
            Some("-") => None,
            _ => {
                if let Some(folder) = config.path.parent() {
                    fs::create_dir_all(folder)?;
                }
                Some(append(&config.path)?)
            }
        };
        Ok(Self { config, open: Mutex::new(open) })
    }

    /// Writes one line; it is in the file when this returns.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut open = self.open.lock();
        let Some((file, size)) = open.as_mut() else { return io::stdout().lock().write_all(line) };
        let most = MEGABYTE * if self.config.max_size == 0 { DEFAULT_SIZE } else { self.config.max_size };
        if *size > 0 && *size + line.len() as u64 > most {
            self.put_aside()?;
            (*file, *size) = append(&self.config.path)?;
        }
        file.write_all(line)?;
        *size += line.len() as u64;
        Ok(())
    }

    fn put_aside(&self) -> io::Result<()> {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S.%3f").to_string();
        fs::rename(&self.config.path, self.backup(&now))?;
        for old in superfluous(self.backups()?, &self.config, SystemTime::now()) {
            fs::remove_file(old)?;
        }
        Ok(())
    }

    /// The name of an old file: with the time before the extension.
    fn backup(&self, time: &str) -> PathBuf {
        let (stem, extension) = self.name_parts();
        self.config.path.with_file_name(format!("{stem}-{time}{extension}"))
    }

    fn name_parts(&self) -> (String, String) {
        let part = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned());
        let extension = part(self.config.path.extension()).map(|e| format!(".{e}")).unwrap_or_default();
        (part(self.config.path.file_stem()).unwrap_or_default(), extension)
    }

    /// Old files with the time they were last written, newest first.
    fn backups(&self) -> io::Result<Vec<(PathBuf, SystemTime)>> {
        let (stem, extension) = self.name_parts();
        let mut found = vec![];
        for entry in fs::read_dir(self.config.path.parent().unwrap_or(Path::new(".")))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("{stem}-")) && name.ends_with(&extension) {
                found.push((entry.path(), entry.metadata()?.modified()?));
            }
        }
        found.sort_by(|a, b| b.cmp(a));
        Ok(found)
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// The old files that are too many or too old; `found` is sorted, newest first.
fn superfluous(found: Vec<(PathBuf, SystemTime)>, config: &LogConfig, now: SystemTime) -> Vec<PathBuf> {
    let too_old = |modified: SystemTime| {
        config.max_age > 0
            && now
                .duration_since(modified)
                .is_ok_and(|age| age > DAY * u32::try_from(config.max_age).unwrap_or(u32::MAX))
    };
    let goes = |(i, (_, modified)): &(usize, (PathBuf, SystemTime))| {
        config.max_backup > 0 && *i >= config.max_backup || too_old(*modified)
    };
    found.into_iter().enumerate().filter(goes).map(|(_, (path, _))| path).collect()
}

#[cfg(test)]
mod tests {
    use super::super::event::Event;
    use super::super::policy::Level;
    use super::*;

    fn event(text: &str) -> Vec<u8> {
        Event::new(Level::Metadata, text.to_owned(), String::new()).line()
    }

    #[test]
    fn a_file_that_has_grown_is_put_aside_and_few_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log/audit.log");
        let config = LogConfig { path: path.clone(), max_size: 1, max_backup: 2, max_age: 0 };
        let log = Log::open(config).expect("a log");
        let long = "x".repeat(700 * 1024);
        for _ in 0..6 {
            log.write(&event(&long)).expect("written");
        }
        assert_eq!(log.backups().expect("a folder").len(), 2, "of five old files two are kept");
        let lines = std::fs::read_to_string(&path).expect("a file");
        assert_eq!(lines.lines().count(), 1);
    }

    #[test]
    fn what_was_written_before_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        for text in ["one", "two"] {
            let log = Log::open(LogConfig { path: path.clone(), ..LogConfig::default() }).expect("a log");
            log.write(&event(text)).expect("written");
        }
        let lines = std::fs::read_to_string(&path).expect("a file");
        let ids: Vec<_> =
            lines.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).expect("JSON")).collect();
        assert_eq!(
            ids.iter().map(|e| e["auditID"].as_str().expect("text")).collect::<Vec<_>>(),
            ["one", "two"]
        );
    }

    #[test]
    fn old_files_go_by_number_and_age() {
        let now = SystemTime::UNIX_EPOCH + DAY * 100;
        let found = |ages: &[u32]| -> Vec<_> {
            ages.iter().map(|age| (PathBuf::from(age.to_string()), now - DAY * *age)).collect()
        };
        for (max_backup, max_age, gone) in
            [(0, 0, vec![]), (2, 0, vec!["5", "9"]), (0, 3, vec!["5", "9"]), (1, 7, vec!["2", "5", "9"])]
        {
            let config = LogConfig { max_backup, max_age, ..LogConfig::default() };
            let wanted: Vec<PathBuf> = gone.iter().map(PathBuf::from).collect();
            assert_eq!(superfluous(found(&[1, 2, 5, 9]), &config, now), wanted, "{max_backup} {max_age}");
        }
    }
}
