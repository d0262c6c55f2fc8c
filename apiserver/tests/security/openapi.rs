//! The published description of the API.

use http::{Request, Response};
use serde_json::{Value, json};

use super::support::{Asker, Cluster};

const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

async fn fetch(admin: &Asker, path: &str, headers: &[(&str, &str)]) -> Response<Vec<u8>> {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = admin.client.send(request.body(Vec::new().into()).unwrap()).await.expect("an answer");
    let (head, body) = answer.into_parts();
    Response::from_parts(head, body.collect_bytes().await.expect("a body").to_vec())
}

fn header<'r>(response: &'r Response<Vec<u8>>, name: &str) -> &'r str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn json_of(response: &Response<Vec<u8>>) -> Value {
    serde_json::from_slice(response.body()).expect("JSON")
}

#[tokio::test]
async fn version_2_is_one_document_in_two_encodings() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let answer = fetch(&admin, "/openapi/v2", &[("Accept", "application/json")]).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (200, "application/json"));
    let document = json_of(&answer);
    assert_eq!(document["swagger"], "2.0");
    let pods = &document["paths"]["/api/v1/namespaces/{namespace}/pods"];
    assert_eq!(pods["get"]["operationId"], "listCoreV1NamespacedPod");
    let pod = &document["definitions"]["io.k8s.api.core.v1.Pod"];
    let kind = json!([{"group": "", "kind": "Pod", "version": "v1"}]);
    assert_eq!(pod["x-kubernetes-group-version-kind"], kind);
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in ["post", "put"].into_iter().filter_map(|method| item.get(method)) {
            let names = [&operation["parameters"], &item["parameters"]];
            let mut all = names.iter().flat_map(|list| list.as_array().into_iter().flatten());
            let connect = operation["x-kubernetes-action"] == "connect";
            // Old clients look here for what they may ask of the server.
            assert!(connect || all.any(|parameter| parameter["name"] == "fieldValidation"), "{path}");
        }
    }

    let etag = header(&answer, "etag").to_owned();
    assert_eq!(etag.len(), 130);
    let known = fetch(&admin, "/openapi/v2", &[("If-None-Match", &etag)]).await;
    assert_eq!(
        (known.status().as_u16(), known.body().len(), header(&known, "etag")),
        (304, 0, etag.as_str())
    );
    let protobuf = fetch(&admin, "/openapi/v2", &[("Accept", PROTOBUF)]).await;
    let media = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    assert_eq!((header(&protobuf, "content-type"), header(&protobuf, "etag")), (media, etag.as_str()));
    // swagger: "2.0"
    assert!(protobuf.body().starts_with(b"\x0a\x032.0"));
    let packed = fetch(&admin, "/openapi/v2", &[("Accept-Encoding", "gzip")]).await;
    assert_eq!(header(&packed, "content-encoding"), "gzip");
    let varies: Vec<&str> = packed.headers().get_all("vary").iter().map(|v| v.to_str().unwrap()).collect();
    assert_eq!(varies, ["Accept-Encoding", "Accept"]);
    let other = fetch(&admin, "/openapi/v2", &[("Accept", "text/html")]).await;
    assert_eq!(other.status(), 406);
    cluster.stop().await;
}

/// Everything that a document refers to.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn version_3_is_a_document_for_each_group_version() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let index = json_of(&fetch(&admin, "/openapi/v3", &[]).await);
    let paths = index["paths"].as_object().unwrap();
    for part in ["api", "api/v1", "apis", "apis/apps", "apis/apps/v1", "version", "openid/v1/jwks"] {
        assert!(paths.contains_key(part), "{part}");
    }
    for (part, entry) in paths {
        let address = entry["serverRelativeURL"].as_str().unwrap();
        let answer = fetch(&admin, address, &[]).await;
        assert_eq!(
            (answer.status().as_u16(), header(&answer, "cache-control")),
            (200, "public, immutable"),
            "{part}"
        );
        assert_eq!(format!("/openapi/v3/{part}?hash={}", header(&answer, "etag").trim_matches('"')), address);
        let document = json_of(&answer);
        assert_eq!(document["openapi"], "3.0.0");
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in found {
            let pointer = reference.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{part}: {reference}");
        }
    }
    let stale = fetch(&admin, "/openapi/v3/apis/apps/v1?hash=00", &[]).await;
    assert_eq!(
        (stale.status().as_u16(), header(&stale, "location")),
        (301, paths["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap())
    );
    let plain = fetch(&admin, "/openapi/v3/apis/apps/v1", &[]).await;
    assert_eq!((plain.status().as_u16(), header(&plain, "cache-control")), (200, "no-cache, private"));
    assert_eq!(fetch(&admin, "/openapi/v3/apis/nothing/v1", &[]).await.status(), 404);
    cluster.stop().await;
}
