//! One virtual machine: its cable, its power, and commands inside.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::network::{NETMASK, Segment, Socket};
use e2e::process::Process;
use e2e::wait;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::image::{self, Image};

/// How long a machine may take to boot, or for anything else; without help from the processor all is slow.
pub const PATIENCE: Duration = Duration::from_secs(900);
const MEMORY: &str = "1536";

/// A machine that runs.
pub struct Machine {
    /// Its name, and that of its node.
    pub name: String,
    /// Its address.
    pub address: std::net::Ipv4Addr,
    key: PathBuf,
    monitor: PathBuf,
    console: PathBuf,
    // None if an earlier run has started it.
    qemu: Option<Process>,
}

impl Machine {
    /// Switches the machine with this number on.
    ///
    /// # Errors
    /// There is no such place in the segment, or it cannot be started.
    pub fn start(image: &Image, supplies: &Path, segment: &Segment, number: u8) -> Result<Self> {
        let mut machine = Self::existing(image, segment, number);
        let folder = image.disk.parent().context("a disk is in a folder")?;
        let disk = folder.join(format!("{}.img", machine.name));
        image::run(std::process::Command::new("cp").arg("--sparse=always").arg(&image.disk).arg(&disk))?;
        let words = machine.words(image, &disk, supplies, &segment.socket(number)?);
        machine.qemu = Some(Process::start(&machine.name, words, folder)?);
        Ok(machine)
    }

    /// The machine with this number that an earlier run has left running.
    pub fn existing(image: &Image, segment: &Segment, number: u8) -> Self {
        let name = format!("machine-{}", number + 1);
        let folder = image.disk.parent().unwrap_or(Path::new("/"));
        Self {
            address: segment.socket_of(number).address,
            key: image.key.clone(),
            monitor: folder.join(format!("{name}.monitor")),
            console: folder.join(format!("{name}.console")),
            qemu: None,
            name,
        }
    }

    fn words(&self, image: &Image, disk: &Path, supplies: &Path, socket: &Socket) -> Vec<String> {
        let last = self.address.octets()[3];
        let (address, gateway) = (socket.address, socket.gateway);
        let mut words = socket.enter.clone();
        words.push("qemu-system-x86_64".into());
        words.extend(
            ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35"].map(str::to_owned),
        );
        words.extend(accelerator().map(str::to_owned));
        words.extend(["-smp", "1", "-m", MEMORY, "-device", "virtio-rng-pci"].map(str::to_owned));
        words.extend(["-kernel".into(), image.kernel.display().to_string()]);
        words.extend(["-initrd".into(), image.initrd.display().to_string()]);
        // Guarding against other programs on an emulated processor only takes time.
        words.extend([
            "-append".into(),
            format!(
                "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off systemd.hostname={} \
                 ip={address}::{gateway}:{NETMASK}::eth0:off",
                self.name
            ),
        ]);
        let drive = |file: &Path, more: &str| {
            ["-drive".to_owned(), format!("file={},if=virtio,format=raw,{more}", file.display())]
        };
        words.extend(drive(disk, "cache=unsafe"));
        words.extend(drive(supplies, "readonly=on"));
        let tap = format!("tap,id=cable,ifname={},script=no,downscript=no", socket.tap);
        let card = format!("virtio-net-pci,netdev=cable,mac=52:54:00:c0:00:{last:02x}");
        words.extend(["-netdev".into(), tap, "-device".into(), card]);
        words.extend(["-serial".into(), format!("file:{}", self.console.display())]);
        words.extend(["-qmp".into(), format!("unix:{},server=on,wait=off", self.monitor.display())]);
        words
    }

    /// Waits until it has booted and takes commands.
    ///
    /// # Errors
    /// It does not; the error holds the end of what it said.
    pub async fn booted(&self) -> Result<()> {
        let what = format!("{} has booted", self.name);
        let up = wait::until_within(PATIENCE, &what, || async {
            let state = self.run("systemctl is-system-running --wait || true").await?;
            ensure!(["running", "degraded"].contains(&state.trim()), "{}", state.trim());
            Ok(Some(()))
        });
        up.await.with_context(|| self.last_words())
    }

    /// Runs a command inside and returns what it prints.
    ///
    /// # Errors
    /// The machine cannot be reached, or the command fails.
    pub async fn run(&self, command: &str) -> Result<String> {
        let output = tokio::time::timeout(PATIENCE, self.command(command).output());
        let output = output.await.with_context(|| format!("{}: {command}", self.name))??;
        let (said, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{}: {command}: {}{said}", self.name, error.trim());
        Ok(said.into_owned())
    }

    fn command(&self, command: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-i").arg(&self.key);
        // Its key is new with each image; a machine that is silent for a minute is not there.
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "BatchMode=yes",
            "LogLevel=ERROR",
            "ConnectTimeout=120",
            "ServerAliveInterval=10",
            "ServerAliveCountMax=6",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.arg(format!("root@{}", self.address)).arg(command).stdin(Stdio::null()).kill_on_drop(true);
        ssh
    }

    /// Differs from boot to boot.
    ///
    /// # Errors
    /// The machine cannot be reached.
    pub async fn boot_id(&self) -> Result<String> {
        Ok(self.run("cat /proc/sys/kernel/random/boot_id").await?.trim().to_owned())
    }

    /// Plugs its network cable in, or pulls it out; its card sees that.
    ///
    /// # Errors
    /// The machine does not run.
    pub async fn plug(&self, is_in: bool) -> Result<()> {
        self.ask("set_link", &json!({"name": "cable", "up": is_in})).await
    }

    /// Cuts its power, and gives it back at once. What it had not yet brought to its disk is lost.
    ///
    /// # Errors
    /// The machine does not run.
    pub async fn cut_power(&self) -> Result<()> {
        self.ask("system_reset", &json!({})).await
    }

    /// Lets it boot anew, as a person would.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn reboot(&self) -> Result<()> {
        // The connection may end before the command does.
        let _ = self.run("systemctl reboot").await;
        Ok(())
    }

    /// Tells qemu something.
    async fn ask(&self, what: &str, arguments: &Value) -> Result<()> {
        let stream = UnixStream::connect(&self.monitor).await.with_context(|| self.name.clone())?;
        let (lines, mut out) = stream.into_split();
        let mut lines = BufReader::new(lines).lines();
        for request in
            [json!({"execute": "qmp_capabilities"}), json!({"execute": what, "arguments": arguments})]
        {
            out.write_all(format!("{request}\n").as_bytes()).await?;
            loop {
                let line = lines.next_line().await?.with_context(|| format!("{what}: no answer"))?;
                let answer: Value = serde_json::from_str(&line)?;
                ensure!(answer.get("error").is_none(), "{what}: {answer}");
                // Else a greeting, or news.
                if answer.get("return").is_some() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Leaves it running when this is dropped.
    pub fn keep(mut self) {
        std::mem::forget(self.qemu.take());
    }

    /// The end of what it said on its console, for failure messages.
    pub fn last_words(&self) -> String {
        let bytes = std::fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines: Vec<_> = text.lines().collect();
        let qemu = self.qemu.as_ref().map(Process::log_tail).unwrap_or_default();
        format!("--- {}\n{}\n{qemu}", self.name, lines[lines.len().saturating_sub(15)..].join("\n"))
    }
}

/// A processor that can run machines does; else all is emulated.
fn accelerator() -> [&'static str; 4] {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let can = processor.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    if can && Path::new("/dev/kvm").exists() {
        ["-accel", "kvm", "-cpu", "host"]
    } else {
        ["-accel", "tcg,thread=multi", "-cpu", "max"]
    }
}
