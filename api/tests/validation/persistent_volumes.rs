//! Persistent volumes (upstream `core/validation`).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::{below, changes, wholly, with};

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "PersistentVolume")
}

fn base() -> Value {
    json!({
        "metadata": {"name": "foo"},
        "spec": {
            "capacity": {"storage": "10G"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "valid",
            "hostPath": {"path": "/foo", "type": "Directory"},
        },
    })
}

fn csi() -> Value {
    with(
        &base(),
        &json!({"spec": {"hostPath": null, "csi": {"driver": "test-driver", "volumeHandle": "test-123"}}}),
    )
}

fn volumes(cases: &[(Value, &str)]) {
    wholly(&kind(), &base(), cases);
}

/// Changes after which the volume has one source, of a kind of its own.
fn sourced(key: &str, source: &Value) -> Value {
    json!({"spec": {"hostPath": null, key: source}})
}

fn affinity(key: &str, value: &str) -> Value {
    affinities(&[&[(key, value)]])
}

fn affinities(terms: &[&[(&str, &str)]]) -> Value {
    let expressions = |pairs: &[(&str, &str)]| -> Value {
        pairs.iter().map(|(key, value)| json!({"key": key, "operator": "In", "values": [value]})).collect()
    };
    let terms: Vec<Value> =
        terms.iter().map(|pairs| json!({"matchExpressions": expressions(pairs)})).collect();
    json!({"required": {"nodeSelectorTerms": terms}})
}

#[test]
fn metadata_and_spec() {
    let spec = |spec: Value| json!({"spec": spec});
    let modes =
        "supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"";
    let root =
        "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'";
    let host = |path: &str, policy: &str| {
        spec(json!({"hostPath": {"path": path}, "persistentVolumeReclaimPolicy": policy}))
    };
    let subdomain = "a lowercase RFC 1123 subdomain must consist of";
    let term = "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0]";
    volumes(&[
        (json!({}), ""),
        (spec(json!({"capacity": {"storage": "10Gi"}})), ""),
        (spec(json!({"capacity": {"storage": "10"}})), ""),
        (spec(json!({"persistentVolumeReclaimPolicy": "Retain"})), ""),
        (
            spec(json!({"persistentVolumeReclaimPolicy": "fakeReclaimPolicy"})),
            "spec.persistentVolumeReclaimPolicy: Unsupported value: \"fakeReclaimPolicy\"",
        ),
        (spec(json!({"volumeMode": "Filesystem"})), ""),
        (spec(json!({"volumeMode": "Block"})), ""),
        (
            spec(json!({"volumeMode": "fakeVolumeMode"})),
            "spec.volumeMode: Unsupported value: \"fakeVolumeMode\": supported values: \"Block\", \"Filesystem\"",
        ),
        (spec(json!({"volumeMode": ""})), "spec.volumeMode: Unsupported value: \"\""),
        (
            spec(json!({"accessModes": ["fakemode"]})),
            &format!("spec.accessModes: Unsupported value: \"fakemode\": {modes}"),
        ),
        (spec(json!({"accessModes": ["ReadWriteOncePod"]})), ""),
        (
            spec(json!({"accessModes": ["ReadWriteOncePod", "ReadWriteMany"]})),
            "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
        ),
        (spec(json!({"accessModes": null})), "spec.accessModes: Required value"),
        (
            json!({"metadata": {"namespace": "unexpected"}}),
            "metadata.namespace: Forbidden: not allowed on this type",
        ),
        (json!({"metadata": {"name": "123*Bad(Name"}}), &format!("metadata.name: {subdomain}")),
        (json!({"metadata": {"name": ""}}), "metadata.name: Required value"),
        (spec(json!({"hostPath": null})), "spec: Required value: must specify a volume type"),
        (
            spec(json!({"capacity": null})),
            "spec.capacity: Required value | spec.capacity: Unsupported value: null: supported values: \"storage\"",
        ),
        (
            spec(json!({"capacity": {"storage": "0"}})),
            "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
        ),
        (
            spec(json!({"gcePersistentDisk": {"pdName": "foo", "fsType": "ext4"}})),
            "spec.gcePersistentDisk: Forbidden: may not specify more than 1 volume type",
        ),
        (host("/", "Recycle"), root),
        (host("/a/..", "Recycle"), &format!("spec.hostPath.path: must not contain '..' | {root}")),
        (host("/foo/..", "Retain"), "spec.hostPath.path: must not contain '..'"),
        (spec(json!({"storageClassName": "-invalid-"})), &format!("spec.storageClassName: {subdomain}")),
        (spec(json!({"nodeAffinity": affinity("foo", "bar")})), ""),
        (
            spec(json!({"nodeAffinity": {}})),
            "spec.nodeAffinity.required: Required value: must specify required node constraints",
        ),
        (
            spec(json!({"nodeAffinity": affinity("", "test-label-value")})),
            &format!("{term}.key: name part must be non-empty | {term}.key: name part must consist of"),
        ),
        (
            spec(json!({"nodeAffinity": affinity("foo", "-1")})),
            &format!("{term}.values[0]: Invalid value: \"-1\": a valid label must be"),
        ),
        (
            spec(json!({"volumeAttributesClassName": "-invalid-"})),
            &format!(
                "spec.volumeAttributesClassName: {subdomain} | spec.csi: Required value: has to be specified when using volumeAttributesClassName"
            ),
        ),
        (
            spec(json!({"volumeAttributesClassName": ""})),
            "spec.volumeAttributesClassName: Required value: an empty string is disallowed | spec.csi: Required value",
        ),
        (spec(json!({"volumeAttributesClassName": "valid"})), "spec.csi: Required value"),
    ]);
    wholly(&kind(), &csi(), &[(spec(json!({"volumeAttributesClassName": "valid"})), "")]);
}

#[test]
fn local_volumes() {
    let local = |path: &str, affinity: Value| json!({"spec": {"hostPath": null, "local": {"path": path}, "nodeAffinity": affinity}});
    let somewhere = || affinity("foo", "bar");
    volumes(&[
        (local("/foo", somewhere()), ""),
        (local("foo", somewhere()), ""),
        (
            local("/foo", Value::Null),
            "spec.nodeAffinity: Required value: Local volume requires node affinity",
        ),
        (local("", somewhere()), "spec.local.path: Required value"),
        (local("/foo/..", somewhere()), "spec.local.path: must not contain '..'"),
    ]);
}

#[test]
fn other_sources() {
    let gluster = |changes: Value| {
        let mut source = json!({"endpoints": "my-endpoint", "path": "/tmp"});
        api::patch::merge::apply(&mut source, changes);
        sourced("glusterfs", &source)
    };
    let options = json!({
        "myns.io": "A", "myns.io/bar": "A", "myns.io/kubernetes.io": "A", "KUBERNETES.IO": "A", "kubernetes.io": "A",
        "kubernetes.io/": "A", "kubernetes.io/foo": "A", "alpha.kubernetes.io": "A", "alpha.kubernetes.io/": "A",
        "alpha.kubernetes.io/foo": "A", "k8s.io": "A", "k8s.io/": "A", "k8s.io/foo": "A", "alpha.k8s.io": "A",
        "alpha.k8s.io/": "A", "alpha.k8s.io/foo": "A",
    });
    let mut keys: Vec<&String> = options.as_object().unwrap().keys().collect();
    keys.sort();
    let reserved: Vec<String> = keys
        .into_iter()
        .filter(|key| !key.starts_with("myns.io"))
        .map(|key| {
            format!("spec.flexVolume.options[{key}]: kubernetes.io and k8s.io namespaces are reserved")
        })
        .collect();
    volumes(&[
        (gluster(json!({})), ""),
        (gluster(json!({"endpoints": ""})), "spec.glusterfs.endpoints: Required value"),
        (gluster(json!({"path": ""})), "spec.glusterfs.path: Required value"),
        (
            gluster(json!({"endpointsNamespace": ""})),
            "spec.glusterfs.endpointsNamespace: if the endpointnamespace is set, it must be a valid namespace name",
        ),
        (
            gluster(json!({"endpoints": "", "path": ""})),
            "spec.glusterfs.endpoints: Required value | spec.glusterfs.path: Required value",
        ),
        (sourced("flexVolume", &json!({"driver": "foo"})), ""),
        (sourced("flexVolume", &json!({"driver": "foo", "options": {"foo": "bar"}})), ""),
        (sourced("flexVolume", &json!({"driver": ""})), "spec.flexVolume.driver: Required value"),
        (sourced("flexVolume", &json!({"driver": "foo", "options": options})), &reserved.join(" | ")),
    ]);
}

#[test]
fn csi_volumes() {
    let place = |changes: &Value| json!({"spec": {"csi": changes}});
    let driver = |name: &str| json!({"driver": name});
    let subdomain = ".driver: a lowercase RFC 1123 subdomain must consist of";
    below(
        &kind(),
        &csi(),
        "spec.csi",
        place,
        &[
            (json!({"readOnly": true}), ""),
            (driver(""), ".driver: Required value"),
            (json!({"volumeHandle": ""}), ".volumeHandle: Required value"),
            (driver("comgooglestoragecsigcepd"), ""),
            (driver("io.kubernetes.storage.csi.flex"), ""),
            (driver("io-kubernetes-storage-csi-flex"), ""),
            (driver("io_kubernetes_storage_csi_flex"), subdomain),
            (driver("io.kubernetes.storage_csi.flex"), subdomain),
            (driver("2io.kubernetes.storage-csi.flex"), ""),
            (driver("io.kubernetes.storage-csi.flex2"), ""),
            (driver("io.kubernetes-storage.csi_flex"), subdomain),
            (driver("a"), ""),
            (driver(&"g".repeat(65)), ".driver: Too long: may not be more than 63 bytes"),
            (driver("_comgooglestoragecsigcepd"), subdomain),
            (driver("comgooglestoragecsigcepd/"), subdomain),
            (driver("com/google/storage/csi~gcepd"), subdomain),
        ],
    );
    for key in [
        "controllerExpandSecretRef",
        "controllerPublishSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let secret = |name: &str, namespace: &str| json!({key: {"name": name, "namespace": namespace}});
        below(
            &kind(),
            &csi(),
            &format!("spec.csi.{key}"),
            place,
            &[
                (secret("foobar", "default"), ""),
                (secret(&"g".repeat(63), "default"), ""),
                (secret(&"g".repeat(65), "default"), ""),
                (secret(&"g".repeat(255), "default"), ".name: must be no more than 253 characters"),
                (secret("", "default"), ".name: Required value"),
                (secret("foobar", ""), ".namespace: Required value"),
                (secret("$%^&*#", "default"), ".name: a lowercase RFC 1123 subdomain must consist of"),
                (secret("valid", "$%^&*#"), ".namespace: a lowercase RFC 1123 label must consist of"),
            ],
        );
    }
}

const IMMUTABLE: &str =
    "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation";

#[test]
fn updates_of_sources() {
    changes(
        &kind(),
        "",
        &base(),
        &[
            (json!({}), json!({}), ""),
            (
                json!({}),
                sourced("flexVolume", &json!({"driver": "kubernetes.io/blue", "fsType": "ext4"})),
                IMMUTABLE,
            ),
            (json!({}), json!({"spec": {"hostPath": {"path": "/updated"}}}), IMMUTABLE),
        ],
    );
    let secret =
        |key: &str, name: &str| json!({"spec": {"csi": {key: {"name": name, "namespace": "default"}}}});
    let (short, long) = ("key-name", "key-name.example.com");
    for key in [
        "controllerExpandSecretRef",
        "controllerPublishSecretRef",
        "nodePublishSecretRef",
        "nodeStageSecretRef",
    ] {
        // Only this one may be set later, and once.
        let set = if key == "controllerExpandSecretRef" { "" } else { IMMUTABLE };
        changes(
            &kind(),
            "",
            &csi(),
            &[
                (json!({}), secret(key, short), set),
                (json!({}), secret(key, long), set),
                (secret(key, short), secret(key, short), ""),
                (secret(key, long), secret(key, long), ""),
                (secret(key, short), secret(key, long), IMMUTABLE),
            ],
        );
    }
    let stage = |name: &str, namespace: &str| json!({"spec": {"csi": {"nodeStageSecretRef": {"name": name, "namespace": namespace}}}});
    changes(
        &kind(),
        "",
        &csi(),
        &[
            (stage("", ""), stage("", ""), ""),
            (stage("", "default"), stage("", "default"), ""),
            (stage("invalidnamespace", ""), stage("invalidnamespace", ""), ""),
        ],
    );
}

#[test]
fn updates_of_affinity() {
    let of = |affinity: Value| json!({"spec": {"nodeAffinity": affinity}});
    let one = |key: &str, value: &str| of(affinity(key, value));
    let wrong = "nodeAffinity: field is immutable, except for updating from beta label to GA";
    let labels = [
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ];
    for (beta, stable) in labels {
        changes(
            &kind(),
            "",
            &base(),
            &[
                (one(beta, "bar"), one(beta, "bar"), ""),
                (one(beta, "bar"), one(stable, "bar"), ""),
                (one(beta, "bar"), one("foo", "bar"), wrong),
                (one(stable, "bar"), one(beta, "bar"), wrong),
            ],
        );
    }
    let [(zone, new_zone), (region, new_region), (os, new_os), (arch, new_arch), (instance, new_instance)] =
        labels;
    let many = |terms: &[&[(&str, &str)]]| of(affinities(terms));
    let foo = ("foo", "bar");
    changes(
        &kind(),
        "",
        &base(),
        &[
            (of(Value::Null), of(Value::Null), ""),
            (one("foo", "bar"), one("foo", "bar"), ""),
            (one("foo", "bar"), one("foo", "bar2"), wrong),
            (one("foo", "bar"), one("foo2", "bar"), wrong),
            (of(Value::Null), one("foo", "bar"), ""),
            (one("foo", "bar"), of(Value::Null), wrong),
            (
                many(&[
                    &[foo],
                    &[(zone, "bar"), (region, "bar")],
                    &[(os, "bar"), (arch, "bar"), (instance, "bar")],
                ]),
                many(&[
                    &[foo],
                    &[(new_zone, "bar"), (region, "bar")],
                    &[(os, "bar"), (new_arch, "bar"), (new_instance, "bar")],
                ]),
                "",
            ),
            (
                many(&[&[foo], &[(zone, "bar"), (region, "bar")]]),
                many(&[&[foo], &[(zone, "bar"), foo]]),
                wrong,
            ),
            (
                many(&[&[foo], &[(new_zone, "bar"), (zone, "bar"), (new_os, "bar")]]),
                many(&[&[foo], &[(zone, "bar"), (zone, "bar"), (new_os, "bar")]]),
                wrong,
            ),
            (
                many(&[
                    &[foo],
                    &[(zone, "bar"), (region, "bar")],
                    &[(os, "bar"), (arch, "bar"), (instance, "bar")],
                ]),
                many(&[
                    &[foo],
                    &[(new_zone, "bar"), (new_region, "bar")],
                    &[(new_os, "bar"), (new_arch, "bar"), (new_instance, "bar")],
                ]),
                "",
            ),
            (
                many(&[&[foo], &[(zone, "bar"), (new_zone, "bar")]]),
                many(&[&[foo], &[(new_zone, "bar"), (zone, "bar2")]]),
                wrong,
            ),
            (many(&[&[(zone, "bar")]]), many(&[&[(new_zone, "bar"), (region, "bar")]]), wrong),
            (many(&[&[(zone, "bar")]]), many(&[&[(new_zone, "bar")], &[(new_arch, "bar")]]), wrong),
            // What was accepted once stays.
            (one(instance, "-1"), one(new_instance, "-1"), ""),
        ],
    );
}

#[test]
fn updates_of_modes_and_classes() {
    let mode = |mode: Value| json!({"spec": {"volumeMode": mode}});
    let (block, file) = (json!("Block"), json!("Filesystem"));
    for (old, new) in [
        (&file, &block),
        (&block, &file),
        (&Value::Null, &file),
        (&Value::Null, &block),
        (&file, &Value::Null),
        (&block, &Value::Null),
    ] {
        changes(
            &kind(),
            "",
            &base(),
            &[(mode(old.clone()), mode(new.clone()), "volumeMode: field is immutable")],
        );
    }
    for same in [&file, &block, &Value::Null] {
        changes(&kind(), "", &base(), &[(mode(same.clone()), mode(same.clone()), "")]);
    }
    let class = |class: Value| json!({"spec": {"volumeAttributesClassName": class}});
    let empty = "spec.volumeAttributesClassName: Required value: an empty string is disallowed";
    let twice = format!("{empty} | {empty}");
    changes(
        &kind(),
        "",
        &csi(),
        &[
            (class(Value::Null), class(Value::Null), ""),
            (class(json!("foo")), class(json!("foo")), ""),
            (class(json!("foo")), class(json!("bar")), ""),
            (class(Value::Null), class(json!("foo")), ""),
            (class(Value::Null), class(json!("")), &twice),
            (
                class(json!("foo")),
                class(Value::Null),
                "spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden",
            ),
            (class(json!("foo")), class(json!("")), &twice),
        ],
    );
}
