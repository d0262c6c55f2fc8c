//! Cases of upstream's `abac_test.go`.

use super::*;
use crate::authn::UNAUTHENTICATED;

fn read(text: &str) -> Result<Policies, String> {
    Policies::parse(Path::new("/p"), text.as_bytes()).map_err(|error| error.to_string())
}

fn policies(lines: &[&str]) -> Policies {
    read(&lines.join("\n")).expect("policies")
}

/// Specs of the form with a version.
fn versioned(specs: &[&str]) -> Policies {
    let line = |spec: &&str| format!(r#"{{"apiVersion":"{V1BETA1}","kind":"Policy","spec":{spec}}}"#);
    let lines: Vec<String> = specs.iter().map(line).collect();
    read(&lines.join("\n")).expect("policies")
}

fn user(name: &str, groups: &[&str]) -> User {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    User { name: name.to_owned(), groups, ..User::default() }
}

/// `verb resource.group namespace`, where `-` stands for nothing, or `verb /path`.
fn request(text: &str) -> RequestInfo {
    let parts: Vec<&str> = text.split(' ').collect();
    let verb = parts[0].to_owned();
    if let [_, path] = parts[..] {
        let path = if path == "-" { "" } else { path };
        return RequestInfo { verb, path: path.to_owned(), ..RequestInfo::default() };
    }
    let some = |text: &str| if text == "-" { String::new() } else { text.to_owned() };
    let (resource, group) = parts[1].split_once('.').unwrap_or((parts[1], "-"));
    RequestInfo {
        is_resource: true,
        verb,
        resource: some(resource),
        group: some(group),
        namespace: some(parts[2]),
        ..RequestInfo::default()
    }
}

fn decides(policies: &Policies, cases: &[(&str, &str, bool)]) {
    for (name, asked, expected) in cases {
        let found = policies.authorize(&user(name, &[AUTHENTICATED]), &request(asked));
        let expected = if *expected { Decision::allow() } else { Decision::no_opinion("No policy matched.") };
        assert_eq!(found, expected, "{name}: {asked}");
    }
}

#[test]
fn what_the_older_form_leaves_out_is_everything() {
    let policies = policies(&[
        r#"{"readonly": true, "resource": "events"}"#,
        r#"{"user":"scheduler", "readonly": true, "resource": "pods"}"#,
        r#"{"user":"scheduler", "resource": "bindings"}"#,
        r#"{"user":"kubelet", "readonly": true, "resource": "bindings"}"#,
        r#"{"user":"kubelet", "resource": "events"}"#,
        r#"{"user":"alice", "namespace": "projectCaribou"}"#,
        r#"{"user":"bob", "readonly": true, "namespace": "projectCaribou"}"#,
    ]);
    decides(
        &policies,
        &[
            ("scheduler", "list pods ns1", true),
            ("scheduler", "list pods -", true),
            ("scheduler", "create pods ns1", false),
            ("scheduler", "create pods -", false),
            ("scheduler", "get bindings ns1", true),
            ("scheduler", "get bindings -", true),
            ("alice", "get pods projectCaribou", true),
            ("alice", "get widgets projectCaribou", true),
            ("alice", "get - projectCaribou", true),
            ("alice", "update pods projectCaribou", true),
            ("alice", "update - projectCaribou", true),
            ("alice", "update foo.bar projectCaribou", true),
            ("alice", "get pods ns1", false),
            ("alice", "get - ns1", false),
            ("bob", "watch pods projectCaribou", true),
            ("bob", "delete pods projectCaribou", false),
            ("chuck", "get events ns1", true),
            ("chuck", "get events -", true),
            ("chuck", "update events ns1", false),
            ("chuck", "get pods ns1", false),
            ("chuck", "get floop ns1", false),
            ("chuck", "get /", false),
        ],
    );
}

#[test]
fn policies_with_a_version_permit_what_they_say() {
    let policies = versioned(&[
        r#"{"user":"*", "readonly": true, "nonResourcePath": "/api"}"#,
        r#"{"user":"*", "nonResourcePath": "/custom"}"#,
        r#"{"user":"*", "nonResourcePath": "/root/*"}"#,
        r#"{"user":"noresource", "nonResourcePath": "*"}"#,
        r#"{"user":"*", "readonly": true, "resource": "events", "namespace": "*"}"#,
        r#"{"user":"scheduler", "readonly": true, "resource": "pods", "namespace": "*"}"#,
        r#"{"user":"scheduler", "resource": "bindings", "namespace": "*"}"#,
        r#"{"user":"alice", "resource": "*", "namespace": "projectCaribou"}"#,
        r#"{"user":"bob", "readonly": true, "resource": "*", "namespace": "projectCaribou"}"#,
        r#"{"user":"debbie", "resource": "pods", "namespace": "projectCaribou"}"#,
        r#"{"user":"groups", "resource": "*", "namespace": "any", "apiGroup": "*"}"#,
        r#"{"user":"groups", "resource": "*", "namespace": "empty", "apiGroup": ""}"#,
        r#"{"user":"groups", "resource": "*", "namespace": "x", "apiGroup": "x"}"#,
    ]);
    decides(
        &policies,
        &[
            ("scheduler", "list pods ns1", true),
            ("scheduler", "list pods -", true),
            ("scheduler", "create pods ns1", false),
            ("scheduler", "get bindings -", true),
            ("alice", "get pods projectCaribou", true),
            ("alice", "update widgets projectCaribou", true),
            ("alice", "update - projectCaribou", true),
            ("alice", "get pods ns1", false),
            ("debbie", "update pods projectCaribou", true),
            ("chuck", "get events ns1", true),
            ("chuck", "update events ns1", false),
            ("chuck", "get pods ns1", false),
            ("chuck", "get /", false),
            ("chuck", "get /api", true),
            ("chuck", "create /api", false),
            ("chuck", "update /custom", true),
            ("chuck", "get /root", false),
            ("chuck", "get /root/", true),
            ("chuck", "get /root/test/1/2/3", true),
            ("noresource", "get -", true),
            ("noresource", "get /", true),
            ("noresource", "get /foo/bar/baz", true),
            ("noresource", "get - bar", false),
            ("noresource", "get foo bar", false),
            ("groups", "get foo.x any", true),
            ("groups", "get foo.x empty", false),
            ("groups", "get foo empty", true),
            ("groups", "get foo.x x", true),
            ("groups", "get foo.y x", false),
        ],
    );
}

#[test]
fn subjects_are_users_and_groups() {
    let (nobody, known) = ([UNAUTHENTICATED], ["A", "B", "CCC", AUTHENTICATED]);
    // What both forms say of the subject, and what the older one says if nothing is said.
    for (subject, name, groups, older, newer) in [
        ("", "system:anonymous", &nobody[..], false, false),
        (r#""user":"*""#, "system:anonymous", &nobody, false, false),
        (r#""group":"*""#, "system:anonymous", &nobody, false, false),
        ("", "Foo", &known, true, false),
        (r#""user":"*""#, "Foo", &known, true, true),
        (r#""group":"*""#, "Foo", &known, true, true),
        (r#""user":"Foo""#, "system:anonymous", &nobody, false, false),
        (r#""user":"Foo""#, "Bar", &known, false, false),
        (r#""user":"Foo""#, "foo", &known, false, false),
        (r#""user":"Foo""#, "FooBar", &known, false, false),
        (r#""user":"Foo""#, "Foo", &known, true, true),
        (r#""group":"B""#, "system:anonymous", &nobody, false, false),
        (r#""group":"D""#, "Foo", &known, false, false),
        (r#""group":"b""#, "Foo", &known, false, false),
        (r#""group":"C""#, "Foo", &known, false, false),
        (r#""group":"B""#, "Foo", &known, true, true),
        (r#""user":"Foo","group":"B""#, "Bar", &known, false, false),
        (r#""user":"Foo","group":"D""#, "Foo", &known, false, false),
        (r#""user":"Foo","group":"B""#, "Foo", &known, true, true),
        // One star stands for both.
        (r#""user":"*","group":"D""#, "Foo", &known, true, true),
    ] {
        let user = user(name, groups);
        let spec = format!("{{{subject}}}");
        let found = (policies(&[&spec]).0[0].is_about(&user), versioned(&[&spec]).0[0].is_about(&user));
        assert_eq!(found, (older, newer), "{subject} / {name}");
    }
}

#[test]
fn rules_are_told() {
    let policies = policies(&[
        r#"{"readonly": true, "resource": "events"}"#,
        r#"{"user":"scheduler", "readonly": true, "resource": "pods"}"#,
        r#"{"user":"scheduler", "resource": "bindings"}"#,
        r#"{"user":"alice", "namespace": "projectCaribou"}"#,
        r#"{"user":"bob", "readonly": true, "namespace": "projectCaribou"}"#,
        r#"{"user":"bob", "readonly": true, "nonResourcePath": "*"}"#,
        r#"{"group":"a", "resource": "bindings"}"#,
        r#"{"group":"b", "readonly": true, "nonResourcePath": "*"}"#,
    ]);
    let reads = "get,list,watch";
    let known = &[AUTHENTICATED][..];
    for (name, groups, namespace, resources, paths) in [
        ("scheduler", known, "ns1", vec![(reads, "events"), (reads, "pods"), ("*", "bindings")], vec![]),
        ("chuck", &["a", "b"], "ns1", vec![("*", "bindings"), (reads, "*")], vec![(reads, "*")]),
        ("alice", known, "projectCaribou", vec![(reads, "events"), ("*", "*")], vec![]),
        ("alice", known, "other", vec![(reads, "events")], vec![]),
        (
            "bob",
            known,
            "projectCaribou",
            vec![(reads, "events"), (reads, "*"), (reads, "*")],
            vec![(reads, "*")],
        ),
    ] {
        let rules = policies.rules(&user(name, groups), namespace);
        assert!(!rules.incomplete && rules.errors.is_empty());
        let found: Vec<_> = rules
            .resource
            .iter()
            .map(|rule| {
                assert_eq!(rule.api_groups.as_deref(), Some(&["*".to_owned()][..]));
                (rule.verbs.join(","), rule.resources.clone().unwrap_or_default().join(","))
            })
            .collect();
        let owned = |list: &[(&str, &str)]| -> Vec<_> {
            list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        assert_eq!(found, owned(&resources), "{name}");
        let found: Vec<_> = rules
            .non_resource
            .iter()
            .map(|rule| (rule.verbs.join(","), rule.non_resource_urls.clone().unwrap_or_default().join(",")))
            .collect();
        assert_eq!(found, owned(&paths), "{name}");
    }
}

#[test]
fn files_hold_comments_and_both_forms() {
    let text = format!(
        "\n # a comment after a blank line\n\t{{\"user\":\"a\"}}\r\n\
         {{\"apiVersion\":\"{V1BETA1}\",\"kind\":\"Policy\",\"spec\":{{\"user\":\"b\",\"unknown\":1}}}}\n\
         user: c\n{{\"kind\":\"Policy\",\"user\":\"d\",\"group\":null}}"
    );
    let found = read(&text).expect("policies");
    let users: Vec<_> = found.0.iter().map(|policy| policy.user.as_str()).collect();
    assert_eq!(users, ["a", "b", "c", "d"]);
    assert_eq!(read(""), Ok(Policies::default()));
}

#[test]
fn lines_that_are_no_policies_are_named() {
    let at = |line: &str, why: &str| format!("error reading policy file /p, line 2: {line}: {why}");
    let versioned = |spec: &str| format!(r#"{{"apiVersion":"{V1BETA1}","kind":"Policy","spec":{spec}}}"#);
    for (line, why) in [
        (
            r#"{"user""#.to_owned(),
            "couldn't get version/kind; json parse error: unexpected end of JSON input",
        ),
        (
            r#"{"user":5}"#.to_owned(),
            "json: cannot unmarshal number into Go struct field Policy.user of type string",
        ),
        (
            r#"{"readonly":"yes"}"#.to_owned(),
            "json: cannot unmarshal string into Go struct field Policy.readonly of type bool",
        ),
        (
            versioned(r#"{"user":[]}"#),
            "json: cannot unmarshal array into Go struct field PolicySpec.spec.user of type string",
        ),
        (
            versioned("1"),
            "json: cannot unmarshal number into Go struct field Policy.spec of type v1beta1.PolicySpec",
        ),
        (
            r#"{"apiVersion":"v1","kind":"Pod"}"#.to_owned(),
            "no kind \"Pod\" is registered for version \"v1\" in scheme \"pkg/apis/abac/register.go:33\"",
        ),
        (r#"{"apiVersion":"a/b/c","kind":"Policy"}"#.to_owned(), "unexpected GroupVersion string: a/b/c"),
        (
            format!(r#"{{"apiVersion":"{V1BETA1}","spec":{{}}}}"#),
            "converting (*v1beta1.Policy) to (*v0.Policy): unknown conversion",
        ),
    ] {
        assert_eq!(read(&format!("# first\n{line}\n")), Err(at(&line, why)));
    }
    let long = format!("{{\"user\":\"{}\"}}", "x".repeat(LONGEST_LINE));
    assert_eq!(read(&long), Err("error reading policy file /p: bufio.Scanner: token too long".to_owned()));
    let missing = Policies::load(Path::new("/no/such/file")).expect_err("there is none");
    assert_eq!(missing.to_string(), "open /no/such/file: no such file or directory");
}
