//! The plain fields of pods, their DNS and their names.

use serde_json::{Value, json};

use super::super::{below, container, wholly};
use super::{base, changed, kind, specs};

fn pods(cases: &[(Value, &str)]) {
    wholly(&kind(), &base(), cases);
}

#[test]
fn metadata_of_pods() {
    let meta = |meta: Value| json!({"metadata": meta});
    let annotated = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    let wrong = |value: &str| {
        format!("metadata.annotations[{cost}]: Invalid value: \"{value}\": must be a 32bit integer")
    };
    let mirror = "metadata.annotations[kubernetes.io/config.mirror]: must set spec.nodeName if mirror pod annotation is set";
    pods(&[
        (json!({}), ""),
        (meta(json!({"name": "abc.123.do-re-mi"})), ""),
        (meta(json!({"name": ""})), "metadata.name: Required value: name or generateName is required"),
        (meta(json!({"namespace": ""})), "metadata.namespace: Required value"),
        (
            meta(json!({"labels": {"NoUppercaseOrSpecialCharsLike=Equals": "bar"}})),
            "metadata.labels: Invalid value: \"NoUppercaseOrSpecialCharsLike=Equals\"",
        ),
        (annotated(cost, "-100"), ""),
        (annotated(cost, "100"), ""),
        (annotated(cost, "text"), &wrong("text")),
        (annotated(cost, "008"), &wrong("008")),
        (annotated(cost, "+10"), &wrong("+10")),
        (annotated("kubernetes.io/config.mirror", ""), mirror),
        (annotated("kubernetes.io/config.mirror", "foo"), mirror),
    ]);
}

#[test]
fn plain_fields() {
    let port = |host: i32, container: i32| {
        let ports = json!({"ports": [{"hostPort": host, "containerPort": container, "protocol": "TCP"}]});
        json!({"hostNetwork": true, "containers": [changed("ctr", &ports)]})
    };
    let aliases = |ip: &str, names: Value| json!({"hostAliases": [{"ip": ip, "hostnames": names}]});
    let subdomain = "a lowercase RFC 1123 subdomain must consist of";
    let host_port = ".containers[0].ports[0].hostPort: must match `containerPort` when `hostNetwork` is true";
    specs(&[
        (
            json!({
                "initContainers": [container("ictr")], "volumes": [{"name": "vol", "emptyDir": {}}],
                "nodeSelector": {"key": "value"}, "nodeName": "foobar", "activeDeadlineSeconds": i32::MAX,
                "serviceAccountName": "acct",
            }),
            "",
        ),
        (port(8080, 8080), ""),
        (port(0, 2600), host_port),
        (port(8080, 2600), host_port),
        (json!({"hostIPC": true}), ""),
        (json!({"hostPID": true}), ""),
        (aliases("12.34.56.78", json!(["host1", "host2"])), ""),
        (aliases("12.34.56.78", json!(["host1.foo", "host2.bar"])), ""),
        (
            json!({"hostNetwork": true, "hostAliases": [{"ip": "12.34.56.78", "hostnames": ["host1.foo"]}]}),
            "",
        ),
        (
            aliases("999.999.999.999", json!(["host1", "host2"])),
            ".hostAliases[0].ip: must be a valid IP address",
        ),
        (
            aliases("001.002.003.004", json!(["host1", "host2"])),
            ".hostAliases[0].ip: must not have leading 0s",
        ),
        (aliases("12.34.56.78", json!(["@#$^#@#$"])), &format!(".hostAliases[0].hostnames[0]: {subdomain}")),
        (json!({"priorityClassName": "valid-name"}), ""),
        (json!({"priorityClassName": "InvalidName"}), &format!(".priorityClassName: {subdomain}")),
        (json!({"runtimeClassName": "valid-sandbox"}), ""),
        (json!({"runtimeClassName": "invalid/sandbox"}), &format!(".runtimeClassName: {subdomain}")),
        (json!({"shareProcessNamespace": true}), ""),
        (
            json!({"shareProcessNamespace": true, "hostPID": true}),
            ".securityContext.shareProcessNamespace: ShareProcessNamespace and HostPID cannot both be enabled",
        ),
        (json!({"overhead": {}}), ""),
        (json!({"overhead": {"cpu": "10", "memory": "10G"}}), ""),
        (
            json!({"overhead": {"my.org": "10m"}}),
            ".overhead.limits[my.org]: must be a standard resource type or fully qualified | .overhead.limits[my.org]: must be a standard resource for containers",
        ),
        (
            json!({"volumes": [{"name": ""}]}),
            ".volumes[0]: Required value: must specify a volume type | .volumes[0].name: Required value",
        ),
        (json!({"dnsPolicy": "invalid"}), ".dnsPolicy: Unsupported value: \"invalid\""),
        (json!({"dnsPolicy": ""}), ".dnsPolicy: Required value"),
        (json!({"dnsPolicy": "ClusterFirst"}), ""),
        (json!({"dnsPolicy": "ClusterFirstWithHostNet"}), ""),
        (json!({"dnsPolicy": "Default"}), ""),
        (json!({"restartPolicy": "OnFailure"}), ""),
        (json!({"restartPolicy": "Never"}), ""),
        (json!({"restartPolicy": ""}), ".restartPolicy: Required value"),
        (json!({"restartPolicy": "UnknowPolicy"}), ".restartPolicy: Unsupported value: \"UnknowPolicy\""),
        (json!({"serviceAccountName": "invalidName"}), &format!(".serviceAccountName: {subdomain}")),
        (
            json!({"activeDeadlineSeconds": 0}),
            ".activeDeadlineSeconds: must be between 1 and 2147483647, inclusive",
        ),
        (
            json!({"activeDeadlineSeconds": i64::from(i32::MAX) + 1}),
            ".activeDeadlineSeconds: must be between 1 and 2147483647, inclusive",
        ),
        (json!({"nodeName": "node name"}), &format!(".nodeName: {subdomain}")),
        (json!({"hostname": "a.b"}), ".hostname: must not contain dots"),
        (json!({"subdomain": "a.b"}), ".subdomain: must not contain dots"),
        (
            json!({"containers": [{"name": ""}]}),
            ".containers[0].name: Required value | .containers[0].image: Required value | .containers[0].terminationMessagePolicy: Required value | .containers[0].imagePullPolicy: Required value",
        ),
        (json!({"readinessGates": []}), ""),
        (
            json!({"readinessGates": [{"conditionType": "example.com/condition1"}, {"conditionType": "example.com/condition2"}]}),
            "",
        ),
        (
            json!({"readinessGates": [{"conditionType": "invalid/condition/type"}]}),
            ".readinessGates[0].conditionType: a valid label key must consist of",
        ),
    ]);
}

#[test]
fn dns() {
    let place = |config: &Value| json!({"spec": {"dnsConfig": config}});
    let searches = |count: usize| {
        let all: Vec<String> = (1..=count).map(|i| i.to_string()).collect();
        json!({"searches": all})
    };
    let long = |first: usize| {
        let all: Vec<String> = std::iter::once(first).chain(vec![63; 31]).map(|n| "a".repeat(n)).collect();
        json!({"searches": all})
    };
    let search = |name: &str| json!({"searches": [name]});
    let wrong = ".searches[0]: a lowercase RFC 1123 subdomain must consist of";
    below(
        &kind(),
        &base(),
        "spec.dnsConfig",
        place,
        &[
            (json!({}), ""),
            (json!({"options": [{"name": "ndots", "value": "2"}]}), ""),
            (json!({"options": [{"value": "2"}]}), ".options[0]: Required value: must not be empty"),
            (json!({"nameservers": ["127.0.0.1"]}), ""),
            (json!({"nameservers": ["FE80::0202:B3FF:FE1E:8329"]}), ""),
            (json!({"nameservers": ["127.0.0.1", "10.0.0.10", "8.8.8.8"]}), ""),
            (
                json!({"nameservers": ["127.0.0.1", "10.0.0.10", "8.8.8.8", "1.2.3.4"]}),
                ".nameservers: must not have more than 3 nameservers",
            ),
            (json!({"nameservers": ["invalid"]}), ".nameservers[0]: must be a valid IP address"),
            (json!({"nameservers": ["001.002.003.004"]}), ".nameservers[0]: must not have leading 0s"),
            (search("custom"), ""),
            (search("custom."), ""),
            (searches(7), ""),
            (searches(32), ""),
            (searches(33), ".searches: must not have more than 32 search paths"),
            (
                json!({"searches": ["a".repeat(2), "a".repeat(50), "a".repeat(50), "a".repeat(50), "a".repeat(50), "a".repeat(50)]}),
                "",
            ),
            (long(64), ""),
            (
                long(65),
                ".searches: must not have more than 2048 characters (including spaces) in the search list",
            ),
            (search("custom?"), wrong),
            (search("_sip._tcp.abc_d.example.com"), ""),
            (search("abc_d.example.com"), ""),
            (search("."), ""),
            (search(".."), wrong),
            (search("_."), wrong),
            (search("-."), wrong),
            (search("__."), wrong),
            (search(".__"), wrong),
            (search("._"), wrong),
            (search("____________"), wrong),
            (search("example.com"), ""),
            (search("☃.example.com"), wrong),
        ],
    );
    specs(&[
        (json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["127.0.0.1"]}}), ""),
        (
            json!({"dnsPolicy": "None", "dnsConfig": {"searches": ["custom"]}}),
            ".dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None",
        ),
        (
            json!({"dnsPolicy": "None"}),
            ".dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
    ]);
}

#[test]
fn names_of_hosts() {
    let subdomain = ".hostnameOverride: a lowercase RFC 1123 subdomain must consist of";
    specs(&[
        (json!({"hostnameOverride": ""}), subdomain),
        (json!({"hostnameOverride": "a"}), ""),
        (json!({"hostnameOverride": "custom-host"}), ""),
        (json!({"hostnameOverride": "a".repeat(64)}), ""),
        (
            json!({"hostnameOverride": "a".repeat(65)}),
            ".hostnameOverride: Too long: may not be more than 64 bytes",
        ),
        (json!({"hostnameOverride": "Not-RFC1123"}), subdomain),
        (
            json!({"hostnameOverride": "custom-host", "setHostnameAsFQDN": true}),
            ".hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true",
        ),
        (json!({"hostnameOverride": "custom-host", "setHostnameAsFQDN": false}), ""),
        (
            json!({"hostnameOverride": "custom-host", "hostNetwork": true}),
            ".hostnameOverride: Forbidden: may not be specified when hostNetwork is true",
        ),
        (json!({"hostnameOverride": "custom-host", "hostNetwork": false}), ""),
    ]);
}

#[test]
fn tokens_and_bundles_in_volumes() {
    let place =
        |source: &Value| json!({"spec": {"volumes": [{"name": "v", "projected": {"sources": [source]}}]}});
    let bundle = |changes: Value| json!({"clusterTrustBundle": with_path(changes)});
    let certificate = |changes: Value| {
        let mut own = json!({"signerName": "example.com/foo", "keyType": "ED25519", "credentialBundlePath": "credbundle.pem"});
        api::patch::merge::apply(&mut own, changes);
        json!({"podCertificate": own})
    };
    let pair = |changes: Value| {
        let mut own = json!({"credentialBundlePath": null, "keyPath": "key.pem", "certificateChainPath": "certificates.pem"});
        api::patch::merge::apply(&mut own, changes);
        certificate(own)
    };
    let token = json!({"serviceAccountToken": {"audience": "foo-audience", "expirationSeconds": 6000, "path": "foo-path"}});
    let live = json!({"matchLabels": {"version": "live"}});
    let domain = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    let same = pair(json!({"keyPath": "same.pem", "certificateChainPath": "same.pem"}));
    let twice = ": Invalid value: \"same.pem\": conflicting duplicate paths";
    below(&kind(), &base(), "spec.volumes[0].projected", place, &[(same, twice)]);
    below(
        &kind(),
        &base(),
        "spec.volumes[0].projected.sources[0]",
        place,
        &[
            (
                token.clone(),
                ".serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
            ),
            (bundle(json!({"name": "foo"})), ""),
            (bundle(json!({"signerName": "example.com/foo", "labelSelector": live})), ""),
            (
                bundle(json!({"name": "foo", "signerName": "example.com/foo", "labelSelector": live})),
                ".clusterTrustBundle: only one of name and signerName may be used",
            ),
            (
                bundle(json!({"name": ""})),
                ".clusterTrustBundle.name: Required value: must be a valid object name | .clusterTrustBundle.name: not a valid clustertrustbundlename: a lowercase RFC 1123 subdomain",
            ),
            (
                bundle(json!({"signerName": "", "labelSelector": {"matchLabels": {"foo": "bar"}}})),
                ".clusterTrustBundle.signerName: Required value: must be a valid signer name | .clusterTrustBundle.signerName: Required value",
            ),
            (
                bundle(json!({"signerName": "example.com/foo/invalid"})),
                &format!(".clusterTrustBundle.signerName: {domain}"),
            ),
            (certificate(json!({})), ""),
            (certificate(json!({"maxExpirationSeconds": 3600})), ""),
            (pair(json!({"maxExpirationSeconds": 3600})), ""),
            (
                certificate(json!({"signerName": "kubernetes.io/a", "maxExpirationSeconds": 86401})),
                ".podCertificate.maxExpirationSeconds: must be <= 86400",
            ),
            (
                certificate(json!({"signerName": "foo.kubernetes.io/a", "maxExpirationSeconds": 86401})),
                ".podCertificate.maxExpirationSeconds: must be <= 86400",
            ),
            (certificate(json!({"signerName": "fookubernetes.io/a", "maxExpirationSeconds": 86401})), ""),
            (pair(json!({"userAnnotations": {"test.domain/attribute": "test-value"}})), ""),
            (certificate(json!({"signerName": ""})), ".podCertificate.signerName: Required value"),
            (
                certificate(json!({"signerName": "example.com/foo/invalid"})),
                &format!(".podCertificate.signerName: {domain}"),
            ),
            (certificate(json!({"keyType": "BAD"})), ".podCertificate.keyType: Unsupported value: \"BAD\""),
            (
                certificate(json!({"credentialBundlePath": null})),
                ".podCertificate: Required value: specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
            ),
            (
                certificate(json!({"credentialBundlePath": "/absolute.pem"})),
                ".podCertificate.credentialBundlePath: must be a relative path",
            ),
            (pair(json!({"keyPath": "/absolute.pem"})), ".podCertificate.keyPath: must be a relative path"),
            (
                pair(json!({"certificateChainPath": "/certificates.pem"})),
                ".podCertificate.certificateChainPath: must be a relative path",
            ),
            (
                pair(json!({"userAnnotations": {"only/one/slash": "bar"}})),
                ".podCertificate.userAnnotations: with an optional DNS subdomain prefix",
            ),
            (
                pair(json!({"userAnnotations": {format!("{}/foo", "a".repeat(254)): "bar"}})),
                ".podCertificate.userAnnotations: prefix part must be no more than 253 bytes",
            ),
            (
                pair(json!({"userAnnotations": {"domain/a": "d".repeat(256 * 1024)}})),
                ".podCertificate.userAnnotations: may not be more than 262144 bytes",
            ),
        ],
    );
    let volumes = json!([{"name": "v", "projected": {"sources": [token]}}]);
    specs(&[(json!({"serviceAccountName": "some-service-account", "volumes": volumes}), "")]);
}

fn with_path(mut bundle: Value) -> Value {
    bundle["path"] = "foo-path".into();
    bundle
}

#[test]
fn claims_made_for_volumes() {
    let claim = |name: &str| json!({"name": "pvc", "persistentVolumeClaim": {"claimName": name}});
    let template =
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10G"}}}});
    let ephemeral = |name: &str| json!({"name": name, "ephemeral": {"volumeClaimTemplate": template}});
    let (pod, volume) = ("a".repeat(200), "b".repeat(60));
    pods(&[
        (json!({"spec": {"volumes": [claim("my-pvc"), ephemeral("ephemeral")]}}), ""),
        (
            json!({"metadata": {"name": pod}, "spec": {"volumes": [claim("my-pvc"), ephemeral(&volume)]}}),
            &format!(
                "spec.volumes[1].name: Invalid value: \"{volume}\": PVC name \"{pod}-{volume}\": must be no more than 253 characters"
            ),
        ),
        (
            json!({"spec": {"volumes": [claim("abc-ephemeral-volume"), ephemeral("ephemeral-volume")]}}),
            "spec.volumes[0].persistentVolumeClaim.claimName: Invalid value: \"abc-ephemeral-volume\": must not reference a PVC that gets created for an ephemeral volume",
        ),
    ]);
}

#[test]
fn volumes_of_variables() {
    let variable = |volume: &str| json!({"name": "DATABASE_URL", "valueFrom": {"fileKeyRef": {"volumeName": volume, "path": "database.env", "key": "DATABASE_URL"}}});
    let volumes = json!([
        {"name": "dir", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "host", "hostPath": {"path": "/tmp/data", "type": "Directory"}}, {"name": "secret", "secret": {"secretName": "s"}},
        {"name": "map", "configMap": {"name": "m"}}, {"name": "claim", "persistentVolumeClaim": {"claimName": "c"}},
    ]);
    let of = |env: Value| json!({"volumes": volumes, "containers": [changed("ctr", &json!({"env": env}))]});
    let of_init =
        |env: Value| json!({"volumes": volumes, "initContainers": [changed("init", &json!({"env": env}))]});
    let at = |container: &str, i: usize| format!(".{container}.env[{i}].valueFrom.fileKeyRef.volumeName");
    let lost = "Not found: \"lost\"";
    let wrong = format!("{}: referenced volume must be of type emptyDir", at("containers[0]", 0));
    let two = json!({"volumes": volumes, "containers": [
        changed("one", &json!({"env": [variable("lost")]})), changed("two", &json!({"env": [variable("lost")]}))]});
    specs(&[
        (of(json!([{"name": "STATIC_VAR", "value": "static_value"}])), ""),
        (of(json!([variable("dir")])), ""),
        (of(json!([variable("memory")])), ""),
        (of(json!([variable("lost")])), &format!("{}: {lost}", at("containers[0]", 0))),
        (of(json!([variable("host")])), &wrong),
        (of(json!([variable("secret")])), &wrong),
        (of(json!([variable("map")])), &wrong),
        (of(json!([variable("claim")])), &wrong),
        (
            of(json!([variable("host"), variable("map")])),
            &format!("{wrong} | {}: referenced volume must be of type emptyDir", at("containers[0]", 1)),
        ),
        (two, &format!("{}: {lost} | {}: {lost}", at("containers[0]", 0), at("containers[1]", 0))),
        (of_init(json!([variable("dir")])), ""),
        (
            of_init(json!([variable("host")])),
            &format!("{}: referenced volume must be of type emptyDir", at("initContainers[0]", 0)),
        ),
    ]);
}
