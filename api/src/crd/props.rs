//! Reading a JSON schema (`JSONSchemaProps`) with Go's zero values for what is unset.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSON, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, JSONSchemaPropsOrStringArray, ValidationRule,
};
use serde_json::Value;

/// A JSON schema as a definition holds it.
pub use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps as Props;

/// Metadata of an object that no schema has to mention.
pub(crate) const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Go's view of a schema.
pub(crate) trait PropsExt {
    /// The type; empty if none is given.
    fn kind(&self) -> &str;
    fn is_nullable(&self) -> bool;
    fn embedded(&self) -> bool;
    fn int_or_string(&self) -> bool;
    fn preserves(&self) -> bool;
    fn default_value(&self) -> Option<&Value>;
    /// The one schema of all items.
    fn item(&self) -> Option<&Props>;
    fn fields(&self) -> impl Iterator<Item = (&String, &Props)>;
    fn field(&self, name: &str) -> Option<&Props>;
    /// Whether `additionalProperties` is given at all.
    fn has_additional(&self) -> bool;
    /// The schema of `additionalProperties`.
    fn additional(&self) -> Option<&Props>;
    fn list_type(&self) -> &str;
    fn map_type(&self) -> &str;
    fn map_keys(&self) -> &[String];
    fn rules(&self) -> &[ValidationRule];
    fn required_names(&self) -> &[String];
    fn enumerated(&self) -> &[JSON];
}

/// The elements of an optional list.
pub(crate) fn list<T>(list: &Option<Vec<T>>) -> &[T] {
    list.as_deref().unwrap_or_default()
}

/// An optional text.
pub(crate) fn text(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

fn entries<T>(map: &Option<BTreeMap<String, T>>) -> impl Iterator<Item = (&String, &T)> {
    map.iter().flatten()
}

impl PropsExt for Props {
    fn kind(&self) -> &str {
        text(&self.type_)
    }

    fn is_nullable(&self) -> bool {
        self.nullable.unwrap_or_default()
    }

    fn embedded(&self) -> bool {
        self.x_kubernetes_embedded_resource.unwrap_or_default()
    }

    fn int_or_string(&self) -> bool {
        self.x_kubernetes_int_or_string.unwrap_or_default()
    }

    fn preserves(&self) -> bool {
        self.x_kubernetes_preserve_unknown_fields.unwrap_or_default()
    }

    fn default_value(&self) -> Option<&Value> {
        self.default.as_ref().map(|JSON(value)| value).filter(|value| !value.is_null())
    }

    fn item(&self) -> Option<&Props> {
        match &self.items {
            Some(JSONSchemaPropsOrArray::Schema(item)) => Some(item),
            _ => None,
        }
    }

    fn fields(&self) -> impl Iterator<Item = (&String, &Props)> {
        entries(&self.properties)
    }

    fn field(&self, name: &str) -> Option<&Props> {
        self.properties.as_ref()?.get(name)
    }

    fn has_additional(&self) -> bool {
        self.additional_properties.is_some()
    }

    fn additional(&self) -> Option<&Props> {
        match &self.additional_properties {
            Some(JSONSchemaPropsOrBool::Schema(schema)) => Some(schema),
            _ => None,
        }
    }

    fn list_type(&self) -> &str {
        text(&self.x_kubernetes_list_type)
    }

    fn map_type(&self) -> &str {
        text(&self.x_kubernetes_map_type)
    }

    fn map_keys(&self) -> &[String] {
        list(&self.x_kubernetes_list_map_keys)
    }

    fn rules(&self) -> &[ValidationRule] {
        list(&self.x_kubernetes_validations)
    }

    fn required_names(&self) -> &[String] {
        list(&self.required)
    }

    fn enumerated(&self) -> &[JSON] {
        list(&self.enum_)
    }
}

/// Whether a predicate holds for the schema or for any schema inside of it.
pub(crate) fn has(schema: &Props, holds: &mut dyn FnMut(&Props) -> bool) -> bool {
    if holds(schema) {
        return true;
    }
    let items: Vec<&Props> = match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => vec![item],
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter().collect(),
        None => Vec::new(),
    };
    let dependencies = entries(&schema.dependencies).filter_map(|(_, it)| match it {
        JSONSchemaPropsOrStringArray::Schema(schema) => Some(schema.as_ref()),
        JSONSchemaPropsOrStringArray::Strings(_) => None,
    });
    let additional_items = match &schema.additional_items {
        Some(JSONSchemaPropsOrBool::Schema(schema)) => Some(schema.as_ref()),
        _ => None,
    };
    items
        .into_iter()
        .chain(list(&schema.all_of))
        .chain(list(&schema.any_of))
        .chain(list(&schema.one_of))
        .chain(schema.not.as_deref())
        .chain(entries(&schema.properties).map(|(_, it)| it))
        .chain(schema.additional())
        .chain(entries(&schema.pattern_properties).map(|(_, it)| it))
        .chain(entries(&schema.definitions).map(|(_, it)| it))
        .chain(dependencies)
        .chain(additional_items)
        .any(|inner| has(inner, holds))
}
