//! Network namespaces that stand for machines. Those of one cluster share a segment, a bridge in a namespace of its
//! own, where no packet rules of this machine reach; a leg of it comes out here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// How many machines a segment has room for.
const MACHINES: u8 = 13;

/// What connects the machines of a cluster; it goes when this is dropped.
#[derive(Debug)]
pub struct Segment {
    number: u8,
}

/// A machine; it goes when this is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    /// The address of the machine that it stands for.
    pub address: Ipv4Addr,
    /// Its address of the other family, where there is such.
    pub address_v6: Option<Ipv6Addr>,
}

/// Where a virtual machine is plugged in.
#[derive(Debug)]
pub struct Socket {
    /// The words that go before the command that runs the machine.
    pub enter: Vec<String>,
    /// The name of the tap device.
    pub tap: String,
    /// The address the machine has to have.
    pub address: Ipv4Addr,
    /// The way to others; this machine's end of the segment.
    pub gateway: Ipv4Addr,
}

/// The mask of a segment's addresses.
pub const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 240);

/// Whether this machine's kernel has IPv6.
#[must_use]
pub fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

impl Segment {
    /// Makes the segment with this number (0 to 15): each has a range of sixteen addresses.
    ///
    /// # Errors
    /// Not root, or the number is in use.
    pub fn create(number: u8) -> Result<Self> {
        ensure!(number < 16, "at most 16 segments");
        let segment = Self { number };
        segment.remove();
        let (name, outside, here) = (segment.name(), segment.outside(), segment.address(1));
        run(&format!("ip netns add {name}"))?;
        run(&format!("ip -n {name} link add segment type bridge"))?;
        run(&format!("ip -n {name} link set segment up"))?;
        run(&format!("ip link add {outside} type veth peer name outside netns {name}"))?;
        run(&format!("ip -n {name} link set outside master segment up"))?;
        run(&format!("ip addr add {here}/28 dev {outside}"))?;
        if has_ipv6() {
            run(&format!("ip addr add {}/64 dev {outside} nodad", segment.address_v6(1)))?;
        }
        run(&format!("ip link set {outside} up"))?;
        Ok(segment)
    }

    /// Makes the machine with this number (from 0).
    ///
    /// # Errors
    /// The segment has no room for it, or the number is in use.
    pub fn machine(&self, number: u8) -> Result<Namespace> {
        ensure!(number < MACHINES, "at most {MACHINES} machines");
        let (segment, gateway) = (self.name(), self.address(1));
        let machine = Namespace {
            name: format!("{segment}-machine-{number}"),
            address: self.address(2 + number),
            address_v6: has_ipv6().then(|| self.address_v6(2 + number)),
        };
        machine.remove();
        let (name, address) = (&machine.name, machine.address);
        run(&format!("ip netns add {name}"))?;
        run(&format!("ip -n {name} link add eth0 type veth peer name machine{number} netns {segment}"))?;
        run(&format!("ip -n {segment} link set machine{number} master segment up"))?;
        run(&format!("ip -n {name} link set lo up"))?;
        run(&format!("ip -n {name} addr add {address}/28 dev eth0"))?;
        run(&format!("ip -n {name} link set eth0 up"))?;
        run(&format!("ip -n {name} route add default via {gateway}"))?;
        if let Some(address) = machine.address_v6 {
            run(&format!("ip -n {name} addr add {address}/64 dev eth0 nodad"))?;
            run(&format!("ip -n {name} route add default via {}", self.address_v6(1)))?;
        }
        Ok(machine)
    }

    /// One that is there already.
    #[must_use]
    pub fn existing(number: u8) -> Self {
        Self { number }
    }

    /// Makes the socket in the wall for the virtual machine with this number (from 0).
    ///
    /// # Errors
    /// The segment has no room for it, or the number is in use.
    pub fn socket(&self, number: u8) -> Result<Socket> {
        ensure!(number < MACHINES, "at most {MACHINES} machines");
        let segment = self.name();
        let tap = format!("machine{number}");
        run(&format!("ip -n {segment} tuntap add {tap} mode tap"))?;
        run(&format!("ip -n {segment} link set {tap} master segment up"))?;
        Ok(self.socket_of(number))
    }

    /// The socket with this number, which has been made.
    #[must_use]
    pub fn socket_of(&self, number: u8) -> Socket {
        Socket {
            enter: vec!["nsenter".into(), format!("--net=/run/netns/{}", self.name())],
            tap: format!("machine{number}"),
            address: self.address(2 + number),
            gateway: self.address(1),
        }
    }

    fn name(&self) -> String {
        format!("coxswain-e2e-{}", self.number)
    }

    fn outside(&self) -> String {
        format!("cxe2e{}", self.number)
    }

    fn address(&self, place: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, 77, self.number * 16 + place)
    }

    fn address_v6(&self, place: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x213, 0x77, self.number.into(), 0, 0, 0, place.into())
    }

    fn remove(&self) {
        // They may not be there.
        let _ = run(&format!("ip link delete {}", self.outside()));
        let _ = run(&format!("ip netns delete {}", self.name()));
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Namespace {
    /// The words that go before a command to run it inside. Only the network changes: a command run by
    /// `ip netns exec` would also get another /sys, without control groups.
    #[must_use]
    pub fn enter(&self) -> Vec<String> {
        vec!["nsenter".into(), format!("--net=/run/netns/{}", self.name)]
    }

    /// The machine's addresses: one, or one of each family.
    #[must_use]
    pub fn addresses(&self, both: bool) -> Vec<IpAddr> {
        let second = self.address_v6.filter(|_| both).map(IpAddr::V6);
        std::iter::once(IpAddr::V4(self.address)).chain(second).collect()
    }

    fn remove(&self) {
        // It may not be there.
        let _ = run(&format!("ip netns delete {}", self.name));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.remove();
    }
}

fn run(command: &str) -> Result<()> {
    let words: Vec<_> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().with_context(|| command.to_owned())?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
