//! The rows. In the order of the API groups as they are served.

use crate::crd::validation as c;
use crate::defaults as d;
use crate::printers as p;
use crate::selector::kinds as f;
use crate::strategy::{self as s, Strategy, warnings as w};
use crate::validation as v;

use super::Kind;

const ADMISSION: &str = "admissionregistration.k8s.io";
const APPS: &str = "apps";
const BATCH: &str = "batch";
const FLOW: &str = "flowcontrol.apiserver.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

pub(super) static KINDS: &[Kind] = &[
    // core
    Kind::new("", "v1", "ComponentStatus").table(&p::core::COMPONENT_STATUS),
    Kind::new("", "v1", "ConfigMap")
        .table(&p::core::CONFIG_MAP)
        .validate(|o| v::typed(o, v::core::config_map), |n, o| v::typed2(n, o, v::core::config_map_update)),
    Kind::new("", "v1", "Endpoints")
        .defaults(d::core::endpoints)
        .strategy(Strategy::PLAIN.creates_on_update())
        .table(&p::core::ENDPOINTS)
        .warnings(w::endpoints)
        .validate(|o| v::typed(o, v::core::endpoints), |n, o| v::typed2(n, o, v::core::endpoints_update)),
    Kind::new("", "v1", "Event")
        .strategy(Strategy::PLAIN.creates_on_update())
        .fields(f::EVENT)
        .table(&p::core::CORE_EVENT)
        .validate(|o| v::typed(o, v::events::core), |n, o| v::typed2(n, o, v::events::core_update)),
    Kind::new("", "v1", "LimitRange").defaults(d::core::limit_range).strategy(s::core::LIMIT_RANGE).validate(
        |o| v::typed(o, v::quota::limit_range),
        |n, o| v::typed2(n, o, v::quota::limit_range_update),
    ),
    Kind::new("", "v1", "Namespace")
        .defaults(d::core::namespace)
        .strategy(s::core::NAMESPACE)
        .fields(f::NAMESPACE)
        .table(&p::core::NAMESPACE)
        .validate(|o| v::typed(o, v::core::namespace), |n, o| v::typed2(n, o, v::core::namespace_update))
        .validate_status(|n, o| v::typed2(n, o, v::core::namespace_status))
        .validate_subresources(&[("finalize", |n, o| v::typed2(n, o, v::core::namespace_finalize))]),
    Kind::new("", "v1", "Node")
        .defaults(d::core::node)
        .strategy(s::core::NODE)
        .fields(f::NODE)
        .table(&p::core::NODE)
        .warnings(w::node)
        .validate(|o| v::typed(o, v::node::create), |n, o| v::typed2(n, o, v::node::node_update))
        .validate_status(|n, o| v::typed2(n, o, v::node::update)),
    Kind::new("", "v1", "PersistentVolumeClaim")
        .defaults(d::volume::claim)
        .strategy(s::claim::CLAIM)
        .table(&p::storage::CLAIM)
        .warnings(w::volume::claim)
        .validate(|o| v::typed(o, v::claim::claim), |n, o| v::typed2(n, o, v::claim::claim_update))
        .validate_status(|n, o| v::typed2(n, o, v::claim::claim_status)),
    Kind::new("", "v1", "PersistentVolume")
        .defaults(d::volume::persistent_volume)
        .strategy(s::claim::VOLUME)
        .table(&p::storage::PERSISTENT_VOLUME)
        .warnings(w::volume::persistent_volume)
        .validate(
            |o| v::typed(o, v::claim::persistent_volume),
            |n, o| v::typed2(n, o, v::claim::persistent_volume_update),
        )
        .validate_status(|n, o| v::typed2(n, o, v::claim::persistent_volume_status)),
    Kind::new("", "v1", "Pod")
        .defaults(d::pod::pod)
        .strategy(s::pod::STRATEGY)
        .fields(f::POD)
        .table(&p::pod::POD)
        .warnings(w::pod::pod)
        .review(|o| v::reviewed(o, v::pod::create, w::pod::new_pod))
        .status_warnings(w::pod::pod_status)
        .validate(|o| v::typed(o, v::pod::create), |n, o| v::typed2(n, o, v::pod::update))
        .validate_status(|n, o| v::typed2(n, o, v::pod::status))
        .validate_subresources(&[
            ("ephemeralcontainers", |n, o| v::typed2(n, o, v::pod::ephemeral_containers)),
            ("resize", |n, o| v::typed2(n, o, v::pod::resize)),
        ]),
    Kind::new("", "v1", "PodTemplate")
        .defaults(d::apps::pod_template)
        .strategy(Strategy::PLAIN.counting(&["template"]).pod_at(&["template", "spec"]))
        .table(&p::pod::POD_TEMPLATE)
        .warnings(w::pod::pod_template)
        .validate(|o| v::typed(o, v::pod::pod_template), |n, o| v::typed2(n, o, v::pod::pod_template_update)),
    Kind::new("", "v1", "ReplicationController")
        .defaults(d::apps::replication_controller)
        .strategy(s::workload::REPLICATION_CONTROLLER)
        .fields(f::REPLICATION_CONTROLLER)
        .table(&p::workload::REPLICATION_CONTROLLER)
        .warnings(w::pod::named_workload)
        .validate(
            |o| v::typed(o, v::workload::replication_controller),
            |n, o| v::typed2(n, o, v::workload::replication_controller_update),
        )
        .validate_status(|n, o| v::typed2(n, o, v::workload::replication_controller_status)),
    Kind::new("", "v1", "ResourceQuota")
        .defaults(d::core::resource_quota)
        .strategy(Strategy::STATUS)
        .table(&p::core::RESOURCE_QUOTA)
        .validate(|o| v::typed(o, v::quota::quota), |n, o| v::typed2(n, o, v::quota::quota_update))
        .validate_status(|n, o| v::typed2(n, o, v::quota::quota_status)),
    Kind::new("", "v1", "Secret")
        .defaults(d::core::secret)
        .strategy(s::core::SECRET)
        .fields(f::SECRET)
        .table(&p::core::SECRET)
        .warnings(w::secret)
        .validate(|o| v::typed(o, v::core::secret), |n, o| v::typed2(n, o, v::core::secret_update)),
    Kind::new("", "v1", "ServiceAccount")
        .strategy(s::core::SERVICE_ACCOUNT)
        .table(&p::core::NAME_AND_AGE)
        .warnings(w::service_account)
        .validate(
            |o| v::typed(o, v::core::service_account),
            |n, o| v::typed2(n, o, v::core::service_account_update),
        ),
    Kind::new("", "v1", "Service")
        .defaults(d::core::service)
        .strategy(s::service::STRATEGY)
        .fields(f::SERVICE)
        .table(&p::core::SERVICE)
        .warnings(w::service)
        .status_warnings(w::load_balancer)
        .validate(|o| v::typed(o, v::service::create), |n, o| v::typed2(n, o, v::service::update))
        .validate_status(|n, o| v::typed2(n, o, v::service::status)),
    // apiregistration.k8s.io, apiextensions.k8s.io
    Kind::new("apiregistration.k8s.io", "v1", "APIService")
        .defaults(d::other::api_service)
        .strategy(s::other::API_SERVICE)
        .table(&p::other::API_SERVICE)
        .validate(
            |o| v::typed(o, v::registration::service),
            |n, o| v::typed2(n, o, v::registration::service_update),
        )
        .validate_status(|n, o| v::typed2(n, o, v::registration::service_status)),
    Kind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
        .defaults(d::other::custom_resource_definition)
        .strategy(s::other::CUSTOM_RESOURCE_DEFINITION)
        .warnings(c::warnings)
        .validate(|o| v::typed(o, c::create), |n, o| v::typed2(n, o, c::update))
        .validate_status(|n, o| v::typed2(n, o, c::status_update)),
    // apps, batch, autoscaling
    Kind::new(APPS, "v1", "ControllerRevision").table(&p::workload::CONTROLLER_REVISION).validate(
        |o| v::typed(o, v::workload::controller_revision),
        |n, o| v::typed2(n, o, v::workload::controller_revision_update),
    ),
    Kind::new(APPS, "v1", "DaemonSet")
        .defaults(d::apps::daemon_set)
        .strategy(s::workload::DAEMON_SET)
        .table(&p::workload::DAEMON_SET)
        .warnings(w::pod::daemon_set)
        .validate(
            |o| v::typed(o, |d| v::workload::daemon_set(d, v::has_selector(o))),
            |n, o| v::typed2(n, o, |d, p| v::workload::daemon_set_update(d, p, v::has_selector(n))),
        )
        .validate_status(|n, o| v::typed2(n, o, v::workload::daemon_set_status)),
    Kind::new(APPS, "v1", "Deployment")
        .defaults(d::apps::deployment)
        .strategy(s::workload::DEPLOYMENT)
        .table(&p::workload::DEPLOYMENT)
        .warnings(w::pod::named_workload)
        .validate(
            |o| v::typed(o, |d| v::workload::deployment(d, v::has_selector(o))),
            |n, o| v::typed2(n, o, |d, p| v::workload::deployment_update(d, p, v::has_selector(n))),
        )
        .validate_status(|n, o| v::typed2(n, o, v::workload::deployment_status)),
    Kind::new(APPS, "v1", "ReplicaSet")
        .defaults(d::apps::replica_set)
        .strategy(Strategy::WORKLOAD)
        .table(&p::workload::REPLICA_SET)
        .warnings(w::pod::named_workload)
        .validate(
            |o| v::typed(o, |d| v::workload::replica_set(d, v::has_selector(o))),
            |n, o| v::typed2(n, o, |d, p| v::workload::replica_set_update(d, p, v::has_selector(n))),
        )
        .validate_status(|n, o| v::typed2(n, o, v::workload::replica_set_status)),
    Kind::new(APPS, "v1", "StatefulSet")
        .defaults(d::apps::stateful_set)
        .strategy(s::workload::STATEFUL_SET)
        .table(&p::workload::STATEFUL_SET)
        .warnings(w::pod::stateful_set)
        .validate(
            |o| v::typed(o, |d| v::workload::stateful_set(d, v::has_selector(o))),
            |n, o| v::typed2(n, o, |d, p| v::workload::stateful_set_update(d, p, v::has_selector(n))),
        )
        .validate_status(|n, o| v::typed2(n, o, v::workload::stateful_set_status)),
    Kind::new(BATCH, "v1", "CronJob")
        .defaults(d::apps::cron_job)
        .strategy(Strategy::SPEC_STATUS.pod_at(&["spec", "jobTemplate", "spec", "template", "spec"]))
        .table(&p::workload::CRON_JOB)
        .warnings(w::pod::cron_job)
        .validate(|o| v::typed(o, v::job::cron_job), |n, o| v::typed2(n, o, v::job::cron_job_update))
        .validate_status(|_, _| Vec::new()),
    Kind::new(BATCH, "v1", "Job")
        .defaults(d::apps::job)
        .strategy(s::workload::JOB)
        .fields(f::JOB)
        .table(&p::workload::JOB)
        .warnings(w::pod::job)
        .validate(|o| v::typed(o, v::job::job), |n, o| v::typed2(n, o, v::job::job_update))
        .validate_status(|n, o| v::typed2(n, o, v::job::status)),
    Kind::new("autoscaling", "v1", "HorizontalPodAutoscaler")
        .defaults(d::autoscaling::autoscaler_v1)
        .strategy(Strategy::STATUS)
        .table(&p::scaling::AUTOSCALER)
        .validate(|o| v::typed(o, v::autoscaling::create), |n, o| v::typed2(n, o, v::autoscaling::update))
        .validate_status(|n, o| v::typed2(n, o, v::autoscaling::status)),
    Kind::new("autoscaling", "v2", "HorizontalPodAutoscaler")
        .defaults(d::autoscaling::autoscaler_v2)
        .strategy(Strategy::STATUS)
        .table(&p::scaling::AUTOSCALER)
        .validate(|o| v::typed(o, v::autoscaling::create), |n, o| v::typed2(n, o, v::autoscaling::update))
        .validate_status(|n, o| v::typed2(n, o, v::autoscaling::status)),
    Kind::new("autoscaling", "v1", "Scale").table(&p::scaling::SCALE),
    Kind::new("policy", "v1", "PodDisruptionBudget")
        .strategy(Strategy::SPEC_STATUS.conditional())
        .table(&p::scaling::DISRUPTION_BUDGET)
        .validate(|o| v::typed(o, v::policy::budget), |n, o| v::typed2(n, o, v::policy::budget_update))
        .validate_status(|n, o| v::typed2(n, o, v::policy::budget_status)),
    // events.k8s.io, coordination.k8s.io, discovery.k8s.io, scheduling.k8s.io, node.k8s.io
    Kind::new("events.k8s.io", "v1", "Event")
        .strategy(Strategy::PLAIN.creates_on_update())
        .fields(f::NEW_EVENT)
        .table(&p::core::CORE_EVENT)
        .validate(|o| v::typed(o, v::events::create), |n, o| v::typed2(n, o, v::events::update)),
    Kind::new("coordination.k8s.io", "v1", "Lease")
        .strategy(s::other::LEASE)
        .table(&p::other::LEASE)
        .validate(|o| v::typed(o, v::policy::lease), |n, o| v::typed2(n, o, v::policy::lease_update)),
    Kind::new("discovery.k8s.io", "v1", "EndpointSlice")
        .defaults(d::other::endpoint_slice)
        .strategy(s::other::ENDPOINT_SLICE)
        .table(&p::core::ENDPOINT_SLICE)
        .warnings(w::endpoint_slice)
        .validate(|o| v::typed(o, v::discovery::create), |n, o| v::typed2(n, o, v::discovery::update)),
    Kind::new("scheduling.k8s.io", "v1", "PriorityClass")
        .defaults(d::other::priority_class)
        .strategy(Strategy::PLAIN.fixed_generation().undeletable(
            &["system-node-critical", "system-cluster-critical"],
            "this is a system priority class and cannot be deleted",
        ))
        .table(&p::other::PRIORITY_CLASS)
        .validate(
            |o| v::typed(o, v::policy::priority_class),
            |n, o| v::typed2(n, o, v::policy::priority_class_update),
        ),
    Kind::new("node.k8s.io", "v1", "RuntimeClass")
        .defaults(d::core::runtime_class)
        .strategy(Strategy::PLAIN.conditional().creates_on_update())
        .table(&p::other::RUNTIME_CLASS)
        .warnings(w::runtime_class)
        .validate(
            |o| v::typed(o, v::policy::runtime_class),
            |n, o| v::typed2(n, o, v::policy::runtime_class_update),
        ),
    // authentication.k8s.io, certificates.k8s.io
    Kind::new("authentication.k8s.io", "v1", "TokenRequest").defaults(d::other::token_request),
    Kind::new("certificates.k8s.io", "v1", "CertificateSigningRequest")
        .strategy(s::other::CERTIFICATE_SIGNING_REQUEST)
        .fields(f::CERTIFICATE_SIGNING_REQUEST)
        .table(&p::policy::CERTIFICATE_SIGNING_REQUEST)
        .validate(|o| v::typed(o, v::certificates::create), |n, o| v::typed2(n, o, v::certificates::update))
        .validate_status(|n, o| v::typed2(n, o, v::certificates::status))
        .validate_subresources(&[("approval", |n, o| v::typed2(n, o, v::certificates::approval))]),
    // networking.k8s.io
    Kind::new(NETWORKING, "v1", "IngressClass")
        .defaults(d::other::ingress_class)
        .strategy(Strategy::SPEC)
        .table(&p::core::INGRESS_CLASS)
        .validate(|o| v::typed(o, v::networking::class), |n, o| v::typed2(n, o, v::networking::class_update)),
    Kind::new(NETWORKING, "v1", "Ingress")
        .strategy(Strategy::SPEC_STATUS)
        .table(&p::core::INGRESS)
        .warnings(w::ingress)
        .status_warnings(w::load_balancer)
        .validate(
            |o| v::typed(o, v::networking::ingress),
            |n, o| v::typed2(n, o, v::networking::ingress_update),
        )
        .validate_status(|n, o| v::typed2(n, o, v::networking::ingress_status)),
    Kind::new(NETWORKING, "v1", "IPAddress").table(&p::core::IP_ADDRESS).validate(
        |o| v::typed(o, v::networking::address),
        |n, o| v::typed2(n, o, v::networking::address_update),
    ),
    Kind::new(NETWORKING, "v1", "NetworkPolicy")
        .defaults(d::other::network_policy)
        .strategy(Strategy::SPEC)
        .table(&p::core::NETWORK_POLICY)
        .warnings(w::network_policy)
        .validate(
            |o| v::typed(o, v::networking::policy),
            |n, o| v::typed2(n, o, v::networking::policy_update),
        ),
    Kind::new(NETWORKING, "v1", "ServiceCIDR")
        .strategy(Strategy::STATUS.status_keeps_meta())
        .table(&p::core::SERVICE_CIDR)
        .validate(
            |o| v::typed(o, v::networking::service_cidr),
            |n, o| v::typed2(n, o, v::networking::service_cidr_update),
        )
        .validate_status(|n, o| v::typed2(n, o, v::networking::service_cidr_status)),
    // rbac.authorization.k8s.io
    Kind::new(RBAC, "v1", "ClusterRoleBinding")
        .defaults(d::other::role_binding)
        .strategy(Strategy::PLAIN.creates_on_update())
        .table(&p::policy::CLUSTER_ROLE_BINDING)
        .validate(
            |o| v::typed(o, v::rbac::cluster_role_binding),
            |n, o| v::typed2(n, o, v::rbac::cluster_role_binding_update),
        ),
    Kind::new(RBAC, "v1", "ClusterRole").strategy(Strategy::PLAIN.creates_on_update()).validate(
        |o| v::typed(o, v::rbac::cluster_role),
        |n, o| v::typed2(n, o, v::rbac::cluster_role_update),
    ),
    Kind::new(RBAC, "v1", "RoleBinding")
        .defaults(d::other::role_binding)
        .strategy(Strategy::PLAIN.creates_on_update())
        .table(&p::policy::ROLE_BINDING)
        .validate(
            |o| v::typed(o, v::rbac::role_binding),
            |n, o| v::typed2(n, o, v::rbac::role_binding_update),
        ),
    Kind::new(RBAC, "v1", "Role")
        .strategy(Strategy::PLAIN.creates_on_update())
        .validate(|o| v::typed(o, v::rbac::role), |n, o| v::typed2(n, o, v::rbac::role_update)),
    // storage.k8s.io
    Kind::new(STORAGE, "v1", "CSIDriver")
        .defaults(d::volume::csi_driver)
        .strategy(s::claim::CSI_DRIVER)
        .table(&p::storage::CSI_DRIVER)
        .warnings(w::volume::driver)
        .validate(|o| v::typed(o, v::storage::driver), |n, o| v::typed2(n, o, v::storage::driver_update)),
    Kind::new(STORAGE, "v1", "CSINode")
        .strategy(Strategy::PLAIN.conditional())
        .table(&p::storage::CSI_NODE)
        .validate(|o| v::typed(o, v::storage::node), |n, o| v::typed2(n, o, v::storage::node_update)),
    Kind::new(STORAGE, "v1", "CSIStorageCapacity")
        .strategy(Strategy::PLAIN.conditional())
        .warnings(w::volume::capacity)
        .validate(|o| v::typed(o, v::storage::capacity), |n, o| v::typed2(n, o, v::storage::capacity_update)),
    Kind::new(STORAGE, "v1", "StorageClass")
        .defaults(d::volume::storage_class)
        .table(&p::storage::STORAGE_CLASS)
        .warnings(w::volume::storage_class)
        .validate(|o| v::typed(o, v::storage::class), |n, o| v::typed2(n, o, v::storage::class_update)),
    Kind::new(STORAGE, "v1", "VolumeAttachment")
        .defaults(d::volume::attachment)
        .strategy(Strategy::STATUS.conditional().status_keeps_meta())
        .table(&p::storage::VOLUME_ATTACHMENT)
        .validate(
            |o| v::typed(o, v::storage::attachment),
            |n, o| v::typed2(n, o, v::storage::attachment_update),
        )
        .validate_status(|n, o| v::typed2(n, o, v::storage::attachment_status)),
    Kind::new(STORAGE, "v1", "VolumeAttributesClass").table(&p::storage::VOLUME_ATTRIBUTES_CLASS).validate(
        |o| v::typed(o, v::storage::attributes_class),
        |n, o| v::typed2(n, o, v::storage::attributes_class_update),
    ),
    // admissionregistration.k8s.io
    Kind::new(ADMISSION, "v1", "MutatingAdmissionPolicy")
        .defaults(d::admission::policy)
        .strategy(Strategy::SPEC.conditional())
        .table(&p::policy::MUTATING_POLICY)
        .validate(
            |o| v::typed(o, v::admission::policy::mutating),
            |n, o| v::typed2(n, o, v::admission::policy::mutating_update),
        ),
    Kind::new(ADMISSION, "v1", "MutatingAdmissionPolicyBinding")
        .defaults(d::admission::policy_binding)
        .strategy(Strategy::SPEC.conditional())
        .table(&p::policy::POLICY_BINDING)
        .validate(
            |o| v::typed(o, v::admission::policy::mutating_binding),
            |n, o| v::typed2(n, o, v::admission::policy::mutating_binding_update),
        ),
    Kind::new(ADMISSION, "v1", "MutatingWebhookConfiguration")
        .defaults(d::admission::mutating_webhooks)
        .strategy(Strategy::PLAIN.counting(&["webhooks"]).conditional())
        .table(&p::policy::WEBHOOK_CONFIGURATION)
        .validate(
            |o| v::typed(o, v::admission::mutating),
            |n, o| v::typed2(n, o, v::admission::mutating_update),
        ),
    Kind::new(ADMISSION, "v1", "ValidatingAdmissionPolicy")
        .defaults(d::admission::policy)
        .strategy(Strategy::SPEC_STATUS.conditional().status_keeps_meta())
        .table(&p::policy::VALIDATING_POLICY)
        .validate(
            |o| v::typed(o, v::admission::policy::validating),
            |n, o| v::typed2(n, o, v::admission::policy::validating_update),
        )
        .validate_status(|n, o| v::typed2(n, o, v::admission::policy::validating_status)),
    Kind::new(ADMISSION, "v1", "ValidatingAdmissionPolicyBinding")
        .defaults(d::admission::policy_binding)
        .strategy(Strategy::SPEC.conditional())
        .table(&p::policy::POLICY_BINDING)
        .validate(
            |o| v::typed(o, v::admission::policy::validating_binding),
            |n, o| v::typed2(n, o, v::admission::policy::validating_binding_update),
        ),
    Kind::new(ADMISSION, "v1", "ValidatingWebhookConfiguration")
        .defaults(d::admission::validating_webhooks)
        .strategy(Strategy::PLAIN.counting(&["webhooks"]).conditional())
        .table(&p::policy::WEBHOOK_CONFIGURATION)
        .validate(
            |o| v::typed(o, v::admission::validating),
            |n, o| v::typed2(n, o, v::admission::validating_update),
        ),
    // resource.k8s.io
    Kind::new(RESOURCE, "v1", "DeviceClass")
        .strategy(Strategy::SPEC)
        .table(&p::core::NAME_AND_AGE)
        .validate(|o| v::typed(o, v::devices::class), |n, o| v::typed2(n, o, v::devices::class_update)),
    Kind::new(RESOURCE, "v1", "ResourceClaim")
        .defaults(d::other::resource_claim)
        .strategy(s::devices::CLAIM)
        .table(&p::other::RESOURCE_CLAIM)
        .validate(|o| v::typed(o, v::devices::claim), |n, o| v::typed2(n, o, v::devices::claim_update))
        .validate_status(|n, o| v::typed2(n, o, v::devices::claim_status)),
    Kind::new(RESOURCE, "v1", "ResourceClaimTemplate")
        .defaults(d::other::resource_claim_template)
        .table(&p::core::NAME_AND_AGE)
        .validate(|o| v::typed(o, v::devices::template), |n, o| v::typed2(n, o, v::devices::template_update)),
    Kind::new(RESOURCE, "v1", "ResourceSlice")
        .defaults(d::other::resource_slice)
        .strategy(s::devices::SLICE)
        .fields(f::RESOURCE_SLICE)
        .table(&p::other::RESOURCE_SLICE)
        .warnings(w::resource_slice)
        .validate(
            |o| v::typed(o, v::devices::slice::create),
            |n, o| v::typed2(n, o, v::devices::slice::update),
        ),
    // flowcontrol.apiserver.k8s.io
    Kind::new(FLOW, "v1", "FlowSchema")
        .defaults(d::other::flow_schema)
        .strategy(Strategy::SPEC_STATUS.status_keeps_meta())
        .table(&p::other::FLOW_SCHEMA)
        .validate(
            |o| v::typed(o, v::flowcontrol::schema),
            |n, o| v::typed2(n, o, v::flowcontrol::schema_update),
        )
        .validate_status(|n, o| v::typed2(n, o, v::flowcontrol::schema_status)),
    Kind::new(FLOW, "v1", "PriorityLevelConfiguration")
        .defaults(d::other::priority_level)
        .strategy(Strategy::SPEC_STATUS.status_keeps_meta())
        .table(&p::other::PRIORITY_LEVEL)
        .validate(
            |o| v::typed(o, v::flowcontrol::level),
            |n, o| v::typed2(n, o, v::flowcontrol::level_update),
        )
        .validate_status(|n, o| v::typed2(n, o, v::flowcontrol::level_status)),
];
