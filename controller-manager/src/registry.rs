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
    entry(
        "resourceclaim-controller",
        "resource-claim-controller",
        "resource-claim-controller",
        crate::resourceclaim::start,
    ),
    Registration {
        name: "device-taint-eviction-controller",
        alias: None,
        by_default: true,
        account: "device-taint-eviction-controller",
        start: crate::devicetaints::start,
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
        name: "selinux-warning-controller",
        alias: None,
        by_default: false,
        account: "selinux-warning-controller",
        start: crate::volumes::selinux::start,
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

/// A controller that upstream knows, and that does not run here.
pub struct Idle {
    /// The name, as upstream's.
    pub name: &'static str,
    /// The name that older releases knew it by.
    pub alias: Option<&'static str>,
    /// Why it does not run.
    pub why: &'static str,
}

const fn idle(name: &'static str, alias: Option<&'static str>, why: &'static str) -> Idle {
    Idle { name, alias, why }
}

const CLOUD: &str = "there is no cloud provider";

/// All of those; most need an API that v1.36 does not serve by default.
pub static IDLE: &[Idle] = &[
    idle("cloud-node-lifecycle-controller", Some("cloud-node-lifecycle"), CLOUD),
    idle("node-route-controller", Some("route"), CLOUD),
    idle("service-lb-controller", Some("service"), CLOUD),
    idle(
        "kube-apiserver-serving-clustertrustbundle-publisher-controller",
        None,
        "feature gate ClusterTrustBundle is off",
    ),
    idle("podcertificaterequest-cleaner-controller", None, "feature gate PodCertificateRequest is off"),
    idle("podgroup-protection-controller", None, "feature gate GenericWorkload is off"),
    idle("resourcepoolstatusrequest-controller", None, "feature gate DRAResourcePoolStatus is off"),
    idle(
        "storageversion-garbage-collector-controller",
        Some("storage-version-gc"),
        "feature gate StorageVersionAPI is off",
    ),
    idle("storage-version-migrator-controller", Some("svm"), "feature gate StorageVersionMigrator is off"),
    // Known to distributions that sign certificates of Services.
    idle(
        "service-ca-certificate-publisher-controller",
        Some("service-ca-cert-publisher"),
        "certificates of Services are not signed",
    ),
];

/// What a selection means.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The controllers to run, in starting order.
    pub run: Vec<&'static str>,
    /// Those that were asked for by name and do not run, with the reason.
    pub idle: Vec<(&'static str, &'static str)>,
}

/// Understands a selection. As upstream's IsControllerEnabled: what is said first about a name counts, and counts more
/// than `*`. The error is a name that no controller has.
pub fn select(selection: &[String]) -> Result<Selection, String> {
    let mut said = Vec::new();
    let mut star = false;
    for item in selection.iter().map(|item| item.trim()).filter(|item| !item.is_empty()) {
        if item == "*" {
            star = true;
            continue;
        }
        let name = item.strip_prefix('-').unwrap_or(item);
        said.push((canonical(name).ok_or_else(|| name.to_owned())?, name == item));
    }
    let about = |name: &str| said.iter().find(|(held, _)| *held == name).map(|(_, on)| *on);
    let chosen = |entry: &&Registration| about(entry.name).unwrap_or(star && entry.by_default);
    let asked = |entry: &&Idle| about(entry.name).unwrap_or(false);
    Ok(Selection {
        run: CONTROLLERS.iter().filter(chosen).map(|entry| entry.name).collect(),
        idle: IDLE.iter().filter(asked).map(|entry| (entry.name, entry.why)).collect(),
    })
}

/// The present name of a controller.
fn canonical(name: &str) -> Option<&'static str> {
    let run = CONTROLLERS.iter().map(|entry| (entry.name, entry.alias));
    let idle = IDLE.iter().map(|entry| (entry.name, entry.alias));
    run.chain(idle).find(|(held, alias)| *held == name || *alias == Some(name)).map(|(held, _)| held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(selection: &str) -> Result<Selection, String> {
        select(&selection.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    fn run(selection: &str) -> Vec<&'static str> {
        chosen(selection).expect("the names are known").run
    }

    #[test]
    fn selection() {
        assert_eq!(run("replicaset"), ["replicaset-controller"]);
        assert_eq!(run("replicaset-controller,-deployment"), ["replicaset-controller"]);
        let all = run("*").len();
        assert_eq!(all, CONTROLLERS.iter().filter(|entry| entry.by_default).count());
        assert_eq!(run("*,-deployment").len(), all - 1);
        assert_eq!(run("*,-deployment,deployment").len(), all - 1, "what is said first counts");
        assert_eq!(run("deployment,-deployment,*").len(), all);
        assert_eq!(run("*,bootstrapsigner").len(), all + 1);
    }

    #[test]
    fn names_of_upstream_are_known_and_others_refused() {
        assert_eq!(chosen("nope"), Err("nope".to_owned()));
        assert_eq!(chosen("-nope"), Err("nope".to_owned()));
        assert_eq!(chosen(""), Ok(Selection::default()));
        assert_eq!(chosen("*,-route").expect("known").idle, []);
        let asked = chosen("svm,resource-claim-controller,-route").expect("known");
        assert_eq!(asked.run, ["resourceclaim-controller"]);
        assert_eq!(
            asked.idle,
            [("storage-version-migrator-controller", "feature gate StorageVersionMigrator is off")]
        );
    }

    /// Upstream's names of v1.36 (`cmd/kube-controller-manager/names`, and the three that a cloud provides).
    const UPSTREAM: &str = "serviceaccount-token endpoints endpointslice endpointslice-mirroring replicationcontroller \
        pod-garbage-collector resourcequota namespace serviceaccount garbage-collector daemonset job deployment \
        replicaset horizontal-pod-autoscaler disruption statefulset cronjob certificatesigningrequest-signing \
        certificatesigningrequest-approving certificatesigningrequest-cleaner podcertificaterequest-cleaner ttl \
        bootstrap-signer token-cleaner node-ipam node-lifecycle taint-eviction device-taint-eviction \
        persistentvolume-binder persistentvolume-attach-detach persistentvolume-expander clusterrole-aggregation \
        persistentvolumeclaim-protection persistentvolume-protection podgroup-protection ttl-after-finished \
        root-ca-certificate-publisher service-ca-certificate-publisher \
        kube-apiserver-serving-clustertrustbundle-publisher ephemeral-volume storageversion-garbage-collector \
        resourceclaim resourcepoolstatusrequest legacy-serviceaccount-token-cleaner validatingadmissionpolicy-status \
        volumeattributesclass-protection service-cidr storage-version-migrator selinux-warning \
        service-lb node-route cloud-node-lifecycle";

    #[test]
    fn every_name_of_upstream_is_here_once() {
        let mut wanted: Vec<_> =
            UPSTREAM.split_whitespace().map(|short| format!("{short}-controller")).collect();
        wanted.push("local-path-provisioner-controller".to_owned());
        wanted.sort_unstable();
        let mut names: Vec<_> =
            CONTROLLERS.iter().map(|e| e.name).chain(IDLE.iter().map(|e| e.name)).collect();
        names.sort_unstable();
        assert_eq!(names, wanted);
        let aliases = CONTROLLERS.iter().filter_map(|e| e.alias).chain(IDLE.iter().filter_map(|e| e.alias));
        let mut all: Vec<_> = names.iter().copied().chain(aliases).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "no name or alias is used twice");
    }
}
