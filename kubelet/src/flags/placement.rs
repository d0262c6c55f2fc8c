//! Flags about CPUs and memory that are kept back or given to containers alone, and where they come from.

use anyhow::Context;

use super::pairs;
use crate::config::KubeletConfiguration;
use crate::duration::GoDuration;
use crate::memory::Reservation;

/// Flags about what containers are given for themselves.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Placement {
    /// CPUs kept back for the system and Kubernetes by number, for example 0-1,4.
    #[arg(long)]
    pub reserved_cpus: Option<String>,
    /// Memory kept back on NUMA nodes, for example 0:memory=1Gi,hugepages-2Mi=2Mi;1:memory=2Gi.
    #[arg(long, value_delimiter = ';')]
    pub reserved_memory: Vec<String>,
    /// CPU Manager policy to use: none, static.
    #[arg(long)]
    pub cpu_manager_policy: Option<String>,
    /// Options of the CPU Manager policy, key=value.
    #[arg(long, value_delimiter = ',')]
    pub cpu_manager_policy_options: Vec<String>,
    /// How often the CPUs of containers are told to the runtime.
    #[arg(long)]
    pub cpu_manager_reconcile_period: Option<GoDuration>,
    /// Memory Manager policy to use: None, Static.
    #[arg(long)]
    pub memory_manager_policy: Option<String>,
    /// Topology Manager policy to use: none, best-effort, restricted, single-numa-node.
    #[arg(long)]
    pub topology_manager_policy: Option<String>,
    /// Scope to which topology hints are applied: container, pod.
    #[arg(long)]
    pub topology_manager_scope: Option<String>,
    /// Options of the Topology Manager policy, key=value.
    #[arg(long, value_delimiter = ',')]
    pub topology_manager_policy_options: Vec<String>,
}

impl Placement {
    /// Writes what was given over what the file says.
    pub(super) fn apply(&self, kubelet: &mut KubeletConfiguration) -> anyhow::Result<()> {
        fn set<T: Clone>(slot: &mut T, flag: &Option<T>) {
            if let Some(value) = flag {
                slot.clone_from(value);
            }
        }
        set(&mut kubelet.cpu_manager_policy, &self.cpu_manager_policy);
        set(&mut kubelet.cpu_manager_reconcile_period, &self.cpu_manager_reconcile_period);
        set(&mut kubelet.memory_manager_policy, &self.memory_manager_policy);
        set(&mut kubelet.topology_manager_policy, &self.topology_manager_policy);
        set(&mut kubelet.topology_manager_scope, &self.topology_manager_scope);
        set(&mut kubelet.reserved_system_cpus, &self.reserved_cpus);
        let cpus = pairs(&self.cpu_manager_policy_options, "--cpu-manager-policy-options")?;
        kubelet.cpu_manager_policy_options.extend(cpus);
        let topology = pairs(&self.topology_manager_policy_options, "--topology-manager-policy-options")?;
        kubelet.topology_manager_policy_options.extend(topology);
        if !self.reserved_memory.is_empty() {
            kubelet.reserved_memory =
                self.reserved_memory.iter().map(|text| reservation(text)).collect::<anyhow::Result<_>>()?;
        }
        Ok(())
    }
}

/// Reads `node:memory=amount,hugepages-2Mi=amount`.
fn reservation(text: &str) -> anyhow::Result<Reservation> {
    let (node, limits) = text
        .split_once(':')
        .with_context(|| format!("invalid reserved memory {text:?}, expected <numa-node>:<type>=<value>"))?;
    let numa_node = node.parse().with_context(|| format!("failed to convert the NUMA node id {node:?}"))?;
    let limits: Vec<String> = limits.split(',').map(str::to_owned).collect();
    Ok(Reservation { numa_node, limits: pairs(&limits, "--reserved-memory")? })
}
