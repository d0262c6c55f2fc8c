//! Applying the table: the difference to what was applied last, as one transaction of `nft`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::Instant;

use super::{Collection, TABLE, Table};
use crate::model::Family;

/// Kernels before 6.2 notice only after a while that no map leads to a chain any more.
const STALE: Duration = Duration::from_secs(1);

/// Applies tables of one family.
pub struct Applier {
    family: &'static str,
    /// What is in the kernel, as far as we know; none before the first success and after a failure.
    applied: Option<Table>,
    /// Chains that are empty and to be removed.
    stale: Vec<(String, Instant)>,
}

impl Applier {
    /// Nothing applied yet.
    #[must_use]
    pub fn new(family: Family) -> Self {
        let family = if family == Family::V4 { "ip" } else { "ip6" };
        Self { family, applied: None, stale: vec![] }
    }

    /// Whether anything was applied and is believed to be still there.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        self.applied.is_some()
    }

    /// Makes the kernel's table that one.
    ///
    /// # Errors
    /// nft failed; the next call writes everything again.
    pub async fn apply(&mut self, table: &Table) -> Result<()> {
        let before = self.applied.take();
        let text = match &before {
            Some(before) => {
                self.remove_stale(table).await?;
                difference(self.family, before, table)
            }
            None => {
                self.stale.clear();
                full(self.family, table)
            }
        };
        if !text.is_empty() {
            let failed = metrics::counter!("kubeproxy_sync_proxy_rules_nftables_sync_failures_total");
            nft(&["-f", "-"], &text).await.inspect_err(|_| failed.increment(1))?;
        }
        let gone = before
            .iter()
            .flat_map(|before| before.chains.keys())
            .filter(|name| !table.chains.contains_key(*name));
        let now = Instant::now();
        self.stale.extend(gone.map(|name| (name.clone(), now)));
        self.applied = Some(table.clone());
        Ok(())
    }

    async fn remove_stale(&mut self, table: &Table) -> Result<()> {
        self.stale.retain(|(name, _)| !table.chains.contains_key(name));
        let (old, young): (Vec<_>, Vec<_>) =
            self.stale.drain(..).partition(|(_, since)| since.elapsed() >= STALE);
        self.stale = young;
        let text: String =
            old.iter().map(|(name, _)| format!("delete chain {} {TABLE} {name}\n", self.family)).collect();
        if text.is_empty() { Ok(()) } else { nft(&["-f", "-"], &text).await.map(drop) }
    }

    /// Notices if somebody removed the table: then the next apply writes everything.
    ///
    /// # Errors
    /// nft cannot be run.
    pub async fn check(&mut self) -> Result<()> {
        let arguments = ["list", "chain", self.family, TABLE, "services"];
        let output = Command::new("nft").args(arguments).output().await.context("run nft")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !text.contains("@service-ips") {
            self.applied = None;
        }
        Ok(())
    }
}

async fn nft(arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new("nft");
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().context("run nft (is nftables installed?)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "nft failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The table anew: old and new change places in one moment.
pub(super) fn full(family: &str, table: &Table) -> String {
    let anew = format!("add table {family} {TABLE}\ndelete table {family} {TABLE}\n");
    let comment = format!("add table {family} {TABLE} {{ comment \"rules for kube-proxy\" ; }}\n");
    anew + &comment + &difference(family, &Table::default(), table)
}

/// What takes `before` to `after`. Nothing if they are equal. What is named must be there already, and what is removed
/// must not be named any more: so declarations come first, then rules and elements, and removals last.
pub(super) fn difference(family: &str, before: &Table, after: &Table) -> String {
    let mut text = Transaction { family, text: String::new() };
    let none = Collection::default();
    for (name, collection) in &after.collections {
        if before.collections.get(name).is_none_or(|old| old.declaration != collection.declaration) {
            text.line(
                &format!("add {}", collection.kind),
                &format!("{name} {{ {} }}", collection.declaration),
            );
        }
    }
    for name in after.chains.keys().filter(|name| !before.chains.contains_key(*name)) {
        let hook = after.hooks.get(name.as_str()).map(|hook| format!(" {{ {hook} }}")).unwrap_or_default();
        text.line("add chain", &format!("{name}{hook}"));
    }
    for (name, rules) in &after.chains {
        match before.chains.get(name) {
            Some(old) if old == rules => continue,
            Some(_) => text.line("flush chain", name),
            // A chain that was to be removed may be there still.
            None if !before.chains.is_empty() => text.line("flush chain", name),
            None => {}
        }
        for rule in rules {
            text.line("add rule", &format!("{name} {rule}"));
        }
    }
    for (name, collection) in &after.collections {
        text.elements(name, before.collections.get(name).unwrap_or(&none), collection);
    }
    for name in before.chains.keys().filter(|name| !after.chains.contains_key(*name)) {
        text.line("flush chain", name);
    }
    for (name, old) in before.collections.iter().filter(|(name, _)| !after.collections.contains_key(*name)) {
        text.line(&format!("delete {}", old.kind), name);
    }
    text.text
}

struct Transaction<'a> {
    family: &'a str,
    text: String,
}

impl Transaction<'_> {
    fn line(&mut self, verb: &str, rest: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{verb} {} {TABLE} {rest}", self.family);
    }

    /// A changed value is removed before it is added.
    fn elements(&mut self, name: &str, before: &Collection, after: &Collection) {
        let removed: BTreeSet<_> =
            before.elements.iter().filter(|(key, value)| after.elements.get(*key) != Some(*value)).collect();
        for (key, _) in removed {
            self.line("delete element", &format!("{name} {{ {key} }}"));
        }
        let added = after.elements.iter().filter(|(key, value)| before.elements.get(*key) != Some(*value));
        let added: Vec<_> = added
            .map(|(key, value)| if value.is_empty() { key.clone() } else { format!("{key} : {value}") })
            .collect();
        if !added.is_empty() {
            self.line("add element", &format!("{name} {{ {} }}", added.join(" , ")));
        }
    }
}

/// Removes the tables.
///
/// # Errors
/// nft failed. That it is not installed is no failure: then there is nothing to remove.
pub async fn cleanup() -> Result<()> {
    if !is_installed().await {
        return Ok(());
    }
    for family in ["ip", "ip6"] {
        // Added first, so that it is there to be removed.
        nft(&["-f", "-"], &format!("add table {family} {TABLE}\ndelete table {family} {TABLE}\n")).await?;
    }
    Ok(())
}

async fn is_installed() -> bool {
    Command::new("nft").arg("--version").output().await.is_ok_and(|output| output.status.success())
}
