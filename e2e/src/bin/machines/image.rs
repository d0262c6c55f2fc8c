//! The disk that every machine starts with, made of Debian's packages, and a second one with what is under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use deploy::images::{self, Workshop};
use e2e::cluster::{binaries, repository};

/// A machine, the node's packages (as the README has them), and what looks at it.
const PACKAGES: [&str; 19] = [
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "openssh-server",
    "iproute2",
    "procps",
    "busybox",
    "ca-certificates",
    "containerd",
    "runc",
    "containernetworking-plugins",
    "iptables",
    "nftables",
    "conntrack",
    "util-linux",
];
/// What is done inside, with the root of the file system as `$1`. A name and an address come with the kernel's command
/// line; Debian's containerd is there and must be left alone; what would work at night is not wanted.
const SETTLE: &str = r#"set -e
rm -f "$1/etc/hostname"
echo "/dev/vda / ext4 defaults 0 1" > "$1/etc/fstab"
mkdir -p "$1/root/.ssh" "$1/supplies"
chroot "$1" systemctl enable systemd-networkd systemd-network-generator
chroot "$1" systemctl disable containerd
chroot "$1" systemctl mask e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer fstrim.timer getty@tty1.service"#;
const LEFT_OUT: [&str; 3] = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"];
const SIZE: &str = "4G";

/// What machines boot from.
#[derive(Clone, Debug)]
pub struct Image {
    /// The disk; each machine has a copy.
    pub disk: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// The first file system.
    pub initrd: PathBuf,
    /// The key that opens every machine.
    pub key: PathBuf,
}

impl Image {
    /// Builds it in `folder`, unless it is there already and made of the same things.
    ///
    /// # Errors
    /// Not root, a package cannot be had, or the disk refuses.
    pub fn build(folder: &Path, progress: &dyn Fn(&str)) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let image = Self {
            disk: folder.join("disk.img"),
            kernel: folder.join("vmlinuz"),
            initrd: folder.join("initrd.img"),
            key: folder.join("key"),
        };
        let recipe = format!("{PACKAGES:?}\n{SETTLE}\n{LEFT_OUT:?}\n{SIZE}\n");
        let made_of = folder.join("recipe");
        if std::fs::read_to_string(&made_of).is_ok_and(|made| made == recipe) {
            return Ok(image);
        }
        if !image.key.exists() {
            let mut keygen = Command::new("ssh-keygen");
            run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&image.key))?;
        }
        progress("building a file system from Debian's packages");
        let root = folder.join("root");
        remove(&root)?;
        image.unpack(folder, &root)?;
        for (begin, to) in [("vmlinuz-", &image.kernel), ("initrd.img-", &image.initrd)] {
            std::fs::copy(file_of(&root.join("boot"), begin)?, to)?;
        }
        progress("making the disk");
        disk_of(&root, &image.disk, SIZE)?;
        remove(&root)?;
        std::fs::write(made_of, recipe)?;
        Ok(image)
    }

    fn unpack(&self, folder: &Path, root: &Path) -> Result<()> {
        // Packages are fetched as this machine's apt fetches them.
        let settings =
            Command::new("apt-config").args(["dump", "Acquire"]).output().context("run apt-config")?;
        let apt = folder.join("apt.conf");
        std::fs::write(&apt, settings.stdout)?;
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--variant=minbase", "--mode=root"]);
        command.arg(format!("--aptopt={}", apt.display()));
        command.args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
        command.arg(format!("--include={}", PACKAGES.join(",")));
        command.arg(format!("--customize-hook={SETTLE}"));
        let key = self.key.with_extension("pub");
        command.arg(format!("--customize-hook=upload {} /root/.ssh/authorized_keys", key.display()));
        run(command.arg("bookworm").arg(root))
    }
}

/// Makes the disk with the program under test and the images of the samples.
///
/// # Errors
/// The program is not built, an image cannot be built, or the disk refuses.
pub fn supplies(folder: &Path, program: Option<&Path>, progress: &(dyn Fn(&str) + Sync)) -> Result<PathBuf> {
    let (content, disk) = (folder.join("supplies"), folder.join("supplies.img"));
    let workshop = Workshop { cache: repository().join("target/images"), binaries: binaries()? };
    images::build_all(&repository().join("deploy/images"), &content.join("images"), &workshop, progress)?;
    let program = program.map_or(binaries()?.join("coxswain"), Path::to_owned);
    // Symbols would be most of it, and machines like these read slowly.
    run(Command::new("strip").arg("-o").arg(content.join("coxswain")).arg(&program))?;
    disk_of(&content, &disk, "1G")?;
    Ok(disk)
}

/// Makes a disk with the files of a folder.
fn disk_of(folder: &Path, disk: &Path, size: &str) -> Result<()> {
    // An old one would be overwritten in part.
    match std::fs::remove_file(disk) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(folder).arg(disk).arg(size))
}

/// The file whose name begins so.
fn file_of(folder: &Path, begin: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder)?.filter_map(|entry| entry.ok().map(|e| e.path()));
    let named =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begin));
    entries.into_iter().find(named).with_context(|| format!("no {begin} in {}", folder.display()))
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Runs it to a good end.
pub fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
