//! Admission of connections: exec, attach, port-forward, proxy (upstream `ConnectResource` in
//! `endpoints/handlers/rest.go`). What is admitted are the options of the request, as an object.

use api::status::ApiError;
use serde_json::{Map, Value};

use crate::admission::Operation;
use crate::codec;
use crate::query::{Query, is_true};
use crate::registry::write::Write;
use crate::registry::{Resource, Subresource};
use crate::server::Context;

const FLAGS: [&str; 4] = ["stdin", "stdout", "stderr", "tty"];

/// Lets admission have its say. The options as it has changed them, if it has.
pub async fn admit(
    cx: &Context,
    resource: &Resource,
    subresource: &Subresource,
) -> Result<Option<Query>, ApiError> {
    if subresource.name == "log" {
        // Looking is no connection.
        return Ok(None);
    }
    let write = Write { kind: subresource.kind.clone(), ..Write::new(cx, resource) };
    let given = codec::decode_value(options(cx, &subresource.name)?, &subresource.kind)?.value;
    let mut admitted = given.clone();
    write.admit(Operation::Connect, &cx.info.name, &mut admitted, None).await?;
    write.admission_validate(Operation::Connect, &cx.info.name, &admitted, None).await?;
    Ok((admitted != given).then(|| query(&admitted)))
}

/// The options of a request as an object, without what says nothing.
fn options(cx: &Context, subresource: &str) -> Result<Value, ApiError> {
    let mut options = Map::new();
    match subresource {
        "proxy" => {
            let path = subpath(cx);
            if !path.is_empty() {
                options.insert("path".to_owned(), path.into());
            }
        }
        "portforward" => {
            let number = |port: &str| {
                port.parse::<i32>().map(Value::from).map_err(|_| {
                    ApiError::bad_request(format!("strconv.ParseInt: parsing {port:?}: invalid syntax"))
                })
            };
            let ports =
                cx.query.all("ports").flat_map(|list| list.split(',')).filter(|port| !port.is_empty());
            let ports = ports.map(number).collect::<Result<Vec<_>, _>>()?;
            if !ports.is_empty() {
                options.insert("ports".to_owned(), ports.into());
            }
        }
        _ => {
            for flag in FLAGS.into_iter().filter(|flag| cx.query.first(flag).is_some_and(is_true)) {
                options.insert(flag.to_owned(), true.into());
            }
            if let Some(container) = cx.query.first("container").filter(|name| !name.is_empty()) {
                options.insert("container".to_owned(), container.into());
            }
            let command: Vec<Value> = cx.query.all("command").map(Value::from).collect();
            if subresource == "exec" && !command.is_empty() {
                options.insert("command".to_owned(), command.into());
            }
        }
    }
    Ok(Value::Object(options))
}

/// The path behind `proxy`.
fn subpath(cx: &Context) -> String {
    let rest = cx.info.parts.get(3..).unwrap_or_default().join("/");
    let slash = if rest.is_empty() { "" } else { "/" };
    let end = if cx.info.path.ends_with('/') && !rest.ends_with('/') { "/" } else { "" };
    format!("{slash}{rest}{end}")
}

/// Options as parameters.
fn query(options: &Value) -> Query {
    let mut pairs = Vec::new();
    for (name, value) in options.as_object().into_iter().flatten() {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in values.iter().filter(|_| !matches!(name.as_str(), "kind" | "apiVersion")) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            pairs.push((name.clone(), text));
        }
    }
    Query::of(pairs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_become_parameters_again() {
        let options = json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdin": true, "container": "c",
                             "command": ["sh", "-c"]});
        let query = query(&options);
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c"]);
        assert_eq!((query.bool("stdin"), query.first("container")), (Some(true), Some("c")));
        assert!(query.first("kind").is_none());
    }
}
