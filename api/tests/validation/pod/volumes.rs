//! Volumes of pods.

use serde_json::{Value, json};

use super::super::below;
use super::{base, changed, kind};

/// Cases of the source of the only volume.
fn sources(cases: &[(Value, &str)]) {
    let place = |source: &Value| {
        let mut volume = source.clone();
        volume["name"] = "vol".into();
        json!({"spec": {"volumes": [volume]}})
    };
    below(&kind(), &base(), "spec.volumes[0]", place, cases);
}

/// Cases of one kind of source.
fn source(key: &str, cases: &[(Value, &str)]) {
    let place = |source: &Value| json!({"spec": {"volumes": [{"name": "vol", key: source}]}});
    below(&kind(), &base(), &format!("spec.volumes[0].{key}"), place, cases);
}

#[test]
fn names_of_volumes() {
    let place = |name: &Value| json!({"spec": {"volumes": [{"name": name, "emptyDir": {}}]}});
    below(
        &kind(),
        &base(),
        "spec.volumes[0].name",
        place,
        &[
            (json!("empty"), ""),
            (json!("123"), ""),
            (json!("empty-123"), ""),
            (json!("123-empty"), ""),
            (json!(""), ": Required value"),
            (json!("a".repeat(64)), ": must be no more than 63"),
            (json!("a.b.c"), ": must not contain dots"),
            (json!("Not a DNS label!"), ": a lowercase RFC 1123 label must consist of"),
        ],
    );
    let place = |volumes: &Value| json!({"spec": {"volumes": volumes}});
    let cases = [
        (
            json!([{"name": "abc", "emptyDir": {}}, {"name": "abc", "emptyDir": {}}]),
            "[1].name: Duplicate value: \"abc\"",
        ),
        (json!([{"name": "abc"}]), "[0]: Required value: must specify a volume type"),
        (
            json!([{"name": "", "image": {"reference": "quay.io/my/artifact:v1", "pullPolicy": "IfNotPresent"}}]),
            "[0].name: Required value",
        ),
    ];
    below(&kind(), &base(), "spec.volumes", place, &cases);
}

#[test]
fn more_than_one_source() {
    sources(&[
        (
            json!({"emptyDir": {}, "hostPath": {"path": "/mnt/path", "type": "Directory"}}),
            ".hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (json!({"secret": {"secretName": "s"}, "configMap": {"name": "c"}}), ".configMap: Forbidden"),
    ]);
}

#[test]
fn directories_of_the_node() {
    source(
        "emptyDir",
        &[
            (json!({"medium": "HugePages"}), ""),
            (json!({"sizeLimit": "5"}), ""),
            (
                json!({"sizeLimit": "-5"}),
                ".sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
            ),
        ],
    );
    source(
        "hostPath",
        &[
            (json!({"path": "/mnt/path", "type": "Directory"}), ""),
            (json!({"path": "/mnt/path", "type": "Socket"}), ""),
            (json!({"path": "/mnt/path", "type": ""}), ""),
            (json!({"path": "/mnt/path", "type": "invalid"}), ".type: Unsupported value: \"invalid\""),
            (json!({"path": "/mnt/path/..", "type": "Directory"}), ".path: must not contain '..'"),
            (json!({"path": ""}), ".path: Required value"),
        ],
    );
    source(
        "gitRepo",
        &[
            (json!({"repository": "my-repo", "revision": "hashstring", "directory": "target"}), ""),
            (json!({"repository": "my-repo", "directory": "."}), ""),
            (json!({"repository": "my-repo", "directory": "..foo"}), ""),
            (json!({"repository": "foo", "directory": "../dots/bar"}), ".directory: must not contain '..'"),
            (json!({"repository": "foo", "directory": "dots/../bar"}), ".directory: must not contain '..'"),
            (json!({"repository": "foo", "directory": "/abstarget"}), ".directory: must be a relative path"),
        ],
    );
}

#[test]
fn disks() {
    sources(&[
        (json!({"gcePersistentDisk": {"pdName": "my-PD", "fsType": "ext4", "partition": 1}}), ""),
        (json!({"gcePersistentDisk": {"pdName": ""}}), ".persistentDisk.pdName: Required value"),
        (json!({"awsElasticBlockStore": {"volumeID": "my-PD", "fsType": "ext4", "partition": 1}}), ""),
        (
            json!({"awsElasticBlockStore": {"volumeID": "my-PD", "partition": 256}}),
            ".awsElasticBlockStore.partition: Invalid value: 256",
        ),
        (json!({"cinder": {"volumeID": "29ea5088-4f60-4757-962e-dba678767887", "fsType": "ext4"}}), ""),
        (json!({"flexVolume": {"driver": "kubernetes.io/blue", "fsType": "ext4"}}), ""),
        (json!({"rbd": {"monitors": ["foo"], "image": "bar", "fsType": "ext4"}}), ""),
        (json!({"rbd": {"monitors": [], "image": "bar", "fsType": "ext4"}}), ".rbd.monitors: Required value"),
        (json!({"rbd": {"monitors": ["foo"], "image": "", "fsType": "ext4"}}), ".rbd.image: Required value"),
        (json!({"cephfs": {"monitors": ["foo"]}}), ""),
        (json!({"cephfs": {"monitors": []}}), ".cephfs.monitors: Required value"),
        (json!({"glusterfs": {"endpoints": "host1", "path": "path"}}), ""),
        (json!({"glusterfs": {"endpoints": "", "path": "path"}}), ".glusterfs.endpoints: Required value"),
        (json!({"glusterfs": {"endpoints": "host", "path": ""}}), ".glusterfs.path: Required value"),
        (
            json!({"glusterfs": {"endpoints": "", "path": ""}}),
            ".glusterfs.endpoints: Required value | .glusterfs.path: Required value",
        ),
        (json!({"nfs": {"server": "my-server", "path": "/tmp"}}), ""),
        (json!({"nfs": {"server": "", "path": "/tmp"}}), ".nfs.server: Required value"),
        (
            json!({"nfs": {"server": "my-server", "path": ""}}),
            ".nfs.path: Required value | .nfs.path: must be an absolute path",
        ),
        (json!({"nfs": {"server": "my-server", "path": "tmp"}}), ".nfs.path: must be an absolute path"),
        (json!({"flocker": {"datasetUUID": "d846b09d-223d-43df-ab5b-d6db2206a0e4"}}), ""),
        (json!({"flocker": {"datasetName": "datasetName"}}), ""),
        (json!({"flocker": {"datasetName": ""}}), ".flocker: Required value"),
        (
            json!({"flocker": {"datasetName": "a", "datasetUUID": "d846b09d-223d-43df-ab5b-d6db2206a0e4"}}),
            ".flocker: Invalid value: \"resource\"",
        ),
        (json!({"flocker": {"datasetName": "foo/bar"}}), ".flocker.datasetName: must not contain '/'"),
        (json!({"azureFile": {"secretName": "key", "shareName": "share"}}), ""),
        (
            json!({"azureFile": {"secretName": "", "shareName": "share"}}),
            ".azureFile.secretName: Required value",
        ),
        (
            json!({"azureFile": {"secretName": "name", "shareName": ""}}),
            ".azureFile.shareName: Required value",
        ),
        (json!({"azureDisk": {"diskName": "foo", "diskURI": "https://blob/vhds/bar.vhd"}}), ""),
        (
            json!({"azureDisk": {"diskName": "", "diskURI": "https://blob/vhds/bar.vhd"}}),
            ".azureDisk.diskName: Required value",
        ),
        (json!({"azureDisk": {"diskName": "foo", "diskURI": ""}}), ".azureDisk.diskURI: Required value"),
    ]);
    let system = |gateway: &str, system: &str, name: &str| json!({"gateway": gateway, "system": system, "volumeName": name, "secretRef": {"name": "s"}});
    source(
        "scaleIO",
        &[
            (system("http://abcd/efg", "test-system", "test-vol-1"), ""),
            (system("http://abcd/efg", "test-system", ""), ".volumeName: Required value"),
            (system("", "test-system", "test-vol-1"), ".gateway: Required value"),
            (system("http://agc/efg/gateway", "", "test-vol-1"), ".system: Required value"),
        ],
    );
    let quobyte = |registry: &str, volume: &str, tenant: &str| json!({"registry": registry, "volume": volume, "tenant": tenant, "user": "root", "group": "root"});
    let tenant = "ThisIsSomeTenantUUID";
    source(
        "quobyte",
        &[
            (quobyte("registry:7861", "volume", tenant), ""),
            (quobyte("", "/test", tenant), ".registry: Required value"),
            (quobyte("registry7861", "/test", tenant), ".registry: Invalid value: \"registry7861\""),
            (
                quobyte("registry:7861,reg2", "/test", tenant),
                ".registry: Invalid value: \"registry:7861,reg2\"",
            ),
            (quobyte("registry:7861", "", tenant), ".volume: Required value"),
            (quobyte("registry:7861", "/test", ""), ""),
            (quobyte("registry:7861", "/test", &"too long ".repeat(8)), ".tenant: Required value"),
        ],
    );
}

#[test]
fn iscsi_volumes() {
    let iqn = "iqn.2015-02.example.com:test";
    let iscsi =
        |portal: &str, iqn: &str| json!({"targetPortal": portal, "iqn": iqn, "lun": 1, "fsType": "ext4"});
    let more = |key: &str, value: Value| {
        let mut source = iscsi("127.0.0.1", iqn);
        source[key] = value;
        source
    };
    source(
        "iscsi",
        &[
            (iscsi("127.0.0.1", iqn), ""),
            (iscsi("127.0.0.1", "eui.0123456789ABCDEF"), ""),
            (iscsi("127.0.0.1", "naa.62004567BA64678D0123456789ABCDEF"), ""),
            (iscsi("", iqn), ".targetPortal: Required value"),
            (iscsi("127.0.0.1", ""), ".iqn: Required value"),
            (iscsi("127.0.0.1", "iqn.2015-02.example.com:test;ls;"), ".iqn: must be valid format"),
            (iscsi("127.0.0.1", "eui.0123456789ABCDEFGHIJ"), ".iqn: must be valid format"),
            (iscsi("127.0.0.1", "naa.62004567BA_4-78D.123456789ABCDEF"), ".iqn: must be valid format"),
            (more("initiatorName", json!("iqn.2015-02.example.com:init")), ""),
            (
                more("initiatorName", json!("2015-02.example.com:init")),
                ".initiatorname: must be valid format starting with iqn, eui, or naa",
            ),
            (more("chapAuthDiscovery", json!(true)), ".secretRef: Required value"),
            (more("chapAuthSession", json!(true)), ".secretRef: Required value"),
            (more("lun", json!(256)), ".lun: must be between 0 and 255, inclusive"),
        ],
    );
}

#[test]
fn fibre_channel_volumes() {
    let range = ".lun: Invalid value: 256: must be between 0 and 255, inclusive";
    source(
        "fc",
        &[
            (json!({"targetWWNs": ["some_wwn"], "lun": 1, "fsType": "ext4"}), ""),
            (json!({"wwids": ["some_wwid"], "fsType": "ext4"}), ""),
            (
                json!({"targetWWNs": [], "lun": 1, "wwids": []}),
                ".targetWWNs: Required value: must specify either targetWWNs or wwids",
            ),
            (
                json!({"targetWWNs": ["some_wwn"], "lun": 1, "wwids": ["some_wwid"]}),
                ".targetWWNs: targetWWNs and wwids can not be specified simultaneously",
            ),
            (
                json!({"targetWWNs": ["wwn"], "fsType": "ext4"}),
                ".lun: Required value: lun is required if targetWWNs is specified",
            ),
            (json!({"targetWWNs": ["wwn"], "lun": 256}), range),
        ],
    );
}

#[test]
fn keys_that_become_files() {
    let item = |item: Value| json!([item]);
    let cases = [
        (json!({"items": item(json!({"key": "k", "path": "p"}))}), ""),
        (json!({"defaultMode": 0o644}), ""),
        (
            json!({"defaultMode": 0o1000}),
            ".defaultMode: must be a number between 0 and 0777 (octal), both inclusive",
        ),
        (json!({"defaultMode": -1}), ".defaultMode: Invalid value: -1"),
        (json!({"items": item(json!({"key": "k", "path": "dir/filename"}))}), ""),
        (json!({"items": item(json!({"key": "k", "path": "p/p/p/p"}))}), ""),
        (json!({"items": item(json!({"key": "k", "path": "p/..p/p../p..p"}))}), ""),
        (json!({"items": item(json!({"key": "k", "path": "p", "mode": 0o644}))}), ""),
        (json!({"items": item(json!({"key": "", "path": "p"}))}), ".items[0].key: Required value"),
        (json!({"items": item(json!({"key": "k", "path": ""}))}), ".items[0].path: Required value"),
        (
            json!({"items": item(json!({"key": "k", "path": "..p"}))}),
            ".items[0].path: must not start with '..'",
        ),
        (
            json!({"items": item(json!({"key": "k", "path": "../p"}))}),
            ".items[0].path: must not contain '..'",
        ),
        (
            json!({"items": item(json!({"key": "k", "path": "p/../p"}))}),
            ".items[0].path: must not contain '..'",
        ),
        (
            json!({"items": item(json!({"key": "k", "path": "p/.."}))}),
            ".items[0].path: must not contain '..'",
        ),
        (
            json!({"items": item(json!({"key": "k", "path": "p", "mode": 0o1000}))}),
            ".items[0].mode: must be a number between 0 and 0777 (octal), both inclusive",
        ),
        (
            json!({"items": item(json!({"key": "k", "path": "p", "mode": -1}))}),
            ".items[0].mode: Invalid value: -1",
        ),
    ];
    for (key, name) in [("secret", "secretName"), ("configMap", "name")] {
        let named: Vec<(Value, &str)> = cases
            .iter()
            .map(|(changes, expected)| {
                let mut source = changes.clone();
                source[name] = "my-source".into();
                (source, *expected)
            })
            .collect();
        source(key, &named);
        source(key, &[(json!({}), &format!(".{name}: Required value"))]);
    }
}

#[test]
fn downward_api_volumes() {
    let field = |path: &str, field: &str| json!({"items": [{"path": path, "fieldRef": {"apiVersion": "v1", "fieldPath": field}}]});
    let resource = |path: &str, resource: &str| json!({"items": [{"path": path, "resourceFieldRef": {"containerName": "c", "resource": resource}}]});
    let labels = "metadata.labels";
    let moded = |mode: i32| {
        let mut source = field("path", labels);
        source["items"][0]["mode"] = mode.into();
        source
    };
    let mut both = field("test", labels);
    both["items"][0]["resourceFieldRef"] = json!({"containerName": "c", "resource": "requests.memory"});
    source(
        "downwardAPI",
        &[
            (field("labels", labels), ""),
            (field("labels with subscript", "metadata.labels['key']"), ""),
            (field("labels with complex subscript", "metadata.labels['test.example.com/key']"), ""),
            (field("annotations", "metadata.annotations"), ""),
            (field("annotations with subscript", "metadata.annotations['key']"), ""),
            (field("annotations with complex subscript", "metadata.annotations['TEST.EXAMPLE.COM/key']"), ""),
            (field("namespace", "metadata.namespace"), ""),
            (field("name", "metadata.name"), ""),
            (field("path/with/subdirs", labels), ""),
            (field("path/./withdot", labels), ""),
            (field("path/with/embedded..dotdot", labels), ""),
            (field("path/with/leading/..dotdot", labels), ""),
            (resource("cpu_limit", "limits.cpu"), ""),
            (resource("cpu_request", "requests.cpu"), ""),
            (resource("memory_limit", "limits.memory"), ""),
            (resource("memory_request", "requests.memory"), ""),
            (resource("hugepages_request", "requests.hugepages-2Mi"), ""),
            (resource("hugepages_limit", "limits.hugepages-2Mi"), ""),
            (json!({"defaultMode": 0o644}), ""),
            (json!({"defaultMode": 0o1000}), ".defaultMode: Invalid value: 512"),
            (json!({"defaultMode": -1}), ".defaultMode: Invalid value: -1"),
            (moded(0o644), ""),
            (moded(0o1000), ".mode: Invalid value: 512"),
            (moded(-1), ".mode: Invalid value: -1"),
            (field("", labels), ".path: Required value"),
            (field("/absolutepath", labels), ".path: must be a relative path"),
            (field("../../passwd", labels), ".path: must not contain '..'"),
            (field("..badFileName", labels), ".path: must not start with '..'"),
            (field("..badDirName/goodFileName", labels), ".path: must not start with '..'"),
            (both, ": fieldRef and resourceFieldRef can not be specified simultaneously"),
        ],
    );
}

#[test]
fn projected_volumes() {
    let twice = ": Forbidden: may not specify more than 1 volume type per source";
    let place =
        |sources: &Value| json!({"spec": {"volumes": [{"name": "v", "projected": {"sources": sources}}]}});
    below(
        &kind(),
        &base(),
        "spec.volumes[0].projected.sources",
        place,
        &[
            (
                json!([{"secret": {"name": "foo"}}, {"secret": {"name": "foo"}, "downwardAPI": {}}]),
                &format!("[1]{twice}"),
            ),
            (
                json!([{"secret": {}}, {"secret": {}, "downwardAPI": {}}]),
                &format!("[0].secret.name: Required value | [1].secret.name: Required value | [1]{twice}"),
            ),
        ],
    );
}

#[test]
fn csi_volumes() {
    let driver = |name: &str| json!({"driver": name});
    let bad = ".driver: a lowercase RFC 1123 subdomain must consist of";
    source(
        "csi",
        &[
            (driver("test-driver"), ""),
            (driver(""), ".driver: Required value"),
            (driver("comgooglestoragecsigcepd"), ""),
            (driver("io.kubernetes.storage.csi.flex"), ""),
            (driver("io-kubernetes-storage-csi-flex"), ""),
            (driver("io_kubernetes_storage_csi_flex"), bad),
            (driver("io.kubernetes.storage_csi.flex"), bad),
            (driver("2io.kubernetes.storage-csi.flex"), ""),
            (driver("io.kubernetes.storage-csi.flex2"), ""),
            (driver("io.kubernetes-storage.csi_flex"), bad),
            (driver("a"), ""),
            (driver(&"g".repeat(65)), ".driver: Too long: may not be more than 63 bytes"),
            (driver("_comgooglestoragecsigcepd"), bad),
            (driver("comgooglestoragecsigcepd/"), bad),
            (driver("com/google/storage/csi~gcepd"), bad),
            (json!({"driver": "com.google.gcepd", "nodePublishSecretRef": {"name": "foobar"}}), ""),
            (
                json!({"driver": "com.google.gcepd", "nodePublishSecretRef": {"name": ""}}),
                ".nodePublishSecretRef.name: Required value",
            ),
        ],
    );
}

#[test]
fn image_volumes() {
    let image = |reference: &str, policy: &str| json!({"reference": reference, "pullPolicy": policy});
    source(
        "image",
        &[
            (image("quay.io/my/artifact:v1", "IfNotPresent"), ""),
            (image("", "IfNotPresent"), ".reference: Required value"),
            (image("quay.io/my/artifact:v1", "wrong"), ".pullPolicy: Unsupported value: \"wrong\""),
        ],
    );
    // Whoever makes pods of a template may fill in the reference.
    let template = api::names::GroupVersionKind::new("", "v1", "PodTemplate");
    let spec = super::pod_spec("Always");
    let base = json!({"metadata": {"name": "abc", "namespace": "ns"}, "template": {"spec": spec}});
    let place = |image: &Value| json!({"template": {"spec": {"volumes": [{"name": "v", "image": image}]}}});
    below(&template, &base, "", place, &[(image("", "IfNotPresent"), "")]);
}

/// A pod with the volumes that the cases of mounts are about.
fn mounting(container_changes: &Value) -> Value {
    let claim = |name: &str| json!({"name": name, "persistentVolumeClaim": {"claimName": "testclaim"}});
    let template =
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10G"}}}});
    json!({"spec": {
        "volumes": [
            claim("abc"), claim("abc-123"), claim("xyz"), claim("uvw"),
            {"name": "123", "hostPath": {"path": "/foo/baz", "type": ""}},
            {"name": "ephemeral", "ephemeral": {"volumeClaimTemplate": template}},
            {"name": "image-volume", "image": {"reference": "quay.io/my/artifact:v1", "pullPolicy": "IfNotPresent"}},
        ],
        "containers": [changed("ctr", container_changes)],
    }})
}

#[test]
fn mounts() {
    let at = "spec.containers[0].volumeMounts";
    let good = json!([{"name": "xyz", "devicePath": "/foofoo"}, {"name": "uvw", "devicePath": "/foofoo/share/test"}]);
    let place = |mount: &Value| mounting(&json!({"volumeDevices": good, "volumeMounts": [mount]}));
    let sub = |path: &str| json!({"name": "abc", "mountPath": "/bar", "subPath": path});
    let recursive = |changes: Value| {
        let mut mount = json!({"name": "123", "mountPath": "/rro"});
        api::patch::merge::apply(&mut mount, changes);
        mount
    };
    let read_only = "recursiveReadOnly: Forbidden: may only be specified when readOnly is true";
    below(
        &kind(),
        &base(),
        at,
        place,
        &[
            (json!({"name": "abc", "mountPath": "/foo"}), ""),
            (json!({"name": "123", "mountPath": "/bar"}), ""),
            (json!({"name": "abc-123", "mountPath": "/baa", "subPath": ""}), ""),
            (json!({"name": "abc-123", "mountPath": "d:"}), ""),
            (json!({"name": "abc-123", "mountPath": "G:\\mount"}), ""),
            (sub("baz"), ""),
            (sub(".baz"), ""),
            (sub("..baz"), ""),
            (json!({"name": "abc-123", "mountPath": "/bab", "subPathExpr": "$(POD_NAME)"}), ""),
            (
                json!({"name": "abc-123", "mountPath": "/bab", "subPath": "baz", "subPathExpr": "$(POD_NAME)"}),
                "[0].subPathExpr: subPathExpr and subPath are mutually exclusive",
            ),
            (json!({"name": "ephemeral", "mountPath": "/foobar"}), ""),
            (recursive(json!({"readOnly": true})), ""),
            (recursive(json!({"readOnly": true, "recursiveReadOnly": "Disabled"})), ""),
            (recursive(json!({"readOnly": false, "recursiveReadOnly": "Disabled"})), ""),
            (recursive(json!({"readOnly": true, "recursiveReadOnly": "IfPossible"})), ""),
            (recursive(json!({"readOnly": true, "recursiveReadOnly": "Enabled"})), ""),
            (
                recursive(
                    json!({"readOnly": true, "recursiveReadOnly": "Enabled", "mountPropagation": "None"}),
                ),
                "",
            ),
            (recursive(json!({"recursiveReadOnly": "Enabled"})), &format!(".{read_only}")),
            (recursive(json!({"recursiveReadOnly": "IfPossible"})), &format!(".{read_only}")),
            (
                recursive(
                    json!({"readOnly": true, "recursiveReadOnly": "Enabled", "mountPropagation": "HostToContainer"}),
                ),
                ".recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified",
            ),
            (json!({"name": "image-volume", "mountPath": "/image-volume"}), ""),
            (json!({"name": "image-volume", "mountPath": "/image-volume-1", "subPath": "foo"}), ""),
            (
                json!({"name": "image-volume", "mountPath": "/image-volume-2", "subPathExpr": "$(POD_NAME)"}),
                "",
            ),
            (
                json!({"name": "image-volume", "mountPath": "/image-volume", "subPath": "/foo"}),
                ".subPath: must be a relative path",
            ),
            (
                json!({"name": "", "mountPath": "/foo"}),
                "[0].name: Required value | [0].name: Not found: \"\"",
            ),
            (json!({"name": "foo", "mountPath": "/foo"}), "[0].name: Not found: \"foo\""),
            (json!({"name": "abc", "mountPath": ""}), "[0].mountPath: Required value"),
            (sub("/baz"), ".subPath: must be a relative path"),
            (sub("../baz"), ".subPath: must not contain '..'"),
            (sub("baz/../bat"), ".subPath: must not contain '..'"),
            (sub("./.."), ".subPath: must not contain '..'"),
            (
                json!({"name": "abc", "mountPath": "/bar", "mountPropagation": "Bidirectional"}),
                ".mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
            ),
        ],
    );
    let place = |mounts: &Value| {
        mounting(
            &json!({"volumeDevices": [{"name": "xyz", "devicePath": "/mnt/exists"}], "volumeMounts": mounts}),
        )
    };
    let device = "spec.containers[0].volumeDevices[0]";
    let name = format!(
        "{at}[0].name: must not already exist in volumeDevices | {device}.name: must not already exist in volumeMounts"
    );
    let path = format!(
        "{at}[0].mountPath: must not already exist as a path in volumeDevices | {device}.devicePath: must not already exist as a path in volumeMounts"
    );
    let (name_of, path_of) = (name.split(" | ").collect::<Vec<_>>(), path.split(" | ").collect::<Vec<_>>());
    let both = [name_of[0], path_of[0], name_of[1], path_of[1]].join(" | ");
    below(
        &kind(),
        &base(),
        "",
        place,
        &[
            (json!([{"name": "xyz", "mountPath": "/bar"}]), &name),
            (json!([{"name": "uvw", "mountPath": "/mnt/exists"}]), &path),
            (json!([{"name": "xyz", "mountPath": "/mnt/exists"}]), &both),
            (
                json!([{"name": "abc", "mountPath": "/path/a"}, {"name": "123", "mountPath": "/path/a"}]),
                &format!("{at}[1].mountPath: Invalid value: \"/path/a\": must be unique"),
            ),
        ],
    );
}

#[test]
fn propagation_of_mounts() {
    let place = |privileged: Value| {
        move |propagation: &Value| {
            mounting(&json!({
                "securityContext": {"privileged": privileged},
                "volumeMounts": [{"name": "123", "mountPath": "/foo", "mountPropagation": propagation}],
            }))
        }
    };
    let at = "spec.containers[0].volumeMounts.mountPropagation";
    let privileged_only =
        ": Forbidden: Bidirectional mount propagation is available only to privileged containers";
    for privileged in [Value::Null, json!(false)] {
        let cases = [
            (Value::Null, ""),
            (json!("HostToContainer"), ""),
            (json!("None"), ""),
            (json!("Bidirectional"), privileged_only),
        ];
        below(&kind(), &base(), at, place(privileged), &cases);
    }
    let cases = [
        (Value::Null, ""),
        (json!("HostToContainer"), ""),
        (json!("Bidirectional"), ""),
        (
            json!("invalid"),
            ": Unsupported value: \"invalid\": supported values: \"Bidirectional\", \"HostToContainer\", \"None\"",
        ),
    ];
    below(&kind(), &base(), at, place(json!(true)), &cases);
}

#[test]
fn devices() {
    let at = "spec.containers[0].volumeDevices";
    let place = |devices: &Value| mounting(&json!({"volumeDevices": devices}));
    let device = |name: &str, path: &str| json!({"name": name, "devicePath": path});
    below(
        &kind(),
        &base(),
        at,
        place,
        &[
            (
                json!([
                    device("abc", "/foo"),
                    device("abc-123", "/usr/share/test"),
                    device("ephemeral", "/disk")
                ]),
                "",
            ),
            (json!([device("", "/foo")]), "[0].name: Required value | [0].name: Not found: \"\""),
            (json!([device("abc", "/foo"), device("abc", "/foo/bar")]), "[1].name: must be unique"),
            (json!([device("not-found", "/usr/share/test")]), "[0].name: Not found: \"not-found\""),
            (
                json!([device("123", "/usr/share/test")]),
                "[0].name: can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
            (json!([device("abc", "")]), "[0].devicePath: Required value"),
            (json!([device("abc", "/foo"), device("abc-123", "/foo")]), "[1].devicePath: must be unique"),
            (json!([device("abc", "/baz/../")]), "[0].devicePath: can not contain backsteps ('..')"),
        ],
    );
}
