//! A network namespace that stands for a machine, joined to this one by a pair of virtual interfaces.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The namespace; it goes when this is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    outside: String,
    /// The address of the machine that it stands for.
    pub address: Ipv4Addr,
}

impl Namespace {
    /// Makes the namespace with this number (0 to 63): each has a range of four addresses.
    ///
    /// # Errors
    /// Not root, or the number is in use.
    pub fn create(number: u8) -> Result<Self> {
        ensure!(number < 64, "at most 64 namespaces");
        let base = Ipv4Addr::new(10, 213, 77, number * 4);
        let address = |offset: u8| Ipv4Addr::from(u32::from(base) + u32::from(offset));
        let (here, there) = (address(1), address(2));
        let namespace = Self {
            name: format!("coxswain-e2e-{number}"),
            outside: format!("cxe2e{number}"),
            address: there,
        };
        namespace.remove();
        let (name, outside) = (&namespace.name, &namespace.outside);
        run(&format!("ip netns add {name}"))?;
        run(&format!("ip link add {outside} type veth peer name eth0 netns {name}"))?;
        run(&format!("ip addr add {here}/30 dev {outside}"))?;
        run(&format!("ip link set {outside} up"))?;
        run(&format!("ip -n {name} link set lo up"))?;
        run(&format!("ip -n {name} addr add {there}/30 dev eth0"))?;
        run(&format!("ip -n {name} link set eth0 up"))?;
        run(&format!("ip -n {name} route add default via {here}"))?;
        Ok(namespace)
    }

    /// The words that go before a command to run it inside. Only the network changes: a command run by
    /// `ip netns exec` would also get another /sys, without control groups.
    #[must_use]
    pub fn enter(&self) -> Vec<String> {
        vec!["nsenter".into(), format!("--net=/run/netns/{}", self.name)]
    }

    fn remove(&self) {
        // They may not be there.
        for command in [format!("ip link delete {}", self.outside), format!("ip netns delete {}", self.name)]
        {
            let _ = run(&command);
        }
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
