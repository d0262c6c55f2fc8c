//! Applying rules: the difference to what was applied last goes to the kernel as one `iptables-restore --noflush`
//! transaction. Chains that are not ours are never written.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::model::Family;
use crate::rules::{Rules, SERVICE_CHAIN_PREFIXES, Table, jumps};

/// A chain that only marks that our rules are there; if it is gone, somebody flushed the tables.
const CANARY: &str = "KUBE-PROXY-CANARY";

/// Applies rules of one family.
pub struct Applier {
    family: Family,
    /// What is in the kernel, as far as we know; none before the first success and after a failure.
    applied: Option<Rules>,
}

impl Applier {
    /// Nothing applied yet.
    #[must_use]
    pub fn new(family: Family) -> Self {
        Self { family, applied: None }
    }

    /// Whether anything was applied and is believed to be still there.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        self.applied.is_some()
    }

    /// Makes the kernel's rules those of `rules`.
    ///
    /// # Errors
    /// iptables failed; the next call writes everything again.
    pub async fn apply(&mut self, rules: &Rules) -> Result<()> {
        let before = self.applied.take();
        let text = match &before {
            Some(before) => difference(before, rules),
            None => full(&run(self.family, "-save", &[], "").await?, rules),
        };
        if !text.is_empty() {
            let failed = metrics::counter!("kubeproxy_sync_proxy_rules_iptables_restore_failures_total");
            let restored = run(self.family, "-restore", &["-w", "5", "--noflush"], &text).await;
            restored.inspect_err(|_| failed.increment(1))?;
        }
        for (table, chains) in [("filter", &rules.filter), ("nat", &rules.nat)] {
            let count: usize = chains.values().map(Vec::len).sum();
            metrics::gauge!("kubeproxy_sync_proxy_rules_iptables_total", "table" => table).set(count as f64);
        }
        self.applied = Some(rules.clone());
        Ok(())
    }

    /// Notices if somebody flushed the tables: then the next apply writes everything.
    ///
    /// # Errors
    /// iptables cannot be run.
    pub async fn check(&mut self) -> Result<()> {
        let command = program(self.family, "");
        let output = Command::new(command).args(["-w", "5", "-t", "nat", "-S", CANARY]).output().await?;
        if !output.status.success() {
            self.applied = None;
        }
        Ok(())
    }
}

fn program(family: Family, suffix: &str) -> String {
    let base = if family == Family::V4 { "iptables" } else { "ip6tables" };
    format!("{base}{suffix}")
}

async fn run(family: Family, suffix: &str, arguments: &[&str], input: &str) -> Result<String> {
    let program = program(family, suffix);
    let mut command = Command::new(&program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("run {program} (is iptables installed?)"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed: {}", error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The restore input that takes `before` to `after`: changed chains anew, vanished service chains removed. Nothing
/// if they are equal. Tables take effect one after the other: destinations are rewritten (`nat`) before a refusal is
/// taken back (`filter`), so that no connection gets through between the two with nowhere to go.
fn difference(before: &Rules, after: &Rules) -> String {
    let mut text = String::new();
    for (name, before, after) in [("nat", &before.nat, &after.nat), ("filter", &before.filter, &after.filter)]
    {
        let changed: Table = after.iter().filter(|(k, v)| before.get(*k) != Some(*v)).map(cloned).collect();
        let gone: BTreeSet<_> = before.keys().filter(|k| !after.contains_key(*k)).cloned().collect();
        if !changed.is_empty() || !gone.is_empty() {
            table(&mut text, name, &changed, &gone, &[]);
        }
    }
    text
}

fn cloned((name, rules): (&String, &Vec<String>)) -> (String, Vec<String>) {
    (name.clone(), rules.clone())
}

/// The restore input for everything: all our chains, the jumps that are missing, and no service chain of an
/// earlier run. `saved` is what iptables-save printed.
fn full(saved: &str, rules: &Rules) -> String {
    let mut text = String::new();
    for (name, chains) in [("nat", &rules.nat), ("filter", &rules.filter)] {
        let existing = section(saved, name);
        let ours = |chain: &str| SERVICE_CHAIN_PREFIXES.iter().any(|prefix| chain.starts_with(prefix));
        let chain_names = existing.iter().filter_map(|line| line.strip_prefix(':'));
        let stale: BTreeSet<_> = chain_names
            .filter_map(|line| line.split_whitespace().next())
            .filter(|chain| ours(chain) && !chains.contains_key(*chain))
            .map(str::to_owned)
            .collect();
        let missing: Vec<_> = jumps()
            .into_iter()
            .filter(|(table, _, _)| *table == name)
            .filter(|(_, chain, rule)| !has_rule(&existing, chain, rule))
            .map(|(_, chain, rule)| (chain, rule))
            .collect();
        let mut chains = chains.clone();
        if name == "nat" {
            chains.insert(CANARY.to_owned(), vec![]);
        }
        table(&mut text, name, &chains, &stale, &missing);
    }
    text
}

/// The lines of one table in what iptables-save printed.
fn section<'a>(saved: &'a str, table: &str) -> Vec<&'a str> {
    let start = format!("*{table}");
    saved.lines().skip_while(|line| *line != start).take_while(|line| *line != "COMMIT").collect()
}

/// Whether the rule is there, however iptables-save spells and orders it.
fn has_rule(lines: &[&str], chain: &str, rule: &str) -> bool {
    let words =
        |text: &str| -> BTreeSet<String> { text.split_whitespace().map(|w| w.replace('"', "")).collect() };
    let wanted = words(rule);
    let prefix = format!("-A {chain} ");
    lines.iter().filter_map(|line| line.strip_prefix(&prefix)).any(|line| words(line) == wanted)
}

fn table(text: &mut String, name: &str, chains: &Table, gone: &BTreeSet<String>, jumps: &[(&str, String)]) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "*{name}");
    for chain in chains.keys().chain(gone) {
        let _ = writeln!(text, ":{chain} - [0:0]");
    }
    for (chain, rules) in chains {
        for rule in rules {
            let _ = writeln!(text, "-A {chain} {rule}");
        }
    }
    // A later insertion comes to stand above an earlier one.
    for (chain, rule) in jumps {
        let _ = writeln!(text, "-I {chain} {rule}");
    }
    for chain in gone {
        let _ = writeln!(text, "-X {chain}");
    }
    text.push_str("COMMIT\n");
}

/// Removes everything that kube-proxy ever writes, and nothing else.
///
/// # Errors
/// iptables failed.
pub async fn cleanup() -> Result<()> {
    for family in [Family::V4, Family::V6] {
        let Ok(saved) = run(family, "-save", &[], "").await else { continue };
        let text = removal(&saved);
        if !text.is_empty() {
            run(family, "-restore", &["-w", "5", "--noflush"], &text).await?;
        }
    }
    Ok(())
}

fn removal(saved: &str) -> String {
    let fixed = [
        "KUBE-SERVICES",
        "KUBE-EXTERNAL-SERVICES",
        "KUBE-NODEPORTS",
        "KUBE-FORWARD",
        "KUBE-PROXY-FIREWALL",
        "KUBE-POSTROUTING",
        "KUBE-MARK-MASQ",
        "KUBE-FIREWALL",
        CANARY,
    ];
    let ours =
        |chain: &str| fixed.contains(&chain) || SERVICE_CHAIN_PREFIXES.iter().any(|p| chain.starts_with(p));
    let mut text = String::new();
    for name in ["filter", "nat"] {
        let lines = section(saved, name);
        let chains: BTreeSet<_> = lines
            .iter()
            .filter_map(|line| line.strip_prefix(':')?.split_whitespace().next())
            .filter(|chain| ours(chain))
            .map(str::to_owned)
            .collect();
        if chains.is_empty() {
            continue;
        }
        let _ = writeln!(text, "*{name}");
        for chain in &chains {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        for line in &lines {
            let jumps_in = line
                .split_once(" -j ")
                .is_some_and(|(_, target)| ours(target.split_whitespace().next().unwrap_or_default()));
            let from = line.strip_prefix("-A ").and_then(|rest| rest.split_whitespace().next());
            if let (true, Some(from)) = (jumps_in, from)
                && !ours(from)
            {
                let _ = writeln!(text, "-D {}", &line[3..]);
            }
        }
        for chain in &chains {
            let _ = writeln!(text, "-X {chain}");
        }
        text.push_str("COMMIT\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(chains: &[(&str, &[&str])]) -> Rules {
        let nat = chains.iter().map(|(k, v)| ((*k).to_owned(), v.iter().map(|r| (*r).to_owned()).collect()));
        Rules { nat: nat.collect(), ..Rules::default() }
    }

    #[test]
    fn destinations_are_rewritten_before_refusals_are_taken_back() {
        let table = |chain: &str, rule: &str| Table::from([(chain.to_owned(), vec![rule.to_owned()])]);
        let before = Rules { filter: table("KUBE-SERVICES", "-j REJECT"), ..Rules::default() };
        let after = Rules {
            filter: Table::from([("KUBE-SERVICES".to_owned(), vec![])]),
            nat: table("KUBE-SERVICES", "-j KUBE-SVC-A"),
        };
        for text in [difference(&before, &after), full("", &after)] {
            assert!(text.find("*nat") < text.find("*filter"), "{text}");
        }
    }

    #[test]
    fn only_what_changed_is_written() {
        let before = rules(&[("A", &["1"]), ("B", &["1"]), ("KUBE-SEP-X", &["1"])]);
        let after = rules(&[("A", &["1"]), ("B", &["2"]), ("C", &[])]);
        let expected = "*nat\n:B - [0:0]\n:C - [0:0]\n:KUBE-SEP-X - [0:0]\n-A B 2\n-X KUBE-SEP-X\nCOMMIT\n";
        assert_eq!(difference(&before, &after), expected);
        assert_eq!(difference(&after, &after), "");
    }

    #[test]
    fn first_write_adds_missing_jumps_once_and_removes_chains_of_an_earlier_run_only() {
        let saved = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SVC-OLD - [0:0]\n:DOCKER - [0:0]\n\
                     -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\nCOMMIT\n";
        let text = full(saved, &rules(&[("KUBE-SERVICES", &["-j X"])]));
        assert!(text.contains("-X KUBE-SVC-OLD\n"), "{text}");
        assert!(!text.contains("DOCKER"), "{text}");
        assert!(!text.contains("-I PREROUTING"), "{text}");
        assert!(
            text.contains("-I OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n")
        );
        assert!(
            text.contains(
                "-I FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n"
            )
        );
    }

    #[test]
    fn cleanup_leaves_others_alone() {
        let saved = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:DOCKER - [0:0]\n\
                     -A PREROUTING -j KUBE-SERVICES\n-A PREROUTING -j DOCKER\n-A KUBE-SERVICES -j RETURN\nCOMMIT\n";
        let expected =
            "*nat\n:KUBE-SERVICES - [0:0]\n-D PREROUTING -j KUBE-SERVICES\n-X KUBE-SERVICES\nCOMMIT\n";
        assert_eq!(removal(saved), expected);
    }
}
