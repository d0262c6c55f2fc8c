//! What this machine is: read once at the start, from `/proc`, `/sys` and `/etc`.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity;

/// Facts that do not change while the machine is up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// CPUs online.
    pub cores: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Swap in bytes.
    pub swap: i64,
    /// Huge pages in bytes, by size as resources name it: `2Mi`.
    pub huge_pages: BTreeMap<String, i64>,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The firmware's UUID, else the machine id.
    pub system_uuid: String,
    /// Changes at every boot.
    pub boot_id: String,
    /// Kernel release.
    pub kernel_version: String,
    /// `PRETTY_NAME` of the system.
    pub os_image: String,
    /// Host name.
    pub hostname: String,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Reads the facts.
#[must_use]
pub fn machine() -> Machine {
    let name = rustix::system::uname();
    let machine_id = read("/etc/machine-id");
    let uuid = read("/sys/class/dmi/id/product_uuid");
    let memory = read("/proc/meminfo");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Machine {
        cores: online_cpus(&read("/sys/devices/system/cpu/online"))
            .unwrap_or(i64::try_from(cores).unwrap_or(1)),
        memory: meminfo(&memory, "MemTotal").unwrap_or_default(),
        swap: meminfo(&memory, "SwapTotal").unwrap_or_default(),
        huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        kernel_version: name.release().to_string_lossy().into_owned(),
        os_image: os_image(&read("/etc/os-release")),
        hostname: name.nodename().to_string_lossy().to_lowercase(),
    }
}

/// One line of `/proc/meminfo` in bytes.
#[must_use]
pub fn meminfo(text: &str, key: &str) -> Option<i64> {
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    let number: i64 = line.split_whitespace().next()?.parse().ok()?;
    Some(number * 1024)
}

/// Counts `0-3,8`.
fn online_cpus(text: &str) -> Option<i64> {
    let mut count = 0;
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        count += last.trim().parse::<i64>().ok()? - first.trim().parse::<i64>().ok()? + 1;
    }
    Some(count)
}

fn os_image(os_release: &str) -> String {
    let name = os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Unknown".to_owned(), |n| n.trim_matches('"').to_owned())
}

fn huge_pages(directory: &Path) -> BTreeMap<String, i64> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kilobytes =
            name.strip_prefix("hugepages-").and_then(|n| n.strip_suffix("kB")?.parse::<i64>().ok());
        let Some(kilobytes) = kilobytes else { continue };
        let count: i64 = std::fs::read_to_string(entry.path().join("nr_hugepages"))
            .ok()
            .and_then(|t| t.trim().parse().ok())
            .unwrap_or_default();
        found.insert(quantity::from_bytes(kilobytes * 1024).0, count * kilobytes * 1024);
    }
    found
}

impl Machine {
    /// The machine's share of a node's capacity: CPU, memory, huge pages.
    #[must_use]
    pub fn capacity(&self) -> BTreeMap<String, Quantity> {
        let mut all = BTreeMap::from([
            ("cpu".to_owned(), Quantity(self.cores.to_string())),
            ("memory".to_owned(), kibibytes(self.memory)),
        ]);
        for (size, bytes) in &self.huge_pages {
            all.insert(format!("hugepages-{size}"), quantity::from_bytes(*bytes));
        }
        all
    }
}

/// Bytes as upstream reports them: in Ki when whole.
#[must_use]
pub fn kibibytes(bytes: i64) -> Quantity {
    Quantity(if bytes % 1024 == 0 { format!("{}Ki", bytes / 1024) } else { bytes.to_string() })
}

/// Size and free space of the file system that holds `path`, in bytes, and its inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Size in bytes.
    pub capacity: u64,
    /// Free for ordinary users, in bytes.
    pub available: u64,
    /// Inodes in all.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
}

/// Looks at the file system that holds `path`.
pub fn file_system(path: &Path) -> std::io::Result<FileSystem> {
    let found = rustix::fs::statvfs(path)?;
    Ok(FileSystem {
        capacity: found.f_blocks * found.f_frsize,
        available: found.f_bavail * found.f_frsize,
        inodes: found.f_files,
        inodes_free: found.f_favail,
    })
}

/// Whether these may be given as a node's addresses: one, or one of each family.
///
/// # Errors
/// Says what is wrong, in upstream's words.
pub fn check_given_addresses(given: &[IpAddr]) -> Result<(), &'static str> {
    match given {
        [] | [_] => Ok(()),
        [one, other] if one.is_ipv6() != other.is_ipv6() => {
            let any = given.iter().any(IpAddr::is_unspecified);
            if any { Err("dual-stack node IP cannot include '0.0.0.0' or '::'") } else { Ok(()) }
        }
        _ => Err("must contain either a single IP or a dual-stack pair of IPs"),
    }
}

/// Addresses of this node, primary first: those given; else the host name if it is one; else what its name resolves
/// to; else the address by which the world would be reached.
pub fn node_addresses(given: &[IpAddr], node_name: &str, hostname: &str) -> Result<Vec<IpAddr>, String> {
    let named: Vec<IpAddr> = given.iter().filter(|ip| !ip.is_unspecified()).copied().collect();
    if !named.is_empty() {
        return Ok(named);
    }
    if let Ok(ip) = hostname.parse() {
        return Ok(vec![ip]);
    }
    let prefers_v6 = given.first().is_some_and(IpAddr::is_ipv6);
    let usable = |ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast();
    let mut found: Vec<IpAddr> =
        (node_name, 0).to_socket_addrs().into_iter().flatten().map(|a| a.ip()).filter(usable).collect();
    found.sort_by_key(|ip| ip.is_ipv6() != prefers_v6);
    if let Some(ip) = found.first() {
        return Ok(vec![*ip]);
    }
    let mut routes = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    if prefers_v6 {
        routes.reverse();
    }
    let by_route = routes.iter().find_map(|(from, to)| route_source(from, to)).filter(usable);
    by_route.map(|ip| vec![ip]).ok_or_else(|| format!("can't get ip address of node {node_name}"))
}

/// Which address the kernel would use towards `to`; nothing is sent.
fn route_source(from: &str, to: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|a| a.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_they_look() {
        assert_eq!(meminfo("MemTotal:  100 kB\nSwapTotal: 0 kB\n", "MemTotal"), Some(102_400));
        assert_eq!(meminfo("MemTotal:  100 kB\n", "SwapTotal"), None);
        assert_eq!(online_cpus("0-3,8"), Some(5));
        assert_eq!(online_cpus("0"), Some(1));
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
    }

    #[test]
    fn capacity_names_what_there_is() {
        let machine = Machine {
            cores: 4,
            memory: 8 << 30,
            huge_pages: BTreeMap::from([("2Mi".to_owned(), 4 << 20)]),
            ..Machine::default()
        };
        let capacity = machine.capacity();
        assert_eq!(capacity["cpu"].0, "4");
        assert_eq!(capacity["memory"].0, "8388608Ki");
        assert_eq!(capacity["hugepages-2Mi"].0, "4Mi");
    }

    #[test]
    fn one_address_is_given_or_one_of_each_family() {
        let pair = "must contain either a single IP or a dual-stack pair of IPs";
        let named = "dual-stack node IP cannot include '0.0.0.0' or '::'";
        for (given, expected) in [
            ("", Ok(())),
            ("10.0.0.1", Ok(())),
            ("::", Ok(())),
            ("10.0.0.1,fd00::1", Ok(())),
            ("fd00::1,10.0.0.1", Ok(())),
            ("10.0.0.1,10.0.0.2", Err(pair)),
            ("10.0.0.1,fd00::1,fd00::2", Err(pair)),
            ("10.0.0.1,::", Err(named)),
            ("0.0.0.0,fd00::1", Err(named)),
        ] {
            let given: Vec<IpAddr> = given.split(',').filter_map(|ip| ip.parse().ok()).collect();
            assert_eq!(check_given_addresses(&given), expected, "{given:?}");
        }
    }

    #[test]
    fn given_addresses_come_first() {
        let ip = |t: &str| t.parse::<IpAddr>().expect("valid");
        assert_eq!(
            node_addresses(&[ip("10.0.0.1"), ip("fd00::1")], "n", "n"),
            Ok(vec![ip("10.0.0.1"), ip("fd00::1")])
        );
        assert_eq!(node_addresses(&[], "n", "10.0.0.2"), Ok(vec![ip("10.0.0.2")]));
    }
}
