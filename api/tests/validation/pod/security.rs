//! Security contexts, profiles, operating systems, namespaces shared with the host.

use serde_json::{Value, json};

use super::super::{below, container, wholly};
use super::{base, changed, kind, specs};

/// Cases of the security context of the pod.
fn contexts(cases: &[(Value, &str)]) {
    below(&kind(), &base(), "spec.securityContext", |own| json!({"spec": {"securityContext": own}}), cases);
}

/// Cases of the security context of the only container.
fn container_contexts(cases: &[(Value, &str)]) {
    let place =
        |own: &Value| json!({"spec": {"containers": [changed("ctr", &json!({"securityContext": own}))]}});
    below(&kind(), &base(), "spec.containers[0].securityContext", place, cases);
}

#[test]
fn users_and_groups() {
    let between = "must be between 0 and 2147483647, inclusive";
    let (most, more) = (i64::from(i32::MAX), i64::from(i32::MAX) + 1);
    contexts(&[
        (json!({"supplementalGroups": [0], "runAsUser": 0, "fsGroup": 0}), ""),
        (json!({"supplementalGroups": [most], "runAsUser": most, "fsGroup": most}), ""),
        (json!({"supplementalGroups": [more, 1234]}), &format!(".supplementalGroups[0]: {between}")),
        (json!({"supplementalGroups": [-1, 1234]}), &format!(".supplementalGroups[0]: {between}")),
        (json!({"runAsUser": more}), &format!(".runAsUser: {between}")),
        (json!({"runAsUser": -1}), &format!(".runAsUser: {between}")),
        (json!({"fsGroup": more}), &format!(".fsGroup: {between}")),
        (json!({"fsGroup": -1}), &format!(".fsGroup: {between}")),
        (json!({"runAsGroup": -1}), &format!(".runAsGroup: {between}")),
        (json!({"fsGroupChangePolicy": "Always"}), ""),
        (json!({"fsGroupChangePolicy": "OnRootMismatch"}), ""),
        (
            json!({"fsGroupChangePolicy": ""}),
            ".fsGroupChangePolicy: Unsupported value: \"\": supported values: \"Always\", \"OnRootMismatch\"",
        ),
        (json!({"fsGroupChangePolicy": "invalid"}), ".fsGroupChangePolicy: Unsupported value: \"invalid\""),
        (json!({"supplementalGroupsPolicy": "Strict"}), ""),
        (json!({"supplementalGroupsPolicy": "Merge"}), ""),
        (
            json!({"supplementalGroupsPolicy": ""}),
            ".supplementalGroupsPolicy: Unsupported value: \"\": supported values: \"Merge\", \"Strict\"",
        ),
        (
            json!({"supplementalGroupsPolicy": "invalid"}),
            ".supplementalGroupsPolicy: Unsupported value: \"invalid\"",
        ),
        (json!({"seLinuxChangePolicy": "Recursive"}), ""),
        (
            json!({"seLinuxChangePolicy": "MountOption"}),
            ".seLinuxChangePolicy: Unsupported value: \"MountOption\": supported values: \"Recursive\"",
        ),
    ]);
}

#[test]
fn contexts_of_containers() {
    let full = |changes: Value| {
        let mut context = json!({
            "privileged": false, "capabilities": {"add": ["foo"], "drop": ["bar"]}, "runAsUser": 1,
            "seLinuxOptions": {"user": "user", "role": "role", "type": "type", "level": "level"},
        });
        api::patch::merge::apply(&mut context, changes);
        context
    };
    container_contexts(&[
        (full(json!({})), ""),
        (full(json!({"capabilities": null})), ""),
        (full(json!({"seLinuxOptions": null})), ""),
        (full(json!({"privileged": null})), ""),
        (full(json!({"privileged": true})), ""),
        (full(json!({"runAsUser": null})), ""),
        (full(json!({"procMount": "Default"})), ""),
        (
            full(json!({"procMount": "Unmasked"})),
            ".procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
        ),
        (
            full(json!({"procMount": "Odd"})),
            ".procMount: Unsupported value: \"Odd\": supported values: \"Default\", \"Unmasked\"",
        ),
        (full(json!({"runAsUser": -1})), ".runAsUser: must be between 0 and 2147483647, inclusive"),
        (
            full(json!({"capabilities": {"add": ["CAP_SYS_ADMIN"]}, "allowPrivilegeEscalation": false})),
            ": cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
        ),
        (
            full(json!({"privileged": true, "allowPrivilegeEscalation": false})),
            ": cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
    ]);
    let unmasked = changed("ctr", &json!({"securityContext": full(json!({"procMount": "Unmasked"}))}));
    specs(&[(json!({"hostUsers": false, "containers": [unmasked]}), "")]);
}

#[test]
fn users_of_windows() {
    let user = |name: &str| json!({"windowsOptions": {"runAsUserName": name}});
    let wrong = |detail: &str| format!(".windowsOptions.runAsUserName: runAsUserName{detail}");
    let format = wrong("'s Domain doesn't match the NetBios nor the DNS format");
    let fool = "fOo".repeat(20);
    let long = format!("{}.com\\user", &format!("{}.", "a".repeat(63)).repeat(4)[..253]);
    container_contexts(&[
        (json!({"windowsOptions": {}}), ""),
        (
            json!({"windowsOptions": {"gmsaCredentialSpecName": "dummy-gmsa-crep-spec-name", "gmsaCredentialSpec": "contents"}}),
            "",
        ),
        (
            json!({"windowsOptions": {"gmsaCredentialSpecName": "not_a-valid-gmsa-crep-spec-name"}}),
            ".windowsOptions.gmsaCredentialSpecName: a lowercase RFC 1123 subdomain must consist of",
        ),
        (
            json!({"windowsOptions": {"gmsaCredentialSpec": ""}}),
            ".windowsOptions.gmsaCredentialSpec: gmsaCredentialSpec cannot be an empty string",
        ),
        (
            json!({"windowsOptions": {"gmsaCredentialSpec": "a".repeat(64 * 1024 + 1)}}),
            ".windowsOptions.gmsaCredentialSpec: gmsaCredentialSpec size must be under 64 KiB",
        ),
        (user("Container. User"), ""),
        (user("Network Service\\Container. User"), ""),
        (user(&format!("{fool}.liSH\\Container. User")), ""),
        (user(&format!("{fool}.l\\Container. User")), ""),
        (user(&format!("{}\\Container. User", "a".repeat(42))), ""),
        (user(""), &wrong(" cannot be an empty string")),
        (user("Container\tUser"), &wrong(" cannot contain control characters")),
        (user("Container\\Foo\\Lish"), &wrong(" cannot contain more than one backslash")),
        (user("\\User"), &format),
        (user("Container\\"), &wrong("'s User cannot be empty")),
        (user(&format!("NetBios {}\\user", "a".repeat(8))), &format),
        (user(&long), &wrong("'s Domain length must be under 256 characters")),
        (user(&"a".repeat(105)), &wrong("'s User length must not be longer than 104 characters")),
        (user("... ..."), &wrong("'s User cannot contain only periods or spaces")),
        (user(".FooLish\\User"), &format),
        (user("Foo? Lish?\\User"), &format),
        (user(&format!("{}.com-\\user", "a".repeat(32))), &format),
        (
            user("Container/User"),
            &wrong("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"),
        ),
    ]);
}

#[test]
fn kernel_parameters() {
    let sysctls = |names: &[&str]| {
        let all: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
        json!({"sysctls": all})
    };
    let regex = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    for name in
        ["a.b.c.d", "a", "a_b", "a-b", "abc", "abc.def", "a/b/c/d", "a/b.c", "knet.ipv4.route.min_pmtu"]
    {
        contexts(&[(sysctls(&[name]), "")]);
    }
    let long = "a".repeat(256);
    let bad = [
        "*",
        "ä",
        "a_",
        "_",
        "__",
        "_a",
        "_a._b",
        "-",
        ".",
        "a.",
        ".a",
        "a.b.",
        "a*.b",
        "a*b",
        "*a",
        "a.*",
        "abc*",
        "a.abc*",
        "a.b.*",
        "Abc",
        "/",
        "/a",
        "a/abc*",
        "a/b/*",
        "i..nvalid",
        "_invalid",
        &long,
    ];
    for name in bad {
        contexts(&[(sysctls(&[name]), &format!(".sysctls[0].name: {regex}"))]);
    }
    let net = ["net.ipv4.conf.enp3s0/200.forwarding", "net/ipv4/conf/enp3s0.200/forwarding"];
    let ipc = ["kernel.shmmax", "kernel.msgmax"];
    contexts(&[
        (sysctls(&["net.foo.bar", "kernel.shmmax", net[0], net[1]]), ""),
        (sysctls(&[""]), ".sysctls[0].name: Required value"),
        (
            sysctls(&["kernel.shmmax", "kernel.shmmax"]),
            ".sysctls[1].name: Duplicate value: \"kernel.shmmax\"",
        ),
    ]);
    let not = |i: usize, what: &str| {
        format!(".securityContext.sysctls[{i}].name: may not be specified when '{what}' is true")
    };
    let twice = |what: &str| format!("{} | {}", not(0, what), not(1, what));
    specs(&[
        (json!({"hostNetwork": true, "securityContext": sysctls(&net)}), &twice("hostNetwork")),
        (json!({"hostIPC": true, "securityContext": sysctls(&ipc)}), &twice("hostIPC")),
        (json!({"hostNetwork": true, "securityContext": sysctls(&ipc)}), ""),
        (json!({"hostIPC": true, "securityContext": sysctls(&net)}), ""),
    ]);
}

#[test]
fn processes_of_the_host() {
    let windows = |process: Option<bool>| match process {
        Some(process) => json!({"securityContext": {"windowsOptions": {"hostProcess": process}}}),
        None => json!({}),
    };
    let pod = |network: bool, own: Option<bool>, containers: &[Option<bool>], init: &[Option<bool>]| {
        let list = |prefix: &str, all: &[Option<bool>]| -> Vec<Value> {
            all.iter().enumerate().map(|(i, own)| changed(&format!("{prefix}{i}"), &windows(*own))).collect()
        };
        let mut spec = windows(own);
        spec["hostNetwork"] = network.into();
        spec["containers"] = list("ctr", containers).into();
        spec["initContainers"] = list("init", init).into();
        spec
    };
    let (yes, no) = (Some(true), Some(false));
    let all = ": Invalid value: \"\": If pod contains any hostProcess containers then all containers must be HostProcess containers";
    let network = ".hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers";
    let same = |at: &str, pod: bool| {
        format!(
            ".{at}.securityContext.windowsOptions.hostProcess: pod hostProcess value must be identical if both are specified, was {pod}"
        )
    };
    specs(&[
        (pod(false, yes, &[None], &[]), network),
        (pod(true, yes, &[None], &[]), ""),
        (pod(true, yes, &[yes], &[yes]), ""),
        (pod(true, None, &[yes], &[yes]), ""),
        (pod(true, None, &[yes], &[no]), all),
        (pod(true, None, &[yes], &[None]), all),
        (pod(true, yes, &[yes], &[no]), &format!("{} | {all}", same("initContainers[0]", true))),
        (pod(true, yes, &[yes, no], &[]), &format!("{} | {all}", same("containers[1]", true))),
        (pod(true, yes, &[yes], &[None]), ""),
        (pod(true, no, &[yes], &[None]), &format!("{} | {all}", same("containers[0]", false))),
        (pod(true, yes, &[no], &[]), &same("containers[0]", true)),
    ]);
}

#[test]
fn operating_systems() {
    let os = |name: &str, mut spec: Value| {
        spec["os"] = json!({"name": name});
        spec
    };
    let own = |context: Value| json!({"securityContext": context});
    let one = |context: Value| json!({"containers": [changed("ctr", &json!({"securityContext": context}))]});
    let user = json!({"windowsOptions": {"runAsUserName": "dummy"}});
    let linux = json!({"seLinuxOptions": {"user": "user", "role": "role", "type": "type", "level": "level"}, "runAsUser": 1});
    let not = "Forbidden: cannot be set for a windows pod";
    let options = "Forbidden: windows options cannot be set for a linux pod";
    specs(&[
        (json!({"os": null}), ""),
        (os("linux", json!({})), ""),
        (os("windows", json!({})), ""),
        (os("", json!({})), ".os.name: Required value"),
        (
            os("dummyOS", json!({})),
            ".os: Unsupported value: \"dummyOS\": supported values: \"linux\", \"windows\"",
        ),
        (os("linux", own(linux.clone())), ""),
        (os("linux", own(user.clone())), &format!(".securityContext.windowsOptions: {options}")),
        (os("linux", one(linux)), ""),
        (
            os("linux", one(user.clone())),
            &format!(".containers[0].securityContext.windowsOptions: {options}"),
        ),
        (os("windows", own(user.clone())), ""),
        (os("windows", one(user)), ""),
        (
            os("windows", own(json!({"seLinuxOptions": {"role": "dummyRole"}}))),
            &format!(".securityContext.seLinuxOptions: {not}"),
        ),
        (
            os("windows", own(json!({"supplementalGroupsPolicy": "Strict"}))),
            &format!(".securityContext.supplementalGroupsPolicy: {not}"),
        ),
        (
            os("windows", one(json!({"seLinuxOptions": {"role": "dummy"}}))),
            &format!(".containers[0].securityContext.seLinuxOptions: {not}"),
        ),
        (
            os("windows", one(json!({"seccompProfile": {"type": "RuntimeDefault"}}))),
            &format!(".containers[0].securityContext.seccompProfile: {not}"),
        ),
        (
            os("windows", one(json!({"appArmorProfile": {"type": "RuntimeDefault"}}))),
            &format!(".containers[0].securityContext.appArmorProfile: {not}"),
        ),
    ]);
    for (field, value) in [
        ("seLinuxOptions", json!({"role": "r"})),
        ("capabilities", json!({"add": ["NET_ADMIN"]})),
        ("readOnlyRootFilesystem", json!(true)),
        ("privileged", json!(false)),
        ("allowPrivilegeEscalation", json!(true)),
        ("procMount", json!("Default")),
        ("runAsUser", json!(1)),
        ("runAsGroup", json!(1)),
    ] {
        let case = os("windows", one(json!({field: value})));
        specs(&[(case, &format!(".containers[0].securityContext.{field}: {not}"))]);
    }
    for (field, value) in [
        ("fsGroup", json!(1)),
        ("fsGroupChangePolicy", json!("Always")),
        ("sysctls", json!([{"name": "a", "value": "b"}])),
        ("runAsUser", json!(1)),
        ("runAsGroup", json!(1)),
        ("supplementalGroups", json!([1])),
        ("seLinuxChangePolicy", json!("Recursive")),
        ("seccompProfile", json!({"type": "RuntimeDefault"})),
        ("appArmorProfile", json!({"type": "RuntimeDefault"})),
    ] {
        let case = os("windows", own(json!({field: value})));
        specs(&[(case, &format!(".securityContext.{field}: {not}"))]);
    }
    for field in ["hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"] {
        specs(&[(os("windows", json!({field: true})), &format!(".{field}: {not}"))]);
    }
}

#[test]
fn users_of_the_host() {
    let not = "Forbidden: when `hostUsers` is false";
    let volumes = json!([
        {"name": "configmap", "configMap": {"name": "configmap"}}, {"name": "secret", "secret": {"secretName": "secret"}},
        {"name": "downward-api", "downwardAPI": {}}, {"name": "proj", "projected": {}}, {"name": "empty-dir", "emptyDir": {}},
        {"name": "host-path", "hostPath": {"path": "/a"}}, {"name": "block", "persistentVolumeClaim": {"claimName": "c"}},
    ]);
    let device = json!({"volumeDevices": [{"name": "block", "devicePath": "/dev/test-device"}]});
    specs(&[
        (json!({"securityContext": {}}), ""),
        (json!({"hostUsers": false}), ""),
        (json!({"hostUsers": true}), ""),
        (json!({"hostUsers": false, "volumes": volumes}), ""),
        (json!({"hostUsers": true, "volumes": volumes}), ""),
        (json!({"hostUsers": false, "hostNetwork": true}), &format!(".hostNetwork: {not}")),
        (json!({"hostUsers": false, "hostPID": true}), &format!(".HostPID: {not}")),
        (json!({"hostUsers": false, "hostIPC": true}), &format!(".HostIPC: {not}")),
        (
            json!({"hostUsers": false, "volumes": volumes, "containers": [changed("ctr", &device)]}),
            &format!(".containers[0].volumeDevices: {not}"),
        ),
        (
            json!({"hostUsers": false, "volumes": volumes, "initContainers": [changed("init", &device)]}),
            &format!(".initContainers[0].volumeDevices: {not}"),
        ),
    ]);
}

#[test]
fn seccomp_profiles() {
    let profile = |kind: &str, local: Option<&str>| json!({"seccompProfile": {"type": kind, "localhostProfile": local}});
    let cases = [
        (profile("RuntimeDefault", None), ""),
        (profile("Unconfined", None), ""),
        (profile("Localhost", Some("filename.json")), ""),
        (
            profile("Localhost", None),
            ".seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
        ),
        (profile("Localhost", Some("../a")), ".seccompProfile.localhostProfile: must not contain '..'"),
        (
            profile("RuntimeDefault", Some("a")),
            ".seccompProfile.localhostProfile: can only be set when seccomp type is Localhost",
        ),
        (
            profile("", None),
            ".seccompProfile.type: Required value: type is required when seccompProfile is set",
        ),
        (profile("Odd", None), ".seccompProfile.type: Unsupported value: \"Odd\""),
    ];
    contexts(&cases);
    container_contexts(&cases);
    let pod = "seccomp.security.alpha.kubernetes.io/pod";
    let of = |name: &str| format!("container.seccomp.security.alpha.kubernetes.io/{name}");
    let annotated = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
    let invalid = |key: &str| format!("metadata.annotations.{key}: must be a valid seccomp profile");
    let matches = |annotation: &str, kind: &str, local: Option<&str>| json!({"metadata": {"annotations": {pod: annotation}}, "spec": {"securityContext": profile(kind, local)}});
    let own = |annotation: &str, kind: &str, local: Option<&str>| {
        let container = changed("ctr", &json!({"securityContext": profile(kind, local)}));
        json!({"metadata": {"annotations": {of("ctr"): annotation}}, "spec": {"containers": [container]}})
    };
    let at = "spec.securityContext.seccompProfile";
    let in_container = "spec.containers[0].securityContext.seccompProfile";
    let (kind_differs, profile_differs) = (
        "Forbidden: seccomp type in annotation and field must match",
        "Forbidden: seccomp profile in annotation and field must match",
    );
    let wrong = invalid(pod);
    wholly(
        &kind(),
        &base(),
        &[
            (annotated(pod, "runtime/default"), ""),
            (annotated(pod, "unconfined"), ""),
            (annotated(pod, "localhost/foo"), ""),
            (annotated(&of("foo"), "localhost/foo"), ""),
            (annotated(pod, "foo"), &wrong),
            (annotated(&of("foo"), "foo"), &invalid(&of("foo"))),
            (annotated(&of("foo"), ""), &invalid(&of("foo"))),
            (
                annotated(&of(""), "foo"),
                &format!(
                    "metadata.annotations: name part must be non-empty | metadata.annotations: name part must consist of | {}",
                    invalid(&of(""))
                ),
            ),
            (
                annotated(pod, "localhost//foo"),
                &format!("metadata.annotations.{pod}: must be a relative path"),
            ),
            (
                annotated(pod, "localhost/../foo"),
                &format!("metadata.annotations.{pod}: must not contain '..'"),
            ),
            (matches("unconfined", "Unconfined", None), ""),
            (matches("runtime/default", "RuntimeDefault", None), ""),
            (matches("docker/default", "RuntimeDefault", None), ""),
            (matches("localhost/test.json", "Localhost", Some("test.json")), ""),
            (
                matches("localhost/test.json", "Localhost", Some("different.json")),
                &format!("{at}.localhostProfile: {profile_differs}"),
            ),
            (matches("localhost/test.json", "Unconfined", None), &format!("{at}.type: {kind_differs}")),
            (matches("localhost/test.json", "RuntimeDefault", None), &format!("{at}.type: {kind_differs}")),
            (matches("unconfined", "RuntimeDefault", None), &format!("{at}.type: {kind_differs}")),
            (matches("not-matching", "Unconfined", None), &format!("{wrong} | {at}.type: {kind_differs}")),
            (
                matches("not-matching", "Localhost", Some("test")),
                &format!("{wrong} | {at}.type: {kind_differs}"),
            ),
            (matches("localhost/anyprofile", "Abc", None), &format!("{at}.type: Unsupported value: \"Abc\"")),
            (own("unconfined", "RuntimeDefault", None), &format!("{in_container}.type: {kind_differs}")),
            (
                own("localhost/not-matching", "Localhost", Some("test")),
                &format!("{in_container}.localhostProfile: {profile_differs}"),
            ),
            (
                own("localhost/not-matching", "Abc", None),
                &format!("{in_container}.type: Unsupported value: \"Abc\""),
            ),
        ],
    );
    // The same of templates.
    let template = api::names::GroupVersionKind::new("", "v1", "PodTemplate");
    let template_base = json!({"metadata": {"name": "abc", "namespace": "ns"}, "template": {"spec": super::pod_spec("Always")}});
    let runtime = |name: &str| changed(name, &json!({"securityContext": profile("RuntimeDefault", None)}));
    below(
        &template,
        &template_base,
        "template.spec.",
        |changes| json!({"template": changes}),
        &[
            (
                json!({"metadata": {"annotations": {of("test2"): "unconfined"}}, "spec": {"containers": [container("test1"), runtime("test2")]}}),
                &format!("containers[1].securityContext.seccompProfile.type: {kind_differs}"),
            ),
            (
                json!({"metadata": {"annotations": {pod: "runtime/default"}}, "spec": {"securityContext": profile("Unconfined", None)}}),
                &format!("securityContext.seccompProfile.type: {kind_differs}"),
            ),
            (
                json!({"metadata": {"annotations": {of("init-test"): "unconfined"}}, "spec": {"initContainers": [runtime("init-test")]}}),
                &format!("initContainers[0].securityContext.seccompProfile.type: {kind_differs}"),
            ),
        ],
    );
}

#[test]
fn app_armor_profiles() {
    let profile = |kind: &str, local: Option<&str>| json!({"appArmorProfile": {"type": kind, "localhostProfile": local}});
    let at = ".appArmorProfile";
    let required =
        format!("{at}.localhostProfile: Required value: must be set when AppArmor type is Localhost");
    let long = "a".repeat(4096);
    let cases = [
        (profile("RuntimeDefault", None), ""),
        (profile("Unconfined", None), ""),
        (profile("Localhost", Some("example-org/application-foo")), ""),
        (profile("test", None), ".appArmorProfile.type: Unsupported value: \"test\""),
        (
            profile("", None),
            ".appArmorProfile.type: Required value: type is required when appArmorProfile is set",
        ),
        (profile("Localhost", None), &required),
        (profile("Localhost", Some("")), &required),
        (
            profile("RuntimeDefault", Some("foo-bar")),
            ".appArmorProfile.localhostProfile: Invalid value: \"foo-bar\"",
        ),
        (
            profile("Localhost", Some("foo-bar ")),
            ".appArmorProfile.localhostProfile: Invalid value: \"foo-bar \"",
        ),
        (
            profile("Localhost", Some(&long)),
            ".appArmorProfile.localhostProfile: Too long: may not be more than 4095 bytes",
        ),
    ];
    contexts(&cases);
    container_contexts(&cases);
    let key = |name: &str| format!("container.apparmor.security.beta.kubernetes.io/{name}");
    let annotated = |profile: &str, mut changes: Value| {
        changes["metadata"] = json!({"annotations": {key("ctr"): profile}});
        changes
    };
    let pod = |own: Value| json!({"spec": {"securityContext": own}});
    let one =
        |own: Value| json!({"spec": {"containers": [changed("ctr", &json!({"securityContext": own}))]}});
    let in_container = "spec.containers[0].securityContext.appArmorProfile";
    let kind_differs =
        format!("{in_container}.type: Forbidden: apparmor type in annotation and field must match");
    let name = |profile: &str| {
        format!("metadata.annotations[{}]: invalid AppArmor profile name: \"{profile}\"", key("ctr"))
    };
    wholly(
        &kind(),
        &base(),
        &[
            (annotated("runtime/default", json!({})), ""),
            (annotated("localhost/foo", json!({})), ""),
            (annotated("", json!({})), ""),
            (annotated("unconfined", json!({})), ""),
            (annotated("localhost//usr/sbin/ntpd", json!({})), ""),
            (annotated("localhost/foo-bar", json!({})), ""),
            (annotated("bad-name", json!({})), &name("bad-name")),
            (annotated("baz", json!({})), &name("baz")),
            (annotated("runtime/foo", json!({})), &name("runtime/foo")),
            (
                json!({"metadata": {"annotations": {key("init-ctr"): "runtime/default"}}, "spec": {"initContainers": [container("init-ctr")]}}),
                "",
            ),
            (
                json!({"metadata": {"annotations": {key("fake-ctr"): "runtime/default"}}}),
                &format!(
                    "metadata.annotations[{}]: Invalid value: \"fake-ctr\": container not found",
                    key("fake-ctr")
                ),
            ),
            (annotated("localhost/foo", one(profile("Localhost", Some("foo")))), ""),
            (annotated("localhost/foo", pod(profile("Localhost", Some("foo")))), ""),
            (annotated("runtime/default", one(profile("Unconfined", None))), &kind_differs),
            (annotated("runtime/default", pod(profile("Unconfined", None))), &kind_differs),
            (
                annotated("localhost/foo", one(profile("Localhost", Some("bar")))),
                &format!(
                    "{in_container}.localhostProfile: Forbidden: apparmor profile in annotation and field must match"
                ),
            ),
        ],
    );
}
