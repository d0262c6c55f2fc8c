//! A small disk of its own for what pods need on a node, which can be filled and slowed down.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use deploy::layout::Layout;

const MIB: u64 = 1024 * 1024;
/// Limits of requests to a device, for processes that are in no group of their own.
const THROTTLE: &str = "/sys/fs/cgroup/blkio";

/// An ext4 filesystem in a file; it is unmounted when this is dropped.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
    /// What pods' folders are mounted from.
    binds: Vec<PathBuf>,
}

impl Disk {
    /// Makes a disk of `size` MiB and mounts it where a node of `layout` keeps containers, volumes and logs.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn below(layout: &Layout, size: u64) -> Result<Self> {
        let (file, at) = (layout.data.join("disk.ext4"), layout.data.join("disk"));
        fs::create_dir_all(&at)?;
        File::create(&file)?.set_len(size * MIB)?;
        // Without a reserve for root: full is full for everybody.
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&file))?;
        let mut disk = Self { at: at.clone(), binds: vec![] };
        run(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&at))?;
        // Another may have had the same device, and was slow when it was left.
        disk.limit(0)?;
        let logs = layout.data.join("log/pods");
        for folder in [layout.kubelet(), layout.containerd_root(), layout.local_volumes(), logs] {
            let name = folder.file_name().context("a folder has a name")?;
            let own = at.join(name);
            fs::create_dir_all(&own)?;
            fs::create_dir_all(&folder)?;
            run(Command::new("mount").arg("--bind").args([&own, &folder]))?;
            disk.binds.push(folder);
        }
        Ok(disk)
    }

    /// Takes all room there is but for so many MiB; done again, it takes what has become free meanwhile.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn fill(&self, leave: u64) -> Result<()> {
        let file = File::options().create(true).append(true).open(self.filler())?;
        loop {
            let room = rustix::fs::statvfs(&self.at)?;
            let mut take = (room.f_bavail * room.f_frsize).saturating_sub(leave * MIB);
            // What tells where the file lies takes room, too: as much as can be had.
            loop {
                if take < room.f_frsize {
                    return Ok(());
                }
                let (flags, begin) = (rustix::fs::FallocateFlags::empty(), file.metadata()?.len());
                match rustix::fs::fallocate(&file, flags, begin, take) {
                    Ok(()) => break,
                    Err(rustix::io::Errno::NOSPC) => take /= 2,
                    Err(error) => return Err(error).context("fill the disk"),
                }
            }
        }
    }

    /// Gives back the room that [`Disk::fill`] took, if it did.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn free(&self) -> Result<()> {
        match fs::remove_file(self.filler()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("free the disk"),
            _ => Ok(()),
        }
    }

    /// Lets so many requests a second through, reading and writing each; 0 is no limit. False if this machine cannot do
    /// that: it takes the controller `blkio` of control groups of version 1.
    ///
    /// # Errors
    /// The device is not found.
    pub fn limit(&self, requests: u32) -> Result<bool> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let at = self.at.display().to_string();
        let device = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(2);
            let device = words.next()?;
            (words.nth(1)? == at).then_some(device)
        });
        let device = device.with_context(|| format!("{at} is not mounted"))?;
        for kind in ["read", "write"] {
            let file = Path::new(THROTTLE).join(format!("blkio.throttle.{kind}_iops_device"));
            if !file.exists() {
                return Ok(false);
            }
            fs::write(&file, format!("{device} {requests}")).with_context(|| file.display().to_string())?;
        }
        Ok(true)
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may be gone already, with everything that a node had.
        let _ = self.limit(0);
        for mount in self.binds.iter().rev().chain([&self.at]) {
            let _ = rustix::mount::unmount(mount.as_path(), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
