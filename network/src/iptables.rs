//! Packet rules: what this node's pod network has of them, and how they get into the kernel. Each change is one
//! `iptables-restore --noflush` (`ip6tables-restore`: the families' rules are apart); chains that are not ours are never
//! written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::address::{Family, Range};
use crate::policy::{self, Chains};

const MASQUERADE: &str = "COXSWAIN-MASQ";
const FORWARD: &str = "COXSWAIN-FORWARD";
/// Where the kernel's own chains lead into ours: table, chain, our chain.
const JUMPS: [(&str, &str, &str); 3] =
    [("mangle", "FORWARD", policy::ROOT), ("nat", "POSTROUTING", MASQUERADE), ("filter", "FORWARD", FORWARD)];

/// Our chains, by table.
pub type Tables = BTreeMap<&'static str, Chains>;

/// Pods go out behind the node's address, and are forwarded even where forwarding is denied by default; and what the
/// policies say.
#[must_use]
pub fn tables(cluster: Range, policies: Chains) -> Tables {
    let masquerade = format!(
        "-s {cluster} ! -d {cluster} -m addrtype ! --dst-type MULTICAST -j MASQUERADE --random-fully"
    );
    let forward = vec![format!("-s {cluster} -j ACCEPT"), format!("-d {cluster} -j ACCEPT")];
    Tables::from([
        ("nat", Chains::from([(MASQUERADE.to_owned(), vec![masquerade])])),
        ("filter", Chains::from([(FORWARD.to_owned(), forward)])),
        ("mangle", policies),
    ])
}

fn is_ours(chain: &str) -> bool {
    JUMPS.iter().any(|(_, _, own)| *own == chain) || chain.starts_with(policy::PREFIX)
}

/// Brings the kernel's rules of one family in step.
pub struct Applier {
    family: Family,
    /// What is in the kernel, as far as we know; none before the first success and after a failure.
    applied: Option<Tables>,
}

impl Applier {
    /// Of this family; nothing written yet.
    #[must_use]
    pub fn new(family: Family) -> Self {
        Self { family, applied: None }
    }

    /// Makes our rules those of `tables`.
    ///
    /// # Errors
    /// iptables failed; the next call writes everything again.
    pub async fn apply(&mut self, tables: &Tables) -> Result<()> {
        let text = match self.applied.take() {
            Some(before) => difference(&before, tables),
            None => full(&saved(self.family).await?, tables),
        };
        if !text.is_empty() {
            restore(self.family, &text).await?;
        }
        self.applied = Some(tables.clone());
        Ok(())
    }

    /// Notices if somebody has removed our rules; true if they must be written again.
    ///
    /// # Errors
    /// iptables cannot be run.
    pub async fn is_missing(&mut self) -> Result<bool> {
        let saved = saved(self.family).await?;
        let there = JUMPS.iter().all(|(table, chain, own)| has_jump(&section(&saved, table), chain, own));
        if !there {
            self.applied = None;
        }
        Ok(!there)
    }
}

/// What takes `before` to `after`: changed chains anew, vanished ones removed. Nothing if they are equal.
fn difference(before: &Tables, after: &Tables) -> String {
    let mut text = String::new();
    for (table, chains) in after {
        let none = Chains::new();
        let old = before.get(table).unwrap_or(&none);
        let changed: Vec<_> = chains.iter().filter(|(name, rules)| old.get(*name) != Some(*rules)).collect();
        let gone: BTreeSet<_> =
            old.keys().map(String::as_str).filter(|name| !chains.contains_key(*name)).collect();
        if !changed.is_empty() || !gone.is_empty() {
            write_table(&mut text, table, &changed, &gone, &[]);
        }
    }
    text
}

/// Everything: all our chains, the jumps that are missing, and no chain of an earlier run.
fn full(saved: &str, tables: &Tables) -> String {
    let mut text = String::new();
    for (table, chains) in tables {
        let lines = section(saved, table);
        let gone = own_chains(&lines).filter(|name| !chains.contains_key(*name)).collect();
        let jumps: Vec<_> = JUMPS
            .iter()
            .filter(|(of, chain, own)| of == table && !has_jump(&lines, chain, own))
            .map(|(_, chain, own)| format!("-A {chain} -j {own}"))
            .collect();
        write_table(&mut text, table, &chains.iter().collect::<Vec<_>>(), &gone, &jumps);
    }
    text
}

/// What removes everything of ours.
fn removal(saved: &str) -> String {
    let mut text = String::new();
    for (table, chain, own) in JUMPS {
        let lines = section(saved, table);
        let gone: BTreeSet<_> = own_chains(&lines).collect();
        let jump = has_jump(&lines, chain, own).then(|| format!("-D {chain} -j {own}"));
        if !gone.is_empty() {
            write_table(&mut text, table, &[], &gone, jump.as_slice());
        }
    }
    text
}

fn write_table(
    text: &mut String,
    table: &str,
    chains: &[(&String, &Vec<String>)],
    gone: &BTreeSet<&str>,
    jumps: &[String],
) {
    // Writing to a String cannot fail. A chain that is named is emptied first.
    let _ = writeln!(text, "*{table}");
    for name in chains.iter().map(|(name, _)| name.as_str()).chain(gone.iter().copied()) {
        let _ = writeln!(text, ":{name} - [0:0]");
    }
    for (name, rules) in chains {
        for rule in *rules {
            let _ = writeln!(text, "-A {name} {rule}");
        }
    }
    for jump in jumps {
        let _ = writeln!(text, "{jump}");
    }
    for name in gone {
        let _ = writeln!(text, "-X {name}");
    }
    text.push_str("COMMIT\n");
}

/// The lines of one table in what iptables-save printed.
fn section<'a>(saved: &'a str, table: &str) -> Vec<&'a str> {
    let start = format!("*{table}");
    saved.lines().skip_while(|line| *line != start).take_while(|line| *line != "COMMIT").collect()
}

fn own_chains<'a>(lines: &[&'a str]) -> impl Iterator<Item = &'a str> {
    let names = lines.iter().filter_map(|line| line.strip_prefix(':')?.split_whitespace().next());
    names.filter(|name| is_ours(name)).collect::<Vec<_>>().into_iter()
}

fn has_jump(lines: &[&str], chain: &str, own: &str) -> bool {
    let jump = format!("-A {chain} -j {own}");
    lines.contains(&jump.as_str())
}

/// The program for a family: `iptables-save`, `ip6tables-restore`.
fn program(family: Family, what: &str) -> String {
    let base = match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    format!("{base}-{what}")
}

async fn saved(family: Family) -> Result<String> {
    let program = program(family, "save");
    let output = Command::new(&program).output().await;
    let output = output.with_context(|| format!("run {program} (is iptables installed?)"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn restore(family: Family, text: &str) -> Result<()> {
    let program = program(family, "restore");
    let mut command = Command::new(&program);
    command
        .args(["-w", "5", "--noflush"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("run {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Removes the packet rules made here.
///
/// # Errors
/// iptables failed.
pub async fn cleanup() -> Result<()> {
    for family in Family::BOTH {
        let text = removal(&saved(family).await?);
        if !text.is_empty() {
            restore(family, &text).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(chains: &[(&str, &[&str])]) -> Tables {
        let chains = chains
            .iter()
            .map(|(name, rules)| ((*name).to_owned(), rules.iter().map(|rule| (*rule).to_owned()).collect()));
        Tables::from([("mangle", chains.collect())])
    }

    #[test]
    fn only_what_changed_is_written() {
        let before = tables(&[("COXSWAIN-POLICY", &["1"]), ("CXP-A", &["1"]), ("CXP-B", &["1"])]);
        let after = tables(&[("COXSWAIN-POLICY", &["1"]), ("CXP-A", &["2"]), ("CXP-C", &[])]);
        let expected =
            "*mangle\n:CXP-A - [0:0]\n:CXP-C - [0:0]\n:CXP-B - [0:0]\n-A CXP-A 2\n-X CXP-B\nCOMMIT\n";
        assert_eq!(difference(&before, &after), expected);
        assert_eq!(difference(&after, &after), "");
    }

    #[test]
    fn first_write_adds_missing_jumps_and_removes_chains_of_an_earlier_run_only() {
        let saved = "*mangle\n:FORWARD ACCEPT [0:0]\n:CXP-OLD - [0:0]\n:OTHER - [0:0]\nCOMMIT\n";
        let text = full(saved, &tables(&[("COXSWAIN-POLICY", &[])]));
        let expected = "*mangle\n:COXSWAIN-POLICY - [0:0]\n:CXP-OLD - [0:0]\n-A FORWARD -j COXSWAIN-POLICY\n-X CXP-OLD\nCOMMIT\n";
        assert_eq!(text, expected);
        let saved = "*mangle\n:FORWARD ACCEPT [0:0]\n:COXSWAIN-POLICY - [0:0]\n-A FORWARD -j COXSWAIN-POLICY\nCOMMIT\n";
        assert!(!full(saved, &tables(&[("COXSWAIN-POLICY", &[])])).contains("-A FORWARD"));
    }

    #[test]
    fn removal_leaves_others_alone() {
        let saved = "*mangle\n:FORWARD ACCEPT [0:0]\n:CXP-A - [0:0]\n:COXSWAIN-POLICY - [0:0]\n:OTHER - [0:0]\n\
                     -A FORWARD -j COXSWAIN-POLICY\n-A FORWARD -j OTHER\nCOMMIT\n*nat\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n";
        let expected = "*mangle\n:COXSWAIN-POLICY - [0:0]\n:CXP-A - [0:0]\n-D FORWARD -j COXSWAIN-POLICY\n\
                        -X COXSWAIN-POLICY\n-X CXP-A\nCOMMIT\n";
        assert_eq!(removal(saved), expected);
    }
}
