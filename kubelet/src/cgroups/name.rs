//! Names of groups, for runtimes that name them as paths and for those that name them as systemd slices.

use std::str::FromStr;

/// Who names groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Paths in the filesystem.
    Cgroupfs,
    /// Slices of systemd.
    Systemd,
}

impl FromStr for Driver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "cgroupfs" => Ok(Self::Cgroupfs),
            "systemd" => Ok(Self::Systemd),
            other => Err(format!("unknown cgroup driver {other:?}")),
        }
    }
}

/// A group, by its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupName(Vec<String>);

impl CgroupName {
    /// The group at `path`.
    #[must_use]
    pub fn root(path: &str) -> Self {
        Self(path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect())
    }

    /// A group below this one.
    #[must_use]
    pub fn child(&self, part: &str) -> Self {
        let mut parts = self.0.clone();
        parts.push(part.to_owned());
        Self(parts)
    }

    /// As an absolute path.
    #[must_use]
    pub fn path(&self, driver: Driver) -> String {
        match driver {
            Driver::Cgroupfs => format!("/{}", self.0.join("/")),
            Driver::Systemd => self.slices(),
        }
    }

    fn slices(&self) -> String {
        let mut prefix = String::new();
        let mut path = String::new();
        for part in &self.0 {
            if !prefix.is_empty() {
                prefix.push('-');
            }
            prefix.push_str(&part.replace('-', "_"));
            path.push_str(&format!("/{prefix}.slice"));
        }
        if path.is_empty() { "/".to_owned() } else { path }
    }

    /// The last part of the child of this group whose directory is called `entry`.
    #[must_use]
    pub fn child_named(&self, entry: &str) -> Option<String> {
        let Some(slice) = entry.strip_suffix(".slice") else { return Some(entry.to_owned()) };
        let own = self.0.iter().map(|part| part.replace('-', "_")).collect::<Vec<_>>().join("-");
        let part = slice.strip_prefix(&format!("{own}-"))?;
        Some(part.replace('_', "-"))
    }
}
