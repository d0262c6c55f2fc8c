//! Conversion by webhook: the ConversionReview that is sent, and what is believed of its answer (upstream
//! `apiextensions-apiserver/pkg/apiserver/conversion`). What is asked, and who, is for the server.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::field::{Error, Path};
use crate::gofmt::type_name;
use crate::names::{GroupVersion, GroupVersionKind};
use crate::validation::meta;

/// A question to a webhook.
#[derive(Clone, Debug, PartialEq)]
pub struct Review {
    /// What is sent.
    pub body: Value,
    uid: String,
    /// Whether the answer's version and uid count: they did not in v1beta1.
    strict: bool,
}

/// Asks for `objects` in the version `to` (`group/version`), in the first form of the review that `versions` names.
///
/// # Errors
/// When it names none that is known.
pub fn review(versions: &[String], objects: &[Value], to: &str, uid: &str) -> Result<Review, String> {
    let known = versions.iter().find(|version| matches!(version.as_str(), "v1" | "v1beta1"));
    let version = known.ok_or_else(|| "no supported conversion review versions".to_owned())?;
    let body = json!({
        "kind": "ConversionReview",
        "apiVersion": format!("apiextensions.k8s.io/{version}"),
        "request": {"uid": uid, "desiredAPIVersion": to, "objects": objects},
    });
    Ok(Review { body, uid: uid.to_owned(), strict: version == "v1" })
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Group, version and kind that an object says it is of.
#[must_use]
pub fn kind_of(object: &Value) -> GroupVersionKind {
    let version =
        GroupVersion::parse(text(object, "apiVersion")).unwrap_or_else(|| GroupVersion::new("", ""));
    version.with_kind(text(object, "kind").to_owned())
}

impl Review {
    /// The converted objects of an answer, in order. They keep all metadata of `originals` but labels and annotations.
    ///
    /// # Errors
    /// Why the answer is not believed.
    pub fn accept(&self, answer: &Value, originals: &[Value], to: &str) -> Result<Vec<Value>, String> {
        let of = originals.first().map(kind_of).unwrap_or_else(|| kind_of(&Value::Null));
        let converted =
            self.objects(answer).map_err(|why| format!("conversion webhook for {of} failed: {why}"))?;
        if converted.len() != originals.len() {
            return Err(format!(
                "conversion webhook for {of} returned {} objects, expected {}",
                converted.len(),
                originals.len()
            ));
        }
        let alone = originals.len() == 1;
        let pairs = originals.iter().zip(converted).enumerate();
        let believed = pairs.map(|(index, (original, converted))| {
            believe(original, converted.clone(), to).map_err(|problem| problem.tell(&of, index, alone))
        });
        believed.collect()
    }

    fn objects<'a>(&self, answer: &'a Value) -> Result<&'a [Value], String> {
        let expected = GroupVersionKind::new("apiextensions.k8s.io", "v1", "ConversionReview");
        let found = kind_of(answer);
        if self.strict && found != expected {
            return Err(format!("expected webhook response of {expected}, got {found}"));
        }
        let response = answer.get("response").filter(|response| !response.is_null());
        let response = response.ok_or_else(|| "no response provided".to_owned())?;
        let uid = text(response, "uid");
        if self.strict && uid != self.uid {
            return Err(format!("expected response.uid={:?}, got {uid:?}", self.uid));
        }
        let result = response.get("result").unwrap_or(&Value::Null);
        if text(result, "status") != "Success" {
            return Err(match text(result, "message") {
                "" => format!("response.result.status was '{}', not 'Success'", text(result, "status")),
                message => message.to_owned(),
            });
        }
        Ok(response.get("convertedObjects").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default())
    }
}

/// What is wrong with a converted object.
enum Problem {
    /// It is no object.
    Unreadable(String),
    /// It is of another version or kind.
    Type(String),
    /// It is another object.
    Other(String),
    /// Its metadata cannot be used.
    Metadata(String),
}

impl Problem {
    fn tell(self, of: &GroupVersionKind, index: usize, alone: bool) -> String {
        let hook = format!("conversion webhook for {of} returned invalid");
        match (self, alone) {
            (Self::Unreadable(why), true) => why,
            (Self::Type(why), true) => format!("{hook} object at index {index}: {why}"),
            (Self::Other(why), true) => format!("{hook} object: {why}"),
            (Self::Metadata(why), true) => format!("{hook} metadata: {why}"),
            (Self::Unreadable(why) | Self::Type(why) | Self::Other(why), false) => {
                format!("{hook} converted object at index {index}: {why}")
            }
            (Self::Metadata(why), false) => format!("{hook} metadata in object at index {index}: {why}"),
        }
    }
}

fn believe(original: &Value, mut converted: Value, to: &str) -> Result<Value, Problem> {
    if text(&converted, "kind").is_empty() {
        return Err(Problem::Unreadable(format!("Object 'Kind' is missing in '{converted}'")));
    }
    let (found, kind) = (text(&converted, "apiVersion"), text(&converted, "kind"));
    if found != to {
        return Err(Problem::Type(format!("invalid groupVersion (expected {to}, received {found})")));
    }
    let expected = text(original, "kind");
    if kind != expected {
        return Err(Problem::Type(format!("invalid kind (expected {expected}, received {kind})")));
    }
    for (name, field) in [("name", "name"), ("namespace", "namespace"), ("UID", "uid")] {
        let of = |object: &Value| object.get("metadata").map(|meta| text(meta, field).to_owned());
        let (before, after) = (of(original).unwrap_or_default(), of(&converted).unwrap_or_default());
        if before != after {
            return Err(Problem::Other(format!("must have the same {name}: {before} != {after}")));
        }
    }
    restore_metadata(original, &mut converted).map_err(Problem::Metadata)?;
    Ok(converted)
}

/// Puts back all metadata but labels and annotations.
fn restore_metadata(original: &Value, converted: &mut Value) -> Result<(), String> {
    let given = converted.get("metadata").ok_or("missing metadata in converted object")?;
    let given = given
        .as_object()
        .ok_or_else(|| format!("invalid metadata of type {} in converted object", type_name(given)))?;
    let mut kept = original.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        let Some(new) = given.get(field).filter(|new| !new.is_null()) else {
            kept.remove(field);
            continue;
        };
        let new = new.as_object().ok_or_else(|| {
            format!("invalid metadata.{field} of type {} in converted object", type_name(new))
        })?;
        check_texts(field, new)?;
        if kept.get(field).and_then(Value::as_object) != Some(new) {
            check_values(field, new)?;
        }
        kept.insert(field.to_owned(), Value::Object(new.clone()));
    }
    converted["metadata"] = Value::Object(kept);
    Ok(())
}

fn check_texts(field: &str, new: &Map<String, Value>) -> Result<(), String> {
    match new.iter().find(|(_, value)| !value.is_string()) {
        None => Ok(()),
        Some((key, value)) => Err(format!(
            "metadata.{field}[{key}] must be a string, but is {} in converted object",
            type_name(value)
        )),
    }
}

fn check_values(field: &str, new: &Map<String, Value>) -> Result<(), String> {
    let values: BTreeMap<String, String> =
        new.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    let errors = match field {
        "labels" => meta::labels(Some(&values), &Path::new("metadata").child("labels")),
        _ => meta::annotations(Some(&values), &Path::new("metadata").child("annotation")),
    };
    match errors.iter().map(Error::to_string).collect::<Vec<_>>().as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        several => Err(format!("[{}]", several.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: &str = "g.io/v2";

    fn original() -> Value {
        json!({"apiVersion": "g.io/v1", "kind": "Thing", "spec": {"a": 1},
               "metadata": {"name": "x", "uid": "u", "generation": 3, "labels": {"a": "b"}}})
    }

    fn converted(change: impl FnOnce(&mut Value)) -> Value {
        let mut object = original();
        object["apiVersion"] = TO.into();
        change(&mut object);
        object
    }

    fn answer(objects: Value) -> Value {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
               "response": {"uid": "1", "result": {"status": "Success"}, "convertedObjects": objects}})
    }

    fn ask(versions: &[&str]) -> Result<Review, String> {
        let versions: Vec<String> = versions.iter().map(|version| (*version).to_owned()).collect();
        review(&versions, &[original()], TO, "1")
    }

    #[test]
    fn the_first_known_form_is_used() {
        for (versions, expected) in [
            (&["v2", "v1beta1", "v1"][..], Ok("apiextensions.k8s.io/v1beta1")),
            (&["v1"][..], Ok("apiextensions.k8s.io/v1")),
            (&["v3"][..], Err("no supported conversion review versions")),
        ] {
            let asked = ask(versions);
            let found = asked.as_ref().map(|review| review.body["apiVersion"].as_str().unwrap_or_default());
            assert_eq!(found.map_err(String::as_str), expected);
        }
    }

    #[test]
    fn metadata_is_kept_but_for_labels_and_annotations() {
        let review = ask(&["v1"]).expect("a review");
        let object = converted(|object| {
            object["metadata"]["generation"] = 9.into();
            object["metadata"]["labels"] = json!({"c": "d"});
            object["spec"] = json!({"b": 2});
        });
        let found = review.accept(&answer(json!([object])), &[original()], TO).expect("believed");
        let metadata = json!({"name": "x", "uid": "u", "generation": 3, "labels": {"c": "d"}});
        assert_eq!((&found[0]["metadata"], &found[0]["spec"]), (&metadata, &json!({"b": 2})));
    }

    // After upstream's TestGetConvertedObjectsFromResponse, TestRestoreObjectMeta and TestWebhookConverter.
    #[test]
    fn answers_are_checked() {
        let hook = "conversion webhook for g.io/v1, Kind=Thing";
        let bad = |change: fn(&mut Value)| answer(json!([converted(change)]));
        let mut wrong_uid = answer(json!([]));
        wrong_uid["response"]["uid"] = "2".into();
        let mut failed = answer(json!([]));
        failed["response"]["result"] = json!({"status": "Failure", "message": "no way"});
        let mut silent = failed.clone();
        silent["response"]["result"] = json!({});
        for (answer, expected) in [
            (
                json!({}),
                "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /, Kind=",
            ),
            (wrong_uid, "failed: expected response.uid=\"1\", got \"2\""),
            (failed, "failed: no way"),
            (silent, "failed: response.result.status was '', not 'Success'"),
            (answer(json!([])), "returned 0 objects, expected 1"),
            (
                bad(|o| o["apiVersion"] = "g.io/v3".into()),
                "returned invalid object at index 0: invalid groupVersion (expected g.io/v2, received g.io/v3)",
            ),
            (
                bad(|o| o["kind"] = "Other".into()),
                "returned invalid object at index 0: invalid kind (expected Thing, received Other)",
            ),
            (
                bad(|o| o["metadata"]["name"] = "y".into()),
                "returned invalid object: must have the same name: x != y",
            ),
            (
                bad(|o| o["metadata"]["labels"] = json!([])),
                "returned invalid metadata: invalid metadata.labels of type []interface {} in converted object",
            ),
            (
                bad(|o| o["metadata"]["annotations"] = json!({"a": 1})),
                "returned invalid metadata: metadata.annotations[a] must be a string, but is int64 in converted object",
            ),
        ] {
            let review = ask(&["v1"]).expect("a review");
            let found = review.accept(&answer, &[original()], TO).expect_err("not believed");
            assert_eq!(found, format!("{hook} {expected}"));
        }
        let two = [original(), original()];
        let objects = json!([converted(|_| {}), converted(|object| object["kind"] = "Other".into())]);
        let found =
            ask(&["v1"]).expect("a review").accept(&answer(objects), &two, TO).expect_err("not believed");
        let expected =
            "returned invalid converted object at index 1: invalid kind (expected Thing, received Other)";
        assert_eq!(found, format!("{hook} {expected}"));
    }

    #[test]
    fn the_old_form_is_believed_without_uid() {
        let review = ask(&["v1beta1"]).expect("a review");
        let mut loose = answer(json!([converted(|_| {})]));
        loose["response"]["uid"] = "other".into();
        loose["apiVersion"] = "other/v1".into();
        assert!(review.accept(&loose, &[original()], TO).is_ok());
    }
}
