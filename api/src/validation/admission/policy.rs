//! Admission policies and their bindings.

use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, MatchResources, MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding,
    MutatingAdmissionPolicySpec, Mutation, NamedRuleWithOperations, ParamKind, ParamRef, RuleWithOperations,
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicySpec, Validation,
    Variable,
};

use crate::cel::admission::{Compiler, Returns, Scope};
use crate::field::{ErrorList, Path, Report};
use crate::format;

use super::{
    FAILURE_POLICIES, MATCH_POLICIES, REINVOCATION_POLICIES, expression, label_selector, list,
    match_conditions, metadata, operations_rule, text,
};
use crate::validation::meta;
use crate::validation::rules::{dns_subdomain, qualified_name};

const MUTATING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const RESERVED: [&str; 20] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
];

/// Compiles the expressions of one policy.
struct Expressions {
    compiler: Compiler,
    scope: Scope,
}

impl Expressions {
    fn new(params: bool, composed: bool) -> Self {
        let compiler = if composed { Compiler::composed() } else { Compiler::plain() };
        Self { compiler, scope: Scope { params, authorizer: true, patches: false } }
    }

    fn check(&mut self, text: &str, returns: Returns, scope: Scope, path: &Path, errors: &mut ErrorList) {
        expression::check(&self.compiler.compile(text, returns, scope), text, path, errors);
    }

    fn variable(&mut self, variable: &Variable, path: &Path, errors: &mut ErrorList) {
        let text = variable.expression.as_str();
        expression::check(self.compiler.variable(&variable.name, text, self.scope), text, path, errors);
    }
}

fn spec_path() -> Path {
    Path::new("spec")
}

/// A new validating policy.
pub(crate) fn validating(policy: &ValidatingAdmissionPolicy) -> ErrorList {
    validating_with(policy, false)
}

/// A changed validating policy.
pub(crate) fn validating_update(
    new: &ValidatingAdmissionPolicy,
    old: &ValidatingAdmissionPolicy,
) -> ErrorList {
    let (now, then) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let same =
        now.param_kind == then.param_kind && list(&now.match_conditions) == list(&then.match_conditions);
    validating_with(new, same)
}

fn validating_with(policy: &ValidatingAdmissionPolicy, same_conditions: bool) -> ErrorList {
    let mut errors = metadata(&policy.metadata);
    let spec: ValidatingAdmissionPolicySpec = policy.spec.clone().unwrap_or_default();
    let path = spec_path();
    failure_policy(spec.failure_policy.as_deref(), &path, &mut errors);
    if let Some(kind) = &spec.param_kind {
        param_kind(kind, &path.child("paramKind"), &mut errors);
    }
    constraints(spec.match_constraints.as_ref(), &path, &mut errors);
    if !same_conditions {
        let (conditions, at) = (list(&spec.match_conditions), path.child("matchConditions"));
        match_conditions(conditions, spec.param_kind.is_some(), &at, &mut errors);
    }
    let mut expressions = Expressions::new(spec.param_kind.is_some(), !list(&spec.variables).is_empty());
    variables(list(&spec.variables), &mut expressions, &path.child("variables"), &mut errors);
    let (validations, annotations) = (list(&spec.validations), list(&spec.audit_annotations));
    if validations.is_empty() && annotations.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.required(&path.child("validations"), detail);
        errors.required(&path.child("auditAnnotations"), detail);
        return errors;
    }
    for (i, one) in validations.iter().enumerate() {
        validation(one, &mut expressions, &path.child("validations").index(i), &mut errors);
    }
    let at = path.child("auditAnnotations");
    if annotations.len() > 20 {
        let shown = crate::validation::rules::to_value(&annotations);
        errors.invalid(&at, shown, "must not have more than 20 auditAnnotations");
    }
    for (i, annotation) in annotations.iter().enumerate() {
        let at = at.index(i);
        audit_annotation(annotation, text(&policy.metadata.name), &mut expressions, &at, &mut errors);
        if annotations[..i].iter().any(|other| other.key == annotation.key) {
            errors.duplicate(&at.child("key"), annotation.key.as_str());
        }
    }
    errors
}

/// A validating policy changed by its status.
pub(crate) fn validating_status(new: &ValidatingAdmissionPolicy, _: &ValidatingAdmissionPolicy) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(status) = &new.status else { return errors };
    let path = Path::new("status");
    let warnings = status.type_checking.iter().flat_map(|checking| list(&checking.expression_warnings));
    for (i, warning) in warnings.enumerate() {
        let at = path.child("typeChecking").child("expressionWarnings").index(i);
        if warning.warning.is_empty() {
            errors.required(&at.child("warning"), "");
        }
        if warning.field_ref.trim().is_empty() {
            errors.required(&at.child("fieldRef"), "");
        }
    }
    errors.extend(meta::conditions(list(&status.conditions), &path.child("conditions")));
    errors
}

fn failure_policy(policy: Option<&str>, path: &Path, errors: &mut ErrorList) {
    let path = path.child("failurePolicy");
    match policy {
        None => errors.required(&path, ""),
        Some(policy) => errors.one_of(&path, policy, &FAILURE_POLICIES),
    }
}

fn param_kind(kind: &ParamKind, path: &Path, errors: &mut ErrorList) {
    let at = path.child("apiVersion");
    let version = text(&kind.api_version);
    match version.split('/').collect::<Vec<_>>().as_slice() {
        _ if version.is_empty() => errors.required(&at, ""),
        ["", ""] => errors.invalid(&at, version, "version must be specified"),
        [only] => group_version("", only, version, &at, errors),
        [group, only] => group_version(group, only, version, &at, errors),
        _ => errors.invalid(&at, version, format!("unexpected GroupVersion string: {version}")),
    }
    let at = path.child("kind");
    let name = text(&kind.kind);
    if name.is_empty() {
        return errors.required(&at, "");
    }
    let messages = format::dns1035_label(&name.to_lowercase());
    if !messages.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", messages.join(","));
        errors.invalid(&at, name, detail);
    }
}

fn group_version(group: &str, version: &str, whole: &str, path: &Path, errors: &mut ErrorList) {
    let messages = if group.is_empty() { Vec::new() } else { format::dns1123_subdomain(group) };
    if !messages.is_empty() {
        errors.invalid(path, group, messages.join(","));
    }
    if version.is_empty() {
        return errors.invalid(path, whole, "version must be specified");
    }
    let messages = format::dns1035_label(version);
    if !messages.is_empty() {
        errors.invalid(path, version, messages.join(","));
    }
}

fn constraints(resources: Option<&MatchResources>, path: &Path, errors: &mut ErrorList) {
    let path = path.child("matchConstraints");
    let Some(resources) = resources else { return errors.required(&path, "") };
    match_resources(resources, &path, errors);
    if list(&resources.resource_rules).is_empty() {
        errors.required(&path.child("resourceRules"), "");
    }
}

fn match_resources(resources: &MatchResources, path: &Path, errors: &mut ErrorList) {
    match &resources.match_policy {
        None => errors.required(&path.child("matchPolicy"), ""),
        Some(policy) => errors.one_of(&path.child("matchPolicy"), policy, &MATCH_POLICIES),
    }
    let selectors = [
        ("namespaceSelector", &resources.namespace_selector),
        ("objectSelector", &resources.object_selector),
    ];
    for (key, selector) in selectors {
        if selector.is_none() {
            errors.required(&path.child(key), "");
        }
        errors.extend(label_selector(selector.as_ref(), false, &path.child(key)));
    }
    let rules = [
        ("resourceRules", &resources.resource_rules),
        ("excludeResourceRules", &resources.exclude_resource_rules),
    ];
    for (key, rules) in rules {
        for (i, rule) in list(rules).iter().enumerate() {
            named_rule(rule, &path.child(key).index(i), errors);
        }
    }
}

fn named_rule(rule: &NamedRuleWithOperations, path: &Path, errors: &mut ErrorList) {
    let names = list(&rule.resource_names);
    for (i, name) in names.iter().enumerate() {
        let at = path.child("resourceNames").index(i);
        errors.messages(&at, name, format::path_segment_name(name));
        if names[..i].contains(name) {
            errors.duplicate(&at, name.as_str());
        }
    }
    let rule = RuleWithOperations {
        api_groups: rule.api_groups.clone(),
        api_versions: rule.api_versions.clone(),
        operations: rule.operations.clone(),
        resources: rule.resources.clone(),
        scope: rule.scope.clone(),
    };
    operations_rule(&rule, path, errors);
}

fn variables(variables: &[Variable], expressions: &mut Expressions, path: &Path, errors: &mut ErrorList) {
    for (i, variable) in variables.iter().enumerate() {
        let path = path.index(i);
        let name = variable.name.as_str();
        let is_start = |c: char| c == '_' || c.is_ascii_alphabetic();
        let is_identifier =
            name.starts_with(is_start) && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
        if name.trim().is_empty() {
            errors.required(&path.child("name"), "name is not specified");
        } else if !is_identifier || RESERVED.contains(&name) || name == "while" {
            errors.invalid(&path.child("name"), name, "must be a valid CEL identifier");
        }
        let at = path.child("expression");
        if variable.expression.trim().is_empty() {
            errors.required(&at, "expression is not specified");
        } else {
            expressions.variable(variable, &at, errors);
        }
    }
}

fn validation(validation: &Validation, expressions: &mut Expressions, path: &Path, errors: &mut ErrorList) {
    let at = path.child("expression");
    match validation.expression.as_str() {
        text if text.trim().is_empty() => errors.required(&at, "expression is not specified"),
        text => expressions.check(text, Returns::Bool, expressions.scope, &at, errors),
    }
    let at = path.child("messageExpression");
    match text(&validation.message_expression) {
        "" => {}
        message if message.trim().is_empty() => {
            errors.invalid(&at, message, "must be non-empty if specified");
        }
        message => {
            let quiet = Scope { authorizer: false, ..expressions.scope };
            expressions.check(message, Returns::Text, quiet, &at, errors);
        }
    }
    let message = text(&validation.message);
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&path.child("message"), message, "must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        errors.invalid(&path.child("message"), message, "must not contain line breaks");
    }
    if let Some(reason) = &validation.reason {
        let known = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
        errors.one_of(&path.child("reason"), reason, &known);
    }
}

fn audit_annotation(
    annotation: &AuditAnnotation,
    policy: &str,
    expressions: &mut Expressions,
    path: &Path,
    errors: &mut ErrorList,
) {
    let at = path.child("key");
    if policy.is_empty() {
        errors.invalid(&at, annotation.key.as_str(), "requires metadata.name be non-empty");
    } else {
        errors.extend(qualified_name(&format!("{policy}/{}", annotation.key), &at));
    }
    let (at, expression) = (path.child("valueExpression"), annotation.value_expression.trim());
    if expression.is_empty() {
        errors.required(&at, "valueExpression is not specified");
    } else if expression.len() > 5 << 10 {
        errors.required(&at, "must not exceed 5120 bytes in length");
    } else {
        let compiled = expressions.compiler.compile(expression, Returns::TextOrNull, expressions.scope);
        expression::check(&compiled, &annotation.value_expression, &at, errors);
    }
}

/// A new binding of a validating policy.
pub(crate) fn validating_binding(binding: &ValidatingAdmissionPolicyBinding) -> ErrorList {
    let mut errors = metadata(&binding.metadata);
    let spec = binding.spec.clone();
    let path = spec_path();
    binding_spec(&spec.policy_name, spec.param_ref.as_ref(), spec.match_resources.as_ref(), &mut errors);
    let path = path.child("validationActions");
    let actions = spec.validation_actions.as_slice();
    for (i, action) in actions.iter().enumerate() {
        errors.one_of(&path.index(i), action, &["Audit", "Deny", "Warn"]);
        if actions[..i].contains(action) {
            errors.duplicate(&path.index(i), action.as_str());
        }
    }
    let has = |action: &str| actions.iter().any(|a| a == action);
    if has("Deny") && has("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.invalid(&path, actions.to_vec(), detail);
    }
    if actions.is_empty() {
        errors.required(&path, "at least one validation action is required");
    }
    errors
}

/// A changed binding of a validating policy.
pub(crate) fn validating_binding_update(
    new: &ValidatingAdmissionPolicyBinding,
    _: &ValidatingAdmissionPolicyBinding,
) -> ErrorList {
    validating_binding(new)
}

fn binding_spec(
    policy: &str,
    param: Option<&ParamRef>,
    resources: Option<&MatchResources>,
    errors: &mut ErrorList,
) {
    let path = spec_path();
    match policy {
        "" => errors.required(&path.child("policyName"), ""),
        name => errors.extend(dns_subdomain(name, &path.child("policyName"))),
    }
    if let Some(param) = param {
        param_ref(param, &path.child("paramRef"), errors);
    }
    if let Some(resources) = resources {
        match_resources(resources, &path.child("matchResources"), errors);
    }
}

fn param_ref(param: &ParamRef, path: &Path, errors: &mut ErrorList) {
    let name = text(&param.name);
    let exclusive = "name and selector are mutually exclusive";
    if !name.is_empty() {
        errors.messages(&path.child("name"), name, format::path_segment_name(name));
        if param.selector.is_some() {
            errors.forbidden(&path.child("name"), exclusive);
        }
    }
    if param.selector.is_some() {
        errors.extend(label_selector(param.selector.as_ref(), false, &path.child("selector")));
        if !name.is_empty() {
            errors.forbidden(&path.child("selector"), exclusive);
        }
    }
    if name.is_empty() && param.selector.is_none() {
        errors.required(path, "one of name or selector must be specified");
    }
    let path = path.child("parameterNotFoundAction");
    match text(&param.parameter_not_found_action) {
        "" => errors.required(&path, ""),
        action => errors.one_of(&path, action, &["Deny", "Allow"]),
    }
}

/// A new mutating policy.
pub(crate) fn mutating(policy: &MutatingAdmissionPolicy) -> ErrorList {
    mutating_with(policy, false)
}

/// A changed mutating policy.
pub(crate) fn mutating_update(new: &MutatingAdmissionPolicy, old: &MutatingAdmissionPolicy) -> ErrorList {
    let (now, then) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let same =
        now.param_kind == then.param_kind && list(&now.match_conditions) == list(&then.match_conditions);
    mutating_with(new, same)
}

fn only_mutating(resources: &MatchResources, path: &Path, errors: &mut ErrorList) {
    let at = path.child("resourceRules").child("operations");
    for operation in list(&resources.resource_rules).iter().flat_map(|rule| list(&rule.operations)) {
        errors.one_of(&at, operation, &MUTATING_OPERATIONS);
    }
}

fn mutating_with(policy: &MutatingAdmissionPolicy, same_conditions: bool) -> ErrorList {
    let mut errors = metadata(&policy.metadata);
    let spec: MutatingAdmissionPolicySpec = policy.spec.clone().unwrap_or_default();
    let path = spec_path();
    failure_policy(spec.failure_policy.as_deref(), &path, &mut errors);
    if let Some(kind) = &spec.param_kind {
        param_kind(kind, &path.child("paramKind"), &mut errors);
    }
    constraints(spec.match_constraints.as_ref(), &path, &mut errors);
    if let Some(resources) = &spec.match_constraints {
        only_mutating(resources, &path.child("matchConstraints"), &mut errors);
    }
    if !same_conditions {
        let (conditions, at) = (list(&spec.match_conditions), path.child("matchConditions"));
        match_conditions(conditions, spec.param_kind.is_some(), &at, &mut errors);
    }
    let mut expressions = Expressions::new(spec.param_kind.is_some(), true);
    variables(list(&spec.variables), &mut expressions, &path.child("variables"), &mut errors);
    let at = path.child("mutations");
    let mutations = list(&spec.mutations);
    if mutations.is_empty() {
        errors.required(&at, "mutations must contain at least one item");
    }
    for (i, one) in mutations.iter().enumerate() {
        mutation(one, &mut expressions, &at.index(i), &mut errors);
    }
    let at = path.child("reinvocationPolicy");
    match text(&spec.reinvocation_policy) {
        "" => errors.required(&at, ""),
        policy => errors.one_of(&at, policy, &REINVOCATION_POLICIES),
    }
    errors
}

fn mutation(mutation: &Mutation, expressions: &mut Expressions, path: &Path, errors: &mut ErrorList) {
    let patch = mutation.json_patch.as_ref().map(|patch| text(&patch.expression));
    let apply = mutation.apply_configuration.as_ref().map(|apply| text(&apply.expression));
    let kind = mutation.patch_type.as_str();
    let (key, own, other_key, other, returns) = match kind {
        "" => return errors.required(&path.child("patchType"), ""),
        "JSONPatch" => ("jsonPatch", patch, "applyConfiguration", apply, Returns::Patches),
        "ApplyConfiguration" => ("applyConfiguration", apply, "jsonPatch", patch, Returns::Object),
        _ => {
            return errors.not_supported(
                &path.child("patchType"),
                kind,
                &["ApplyConfiguration", "JSONPatch"],
            );
        }
    };
    match own {
        None => errors.required(&path.child(key), format!("must be specified when patchType is {kind}")),
        Some(expression) => {
            let (at, scope) =
                (path.child(key).child("expression"), Scope { patches: true, ..expressions.scope });
            match expression.trim() {
                "" => errors.required(&at, ""),
                text => expressions.check(text, returns, scope, &at, errors),
            }
        }
    }
    if other.is_some() {
        let detail = format!("must not be specified when patchType is {kind}");
        errors.invalid(&path.child(other_key), format!("{{{other_key}}}"), detail);
    }
}

/// A new binding of a mutating policy.
pub(crate) fn mutating_binding(binding: &MutatingAdmissionPolicyBinding) -> ErrorList {
    let mut errors = metadata(&binding.metadata);
    let spec = binding.spec.clone().unwrap_or_default();
    binding_spec(
        text(&spec.policy_name),
        spec.param_ref.as_ref(),
        spec.match_resources.as_ref(),
        &mut errors,
    );
    if let Some(resources) = &spec.match_resources {
        only_mutating(resources, &spec_path().child("matchResources"), &mut errors);
    }
    errors
}

/// A changed binding of a mutating policy.
pub(crate) fn mutating_binding_update(
    new: &MutatingAdmissionPolicyBinding,
    _: &MutatingAdmissionPolicyBinding,
) -> ErrorList {
    mutating_binding(new)
}
