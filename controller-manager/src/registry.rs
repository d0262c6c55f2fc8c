//! The controllers there are: name, older name, whether it runs unless asked for, and how it starts.

use crate::context::Context;

/// One controller.
pub struct Registration {
    /// The name, as upstream's.
    pub name: &'static str,
    /// The name that older releases knew it by.
    pub alias: Option<&'static str>,
    /// Whether `*` includes it.
    pub by_default: bool,
    /// The service account in `kube-system` that it runs as, if each has its own; empty for the process's own rights.
    pub account: &'static str,
    /// Registers its caches and starts its tasks.
    pub start: fn(&Context),
}

const fn entry(
    name: &'static str,
    alias: &'static str,
    account: &'static str,
    start: fn(&Context),
) -> Registration {
    Registration { name, alias: Some(alias), by_default: true, account, start }
}

/// All of them, in the order they start.
pub static CONTROLLERS: &[Registration] = &[
    entry("namespace-controller", "namespace", "namespace-controller", crate::namespace::start),
    entry(
        "serviceaccount-controller",
        "serviceaccount",
        "service-account-controller",
        crate::serviceaccount::start,
    ),
    entry(
        "root-ca-certificate-publisher-controller",
        "root-ca-cert-publisher",
        "root-ca-cert-publisher",
        crate::root_ca::start,
    ),
    entry(
        "replicaset-controller",
        "replicaset",
        "replicaset-controller",
        crate::replicaset::start_replicasets,
    ),
    entry(
        "replicationcontroller-controller",
        "replicationcontroller",
        "replication-controller",
        crate::replicaset::start_replication_controllers,
    ),
    entry("deployment-controller", "deployment", "deployment-controller", crate::deployment::start),
    entry("statefulset-controller", "statefulset", "statefulset-controller", crate::statefulset::start),
    entry("daemonset-controller", "daemonset", "daemon-set-controller", crate::daemonset::start),
    entry("job-controller", "job", "job-controller", crate::job::start),
    entry("cronjob-controller", "cronjob", "cronjob-controller", crate::cronjob::start),
    entry(
        "ttl-after-finished-controller",
        "ttl-after-finished",
        "ttl-after-finished-controller",
        crate::ttlafterfinished::start,
    ),
    entry(
        "horizontal-pod-autoscaler-controller",
        "horizontalpodautoscaling",
        "horizontal-pod-autoscaler",
        crate::autoscaler::start,
    ),
    entry("disruption-controller", "disruption", "disruption-controller", crate::disruption::start),
    entry(
        "clusterrole-aggregation-controller",
        "clusterrole-aggregation",
        "clusterrole-aggregation-controller",
        crate::clusterrole_aggregation::start,
    ),
    entry("resourcequota-controller", "resourcequota", "resourcequota-controller", crate::quota::start),
    entry(
        "certificatesigningrequest-signing-controller",
        "csrsigning",
        "certificate-controller",
        crate::csr::start_signing,
    ),
    entry(
        "certificatesigningrequest-approving-controller",
        "csrapproving",
        "certificate-controller",
        crate::csr::start_approving,
    ),
    entry(
        "certificatesigningrequest-cleaner-controller",
        "csrcleaner",
        "certificate-controller",
        crate::csr::start_cleaning,
    ),
    entry(
        "persistentvolumeclaim-protection-controller",
        "pvc-protection",
        "pvc-protection-controller",
        crate::protection::start_claims,
    ),
    entry(
        "persistentvolume-protection-controller",
        "pv-protection",
        "pv-protection-controller",
        crate::protection::start_volumes,
    ),
    Registration {
        name: "volumeattributesclass-protection-controller",
        alias: None,
        by_default: true,
        account: "volumeattributesclass-protection-controller",
        start: crate::protection::start_attributes_classes,
    },
    entry(
        "persistentvolume-binder-controller",
        "persistentvolume-binder",
        "persistent-volume-binder",
        crate::volumes::binder::start,
    ),
    entry(
        "persistentvolume-attach-detach-controller",
        "attachdetach",
        "attachdetach-controller",
        crate::volumes::attach::start,
    ),
    entry(
        "persistentvolume-expander-controller",
        "persistentvolume-expander",
        "expand-controller",
        crate::volumes::expand::start,
    ),
    entry(
        "ephemeral-volume-controller",
        "ephemeral-volume",
        "ephemeral-volume-controller",
        crate::volumes::ephemeral::start,
    ),
    // Not one of upstream's; it does what its binder does for plugins of Kubernetes itself, with the same rights.
    Registration {
        name: "local-path-provisioner-controller",
        alias: None,
        by_default: true,
        account: "persistent-volume-binder",
        start: crate::volumes::local_path::start,
    },
    Registration {
        name: "resourceclaim-controller",
        alias: None,
        by_default: true,
        account: "resource-claim-controller",
        start: crate::resourceclaim::start,
    },
    entry(
        "legacy-serviceaccount-token-cleaner-controller",
        "legacy-service-account-token-cleaner",
        "legacy-service-account-token-cleaner",
        crate::legacy_tokens::start,
    ),
    entry("serviceaccount-token-controller", "serviceaccount-token", "", crate::serviceaccount_tokens::start),
    Registration {
        name: "validatingadmissionpolicy-status-controller",
        alias: None,
        by_default: true,
        account: "validatingadmissionpolicy-status-controller",
        start: crate::admissionpolicy::start,
    },
    Registration {
        name: "service-cidr-controller",
        alias: None,
        by_default: true,
        account: "service-cidrs-controller",
        start: crate::servicecidr::start,
    },
    entry("ttl-controller", "ttl", "ttl-controller", crate::ttl::start),
    Registration {
        name: "bootstrap-signer-controller",
        alias: Some("bootstrapsigner"),
        by_default: false,
        account: "bootstrap-signer",
        start: crate::bootstrap::start_signer,
    },
    Registration {
        name: "token-cleaner-controller",
        alias: Some("tokencleaner"),
        by_default: false,
        account: "token-cleaner",
        start: crate::bootstrap::start_cleaner,
    },
    entry("endpoints-controller", "endpoint", "endpoint-controller", crate::endpoints::start),
    entry(
        "endpointslice-controller",
        "endpointslice",
        "endpointslice-controller",
        crate::endpointslice::start,
    ),
    entry("pod-garbage-collector-controller", "podgc", "pod-garbage-collector", crate::podgc::start),
    entry("node-ipam-controller", "nodeipam", "node-controller", crate::nodeipam::start),
    entry("node-lifecycle-controller", "nodelifecycle", "node-controller", crate::nodelifecycle::start),
    Registration {
        name: "taint-eviction-controller",
        alias: None,
        by_default: true,
        account: "node-controller",
        start: crate::tainteviction::start,
    },
    entry(
        "endpointslice-mirroring-controller",
        "endpointslicemirroring",
        "endpointslicemirroring-controller",
        crate::endpointslicemirroring::start,
    ),
    entry(
        "garbage-collector-controller",
        "garbagecollector",
        "generic-garbage-collector",
        crate::garbagecollector::start,
    ),
];

/// The controllers that a selection means, in starting order. As upstream's IsControllerEnabled: a name that is
/// given counts more than `*`. The error is a name that no controller has.
pub fn select(selection: &[String]) -> Result<Vec<&'static str>, String> {
    let canonical = |name: &str| {
        CONTROLLERS
            .iter()
            .find(|entry| entry.name == name || entry.alias == Some(name))
            .map(|entry| entry.name)
    };
    let mut on = Vec::new();
    let mut off = Vec::new();
    let mut star = false;
    for item in selection.iter().map(|item| item.trim()).filter(|item| !item.is_empty()) {
        if item == "*" {
            star = true;
            continue;
        }
        let (list, name) = match item.strip_prefix('-') {
            Some(name) => (&mut off, name),
            None => (&mut on, item),
        };
        match canonical(name) {
            Some(name) => list.push(name),
            None if UPSTREAM_ONLY.contains(&name) => {}
            None => return Err(name.to_owned()),
        }
    }
    let chosen = |entry: &&Registration| {
        on.contains(&entry.name) || (star && entry.by_default && !off.contains(&entry.name))
    };
    Ok(CONTROLLERS.iter().filter(chosen).map(|entry| entry.name).collect())
}

/// Names that upstream knows and that name nothing here; a selection may mention them.
const UPSTREAM_ONLY: &[&str] = &[
    "cloud-node-lifecycle",
    "cloud-node-lifecycle-controller",
    "device-taint-eviction-controller",
    "kube-apiserver-serving-clustertrustbundle-publisher-controller",
    "node-route-controller",
    "podcertificaterequest-cleaner-controller",
    "podgroup-protection-controller",
    "resourcepoolstatusrequest-controller",
    "route",
    "selinux-warning-controller",
    "service",
    "service-ca-certificate-publisher-controller",
    "service-ca-cert-publisher",
    "service-lb-controller",
    "storage-version-gc",
    "storage-version-migrator-controller",
    "storageversion-garbage-collector-controller",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(selection: &str) -> Result<Vec<&'static str>, String> {
        select(&selection.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn selection() {
        assert_eq!(chosen("replicaset").expect("known"), ["replicaset-controller"]);
        assert_eq!(chosen("replicaset-controller,-deployment").expect("known"), ["replicaset-controller"]);
        let all = chosen("*").expect("known").len();
        assert_eq!(all, CONTROLLERS.iter().filter(|entry| entry.by_default).count());
        assert_eq!(chosen("*,-deployment").expect("known").len(), all - 1);
        assert_eq!(chosen("*,-deployment,deployment").expect("known").len(), all);
        assert_eq!(chosen("*,-route").expect("upstream knows it").len(), all);
        assert_eq!(chosen("nope"), Err("nope".to_owned()));
        assert_eq!(chosen("").expect("nothing"), Vec::<&str>::new());
    }

    #[test]
    fn no_name_is_used_twice() {
        let mut names: Vec<_> =
            CONTROLLERS.iter().flat_map(|e| std::iter::once(e.name).chain(e.alias)).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
