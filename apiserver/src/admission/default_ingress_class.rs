//! DefaultIngressClass (upstream `plugin/pkg/admission/network/defaultingressclass`).

use std::sync::Arc;

use client::informer::Informer;
use k8s_openapi::api::networking::v1::IngressClass;
use serde_json::{Value, json};

use super::{Attributes, Deps, Operation, Plugin, Verdict, member};

/// Gives ingresses without a class the default one.
pub struct DefaultIngressClass {
    classes: Informer<IngressClass>,
}

impl DefaultIngressClass {
    /// Watches ingress classes.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self { classes: deps.informers.informer() }
    }
}

/// The default class; of several the newest, then the first by name.
fn default_class(classes: &[Arc<IngressClass>]) -> Option<&Arc<IngressClass>> {
    let marked = |class: &&Arc<IngressClass>| {
        let annotations = class.metadata.annotations.as_ref();
        annotations
            .and_then(|all| all.get("ingressclass.kubernetes.io/is-default-class"))
            .is_some_and(|v| v == "true")
    };
    classes.iter().filter(marked).min_by(|a, b| {
        let made = |class: &IngressClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        made(b).cmp(&made(a)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
    })
}

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("networking.k8s.io", "ingresses")
    }

    fn admit<'a>(
        &'a self,
        _: &'a Attributes<'_>,
        object: &'a mut Value,
        _: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::now(|| {
            let named = object["spec"].get("ingressClassName").is_some_and(|name| !name.is_null());
            if named || object["metadata"]["annotations"].get("kubernetes.io/ingress.class").is_some() {
                return Ok(());
            }
            if let Some(class) = default_class(&self.classes.store().list()) {
                member(object, "spec")["ingressClassName"] = json!(class.metadata.name);
            }
            Ok(())
        })
    }
}
