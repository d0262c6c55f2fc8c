//! Who may do what, as seen from outside.

use apiserver::authn::User;
use base64::Engine;
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::{Value, json};

use super::support::{Answer, Authority, Cluster, Identity, create_pod, eventually, message, namespace, pod};

fn groups(user: &Value) -> Vec<&str> {
    user["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[tokio::test]
async fn client_certificates() {
    let cluster = Cluster::start().await;
    let ca = &cluster.authority;

    let (status, alice) = cluster.with_certificate(&ca.client("alice", &["dev", "ops"])).whoami().await;
    assert_eq!((status, alice["username"].as_str()), (201, Some("alice")));
    assert_eq!(groups(&alice), ["dev", "ops", "system:authenticated"]);
    let credential =
        alice["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap_or_default();
    assert!(credential.starts_with("X509SHA256="), "{alice}");

    let expired = ca.issue("alice", &[], |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    let for_servers = ca
        .issue("alice", &[], |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let of_others = Authority::new("others").client("alice", &["system:masters"]);
    for (what, identity) in [("expired", expired), ("for servers", for_servers), ("of others", of_others)] {
        let (status, answer) = cluster.with_certificate(&identity).get("/api/v1/namespaces").await;
        assert_eq!((status, answer["message"].as_str()), (401, Some("Unauthorized")), "{what}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn tokens_of_a_file_and_no_credentials() {
    let cluster = Cluster::start().await;
    let (status, bob) = cluster.with_token("secret-of-bob").whoami().await;
    assert_eq!((status, bob["username"].as_str(), bob["uid"].as_str()), (201, Some("bob"), Some("4711")));
    assert_eq!(groups(&bob), ["dev", "ops", "system:authenticated"]);
    assert_eq!(cluster.with_token("secret-of-root").get("/api/v1/nodes").await.0, 200);
    assert_eq!(cluster.with_token("guessed").get("/version").await.0, 401);

    let nobody = cluster.over_tls(json!({}));
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(nobody.get(path).await.0, 200, "{path}");
    }
    for path in ["/api", "/apis", "/metrics", "/openapi/v2"] {
        let (status, answer) = nobody.get(path).await;
        let text = format!("forbidden: User \"system:anonymous\" cannot get path \"{path}\"");
        assert_eq!((status, answer["message"].as_str()), (403, Some(text.as_str())));
    }
    let (status, answer) = nobody.get("/api/v1/namespaces/default/pods").await;
    assert_eq!(status, 403);
    assert_eq!(
        answer["message"],
        "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the \
         namespace \"default\""
    );
    cluster.stop().await;
}

#[tokio::test]
async fn without_anonymous_requests_there_is_nothing_to_see() {
    let cluster = Cluster::with(|config, _| config.authentication.anonymous = false).await;
    for path in ["/healthz", "/version", "/api"] {
        assert_eq!(cluster.over_tls(json!({})).get(path).await.0, 401, "{path}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_front_proxy_speaks_for_others() {
    let cluster = Cluster::start().await;
    let ask = |identity: Identity| {
        let asker = cluster.with_certificate(&identity);
        asker
            .header("X-Remote-User", "carol")
            .header("X-Remote-Group", "dev")
            .header("X-Remote-Extra-Via", "proxy")
    };
    let (status, carol) = ask(cluster.front_proxy.client("aggregator", &[])).whoami().await;
    assert_eq!((status, carol["username"].as_str()), (201, Some("carol")));
    assert_eq!(groups(&carol), ["dev", "system:authenticated"]);
    assert_eq!(carol["extra"]["via"], json!(["proxy"]));
    // A proxy of another name, and a client that claims to be one.
    assert_eq!(ask(cluster.front_proxy.client("somebody", &[])).whoami().await.0, 401);
    let (_, alice) = ask(cluster.authority.client("alice", &[])).whoami().await;
    assert_eq!(alice["username"], "alice");
    cluster.stop().await;
}

#[tokio::test]
async fn service_account_tokens() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    let account = json!({"metadata": {"name": "robot"}});
    let accounts = "/api/v1/namespaces/shop/serviceaccounts";
    let uid = admin.create(accounts, &account).await["metadata"]["uid"].clone();
    let request =
        |spec: Value| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let tokens = format!("{accounts}/robot/token");
    let issue = async |spec: Value| {
        let answer = admin.create(&tokens, &request(spec)).await;
        answer["status"]["token"].as_str().unwrap_or_default().to_owned()
    };

    let token = issue(json!({})).await;
    let robot = cluster.with_token(&token);
    let known =
        eventually("the account is known", || robot.whoami(), |(status, _): &Answer| *status == 201).await.1;
    assert_eq!(known["username"], "system:serviceaccount:shop:robot");
    assert_eq!(known["uid"], uid);
    assert_eq!(
        groups(&known),
        ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]
    );
    assert!(known["extra"]["authentication.kubernetes.io/credential-id"][0].is_string(), "{known}");

    // Tokens for others are no tokens for this server, but can be reviewed.
    let foreign = issue(json!({"audiences": ["vault"], "expirationSeconds": 600})).await;
    assert_eq!(cluster.with_token(&foreign).whoami().await.0, 401);
    let review = |token: &str, audiences: Value| {
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
               "spec": {"token": token, "audiences": audiences}})
    };
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let answer = admin.create(reviews, &review(&foreign, json!(["vault", "other"]))).await;
    assert_eq!(answer["status"]["authenticated"], true, "{answer}");
    assert_eq!(answer["status"]["audiences"], json!(["vault"]));
    let answer = admin.create(reviews, &review(&foreign, json!(["other"]))).await;
    assert_eq!(answer["status"]["authenticated"], Value::Null, "{answer}");
    assert!(answer["status"]["error"].as_str().is_some_and(|error| error.contains("audience")), "{answer}");

    // A token that is bound to a pod ends with the pod.
    let made = create_pod(&admin, "shop", &pod("web")).await;
    let reference = json!({"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": made["metadata"]["uid"]});
    let spec = json!({"boundObjectRef": reference});
    let (status, refusal) = admin.post(&tokens, &request(spec.clone())).await;
    assert_eq!(status, 400, "{refusal}");
    let own = format!("{accounts}/default/token");
    let bound =
        admin.create(&own, &request(spec)).await["status"]["token"].as_str().unwrap_or_default().to_owned();
    let of_pod = cluster.with_token(&bound);
    let known =
        eventually("the pod is known", || of_pod.whoami(), |(status, _): &Answer| *status == 201).await.1;
    assert_eq!(known["extra"]["authentication.kubernetes.io/pod-name"], json!(["web"]));
    admin.delete("/api/v1/namespaces/shop/pods/web?gracePeriodSeconds=0").await;
    eventually("the pod is gone", || of_pod.whoami(), |(status, _): &Answer| *status == 401).await;

    admin.delete(&format!("{accounts}/robot")).await;
    eventually("the account is gone", || robot.whoami(), |(status, _): &Answer| *status == 401).await;
    cluster.stop().await;
}

#[tokio::test]
async fn others_can_verify_service_account_tokens() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["vault"]}});
    let answer = admin.create("/api/v1/namespaces/shop/serviceaccounts/default/token", &request).await;
    let token = answer["status"]["token"].as_str().unwrap_or_default();

    let (status, configuration) = admin.get("/.well-known/openid-configuration").await;
    assert_eq!(status, 200);
    let (_, keys) = admin.get("/openid/v1/jwks").await;
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_value(keys).unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    let key = keys.find(header.kid.as_deref().unwrap()).expect("the key the token names");
    let mut rules = jsonwebtoken::Validation::new(header.alg);
    rules.set_audience(&["vault"]);
    rules.set_issuer(&[configuration["issuer"].as_str().unwrap()]);
    let key = jsonwebtoken::DecodingKey::from_jwk(key).unwrap();
    let claims = jsonwebtoken::decode::<Value>(token, &key, &rules).expect("a valid token").claims;
    assert_eq!(claims["sub"], "system:serviceaccount:shop:default");
    assert_eq!(claims["kubernetes.io"]["namespace"], "shop");
    cluster.stop().await;
}

#[tokio::test]
async fn bootstrap_tokens() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let secret = json!({
        "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
        "data": {
            "token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"),
            "usage-bootstrap-authentication": encode("true"),
            "auth-extra-groups": encode("system:bootstrappers:workers"),
        },
    });
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    admin.create(secrets, &secret).await;
    let joiner = cluster.with_token("abcdef.0123456789abcdef");
    let known =
        eventually("the token is known", || joiner.whoami(), |(status, _): &Answer| *status == 201).await.1;
    assert_eq!(known["username"], "system:bootstrap:abcdef");
    assert_eq!(
        groups(&known),
        ["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"]
    );
    assert_eq!(cluster.with_token("abcdef.0123456789abcdeX").whoami().await.0, 401);
    admin.delete(&format!("{secrets}/bootstrap-token-abcdef")).await;
    eventually("the token is gone", || joiner.whoami(), |(status, _): &Answer| *status == 401).await;
    cluster.stop().await;
}

#[tokio::test]
async fn roles_give_and_take() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    let dave = cluster.with_certificate(&cluster.authority.client("dave", &["dev"]));
    let pods = "/api/v1/namespaces/shop/pods";
    let denied = "pods is forbidden: User \"dave\" cannot list resource \"pods\" in API group \"\" in the namespace \
                  \"shop\"";
    assert_eq!(message(&dave.get(pods).await), denied);

    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop";
    let role = json!({"metadata": {"name": "reader"},
                      "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]});
    admin.create(&format!("{rbac}/roles"), &role).await;
    let binding = json!({
        "metadata": {"name": "dev-read"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "dev"}],
    });
    admin.create(&format!("{rbac}/rolebindings"), &binding).await;
    eventually("the role is given", || dave.get(pods), |(status, _): &Answer| *status == 200).await;
    assert_eq!(dave.post(pods, &pod("web")).await.0, 403);
    assert_eq!(dave.get("/api/v1/namespaces/default/pods").await.0, 403);

    // One may not hand out what one does not have.
    let maker = json!({"metadata": {"name": "maker"},
                       "rules": [{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["*"]}]});
    let given = |verbs: &[&str]| {
        json!({"metadata": {"name": "given"},
               "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]})
    };
    let owner = cluster.user("olga", &["dev", "owners"]);
    admin.create(&format!("{rbac}/roles"), &maker).await;
    let mut owners = binding.clone();
    owners["metadata"]["name"] = json!("owners");
    owners["roleRef"]["name"] = json!("maker");
    owners["subjects"][0]["name"] = json!("owners");
    admin.create(&format!("{rbac}/rolebindings"), &owners).await;
    let roles = format!("{rbac}/roles");
    // The rules of `maker` hold verb "*", which is no leave to escalate unless it says so for roles: here it does.
    eventually("the owners' role is given", || owner.get(&roles), |(status, _): &Answer| *status == 200)
        .await;
    assert_eq!(owner.post(&roles, &given(&["delete"])).await.0, 201);
    let mut narrow = maker.clone();
    narrow["rules"][0]["verbs"] = json!(["get", "list", "create", "update"]);
    assert_eq!(admin.ask("PUT", &format!("{roles}/maker"), Some(&narrow)).await.0, 200);
    let mut count = 0;
    let mut attempt = || {
        count += 1;
        let mut role = given(&["delete"]);
        role["metadata"]["name"] = json!(format!("more-{count}"));
        let (owner, roles) = (owner.clone(), roles.clone());
        async move { owner.post(&roles, &role).await }
    };
    let refusal =
        eventually("escalation is refused", &mut attempt, |(status, _): &Answer| *status == 403).await;
    assert!(
        message(&refusal).contains(
            "user \"olga\" (groups=[\"dev\" \"owners\" \"system:authenticated\"]) is attempting to grant RBAC \
             permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
        ),
        "{refusal:?}"
    );
    assert_eq!(
        owner.post(&roles, &given(&["get"])).await.0,
        409,
        "what one has one may give, but the name is taken"
    );

    admin.delete(&format!("{rbac}/rolebindings/dev-read")).await;
    eventually("the role is taken", || dave.get(pods), |(status, _): &Answer| *status == 403).await;
    cluster.stop().await;
}

#[tokio::test]
async fn impersonation() {
    let cluster = Cluster::start().await;
    let root = cluster.with_token("secret-of-root");
    let (status, eve) = root
        .clone()
        .header("Impersonate-User", "eve")
        .header("Impersonate-Group", "dev")
        .header("Impersonate-Extra-Scopes", "view")
        .whoami()
        .await;
    assert_eq!((status, eve["username"].as_str()), (201, Some("eve")));
    assert_eq!(groups(&eve), ["dev", "system:authenticated"]);
    assert_eq!(eve["extra"]["scopes"], json!(["view"]));
    let refusal = cluster.with_token("secret-of-bob").header("Impersonate-User", "eve").whoami().await;
    assert_eq!(refusal.0, 403);
    assert_eq!(
        message(&refusal),
        "selfsubjectreviews.authentication.k8s.io is forbidden: User \"bob\" cannot \
         impersonate-on:user-info:create resource \"selfsubjectreviews\" in API group \"authentication.k8s.io\" at \
         the cluster scope"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_sees_what_its_pods_need() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    admin.create("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await;
    let secrets = "/api/v1/namespaces/shop/secrets";
    admin.create(secrets, &json!({"metadata": {"name": "key"}, "stringData": {"a": "b"}})).await;
    let node = cluster.with_certificate(&cluster.authority.client("system:node:n1", &["system:nodes"]));
    let other = cluster.with_certificate(&cluster.authority.client("system:node:n2", &["system:nodes"]));
    let secret = format!("{secrets}/key");
    let refusal = node.get(&secret).await;
    assert_eq!(refusal.0, 403);
    assert!(
        message(&refusal).ends_with("no relationship found between node 'n1' and this object"),
        "{refusal:?}"
    );
    let mut own = pod("web");
    own["spec"]["nodeName"] = json!("n1");
    own["spec"]["volumes"] = json!([{"name": "key", "secret": {"secretName": "key"}}]);
    create_pod(&admin, "shop", &own).await;
    eventually("the pod needs it", || node.get(&secret), |(status, _): &Answer| *status == 200).await;
    assert_eq!(other.get(&secret).await.0, 403);
    assert_eq!(node.get(secrets).await.0, 403);
    assert_eq!(node.get("/api/v1/nodes/n1").await.0, 200);

    // Secrets come with a reading right each; what is not needed any more is not seen any more.
    admin.delete("/api/v1/namespaces/shop/pods/web?gracePeriodSeconds=0").await;
    eventually("the pod is gone", || node.get(&secret), |(status, _): &Answer| *status == 403).await;
    cluster.stop().await;
}

#[tokio::test]
async fn default_roles_come_back() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let (_, list) = admin.get(path).await;
    let names: Vec<&str> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|role| role["metadata"]["name"].as_str())
        .collect();
    for name in ["cluster-admin", "admin", "edit", "view", "system:node", "system:controller:job-controller"]
    {
        assert!(names.contains(&name), "{name} is missing from {names:?}");
    }
    let (_, service) = admin.get("/api/v1/namespaces/default/services/kubernetes").await;
    assert_eq!(service["spec"]["clusterIP"], "10.0.0.1", "{service}");
    let (_, slice) =
        admin.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await;
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.0.2.7"]), "{slice}");
    assert_eq!(slice["ports"][0]["port"], cluster.running.address().port());
    // Whoever may read the configuration is told apart by the loopback's user.
    assert!(User::loopback().in_group(apiserver::authn::MASTERS));
    cluster.stop().await;
}
