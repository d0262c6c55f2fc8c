//! The one way of a write from a decoded object to the store, for every resource (upstream `registry/rest`'s
//! `BeforeCreate` and `BeforeUpdate`, and `genericregistry.Store`).

use std::borrow::Cow;
use std::sync::Arc;

use api::names::GroupVersionKind;
use api::status::ApiError;
use api::{field, strategy, validation};
use serde_json::{Value, json};

use super::policy_params::Reader;
use super::storage::{Change, Current, Next, Storage, Updated, Written};
use super::{Resource, managed_fields, service_allocator::Reservation};
use crate::admission::{Annotations, Attributes, Operation, Plugin, Reinvocation};
use crate::authz;
use crate::object::{self, meta_text};
use crate::request::RequestInfo;
use crate::server::Context;

/// A write on its way.
pub struct Write<'a> {
    /// The request.
    pub cx: &'a Context,
    /// The resource written.
    pub resource: &'a Resource,
    /// Namespace of the request; empty for cluster-wide objects.
    pub namespace: &'a str,
    /// Subresource; empty for the resource itself.
    pub subresource: &'a str,
    /// What the strategy is asked to do; another than `subresource` where that is only a view of the object (`scale`).
    pub part: &'a str,
    /// Kind that admission sees: of the body, not of the object stored, for some subresources.
    pub kind: GroupVersionKind,
    /// Whether nothing is to be stored.
    pub dry_run: bool,
    /// The options, as admission sees them.
    pub options: Value,
}

/// What plugins leave besides a verdict.
struct Notes {
    annotations: Annotations,
    reinvocation: Reinvocation,
}

impl Notes {
    fn of(cx: &Context) -> Self {
        let annotations = Annotations::new(cx.record.is_some());
        Self { annotations, reinvocation: Reinvocation::default() }
    }
}

/// How often a generated name is tried.
const NAME_ATTEMPTS: usize = 8;

impl<'a> Write<'a> {
    /// A write of the resource itself.
    #[must_use]
    pub fn new(cx: &'a Context, resource: &'a Resource) -> Self {
        let subresource = cx.info.subresource.as_str();
        let namespace = if resource.namespaced { cx.info.namespace.as_str() } else { "" };
        let (kind, dry_run) = (resource.gvk.clone(), cx.dry_run());
        Self { cx, resource, namespace, subresource, part: subresource, kind, dry_run, options: Value::Null }
    }

    /// The store as this write sees it.
    #[must_use]
    pub fn storage(&self) -> Storage<'_> {
        let (store, texts) = (self.cx.server.cacher.store(), self.cx.texts());
        Storage { store, resource: self.resource, dry_run: self.dry_run, texts }
    }

    fn attributes<'b>(&'b self, operation: Operation, name: &'b str, notes: &'b Notes) -> Attributes<'b> {
        Attributes {
            operation,
            kind: &self.kind,
            resource: &self.resource.gvr,
            subresource: self.subresource,
            namespace: if self.resource.gvr.resource == "namespaces" { name } else { self.namespace },
            name,
            user: &self.cx.user,
            dry_run: self.dry_run,
            options: &self.options,
            annotations: &notes.annotations,
            reinvocation: &notes.reinvocation,
        }
    }

    fn plugins(&self) -> &[Arc<dyn Plugin>] {
        self.cx.server.security().map(|security| security.admission.as_slice()).unwrap_or_default()
    }

    /// Lets every plugin change the object. They all run again if one that calls out has changed it.
    pub async fn admit(
        &self,
        operation: Operation,
        name: &str,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let old = self.optional_as_asked_for(old).await?;
        let (notes, mut warnings) = (Notes::of(self.cx), Vec::new());
        let attributes = self.attributes(operation, name, &notes);
        let outcome = async {
            loop {
                for plugin in self.plugins().iter().filter(|plugin| plugin.handles(&attributes)) {
                    plugin.admit(&attributes, object, old.as_deref(), &mut warnings).get().await?;
                }
                if !notes.reinvocation.begin_again() {
                    return Ok(());
                }
            }
        }
        .await;
        self.tell(&notes, warnings);
        outcome
    }

    /// Lets every plugin refuse the object.
    pub async fn admission_validate(
        &self,
        operation: Operation,
        name: &str,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let (object, old) = (self.as_asked_for(object).await?, self.optional_as_asked_for(old).await?);
        let (notes, mut warnings) = (Notes::of(self.cx), Vec::new());
        let attributes = self.attributes(operation, name, &notes);
        let outcome = async {
            for plugin in self.plugins().iter().filter(|plugin| plugin.handles(&attributes)) {
                plugin.validate(&attributes, &object, old.as_deref(), &mut warnings).get().await?;
            }
            Ok(())
        }
        .await;
        self.tell(&notes, warnings);
        outcome
    }

    /// What plugins had to say is told whether or not they refused.
    fn tell(&self, notes: &Notes, warnings: Vec<String>) {
        warnings.into_iter().for_each(|warning| self.cx.warn(warning));
        self.cx.annotate(notes.annotations.take());
    }

    /// An object of the resource in the version of the request: plugins see no other.
    async fn as_asked_for<'v>(&self, object: &'v Value) -> Result<Cow<'v, Value>, ApiError> {
        if self.resource.custom.is_none() && self.resource.stored_as == self.resource.gvk {
            return Ok(Cow::Borrowed(object));
        }
        let own = object["kind"] == *self.resource.gvk.kind && self.resource.gvk.kind == self.kind.kind;
        let asked_for = self.resource.gvk.group_version();
        if !own || object["apiVersion"].as_str().is_none_or(|version| version == asked_for.to_string()) {
            return Ok(Cow::Borrowed(object));
        }
        self.to_served(object.clone()).await.map(Cow::Owned)
    }

    async fn optional_as_asked_for<'v>(
        &self,
        object: Option<&'v Value>,
    ) -> Result<Option<Cow<'v, Value>>, ApiError> {
        match object {
            Some(object) => self.as_asked_for(object).await.map(Some),
            None => Ok(None),
        }
    }

    /// Stores a new object: defaulted, in the version of the request.
    pub async fn create(&self, mut object: Value) -> Result<Written, ApiError> {
        wipe_system_metadata(&mut object);
        match_namespace(self.namespace, self.resource.namespaced, &mut object)?;
        self.stamp_requestor(&mut object);
        self.record_managers(&mut object, None).await;
        let given = meta_text(&object, "name").to_owned();
        self.admit(Operation::Create, &given, &mut object, None).await?;
        let generated = given.is_empty() && !meta_text(&object, "generateName").is_empty();
        let mut attempts = if generated { NAME_ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            let mut candidate = if attempts == 0 { std::mem::take(&mut object) } else { object.clone() };
            fill_system_metadata(&mut candidate);
            if generated {
                // Some defaults follow from the name.
                api::defaults::apply(&self.resource.gvk, &mut candidate);
            }
            let name = meta_text(&candidate, "name").to_owned();
            match self.create_named(&name, candidate).await {
                Err(error) if generated && error.reason() == "AlreadyExists" => {
                    if attempts == 0 {
                        return Err(name_taken(&error, self.resource, &name));
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Who signs a request for a certificate is not for the client to say (upstream `csrStrategy`).
    fn stamp_requestor(&self, object: &mut Value) {
        if self.resource.gvr.resource != "certificatesigningrequests" {
            return;
        }
        let user = &self.cx.user;
        let spec = &mut object["spec"];
        spec["username"] = user.name.clone().into();
        let lists = [
            ("groups", json!(user.groups), user.groups.is_empty()),
            ("extra", json!(user.extra), user.extra.is_empty()),
        ];
        for (field, value, empty) in lists.into_iter().chain([("uid", json!(user.uid), user.uid.is_empty())])
        {
            match spec.as_object_mut() {
                Some(spec) if empty => drop(spec.remove(field)),
                Some(spec) => drop(spec.insert(field.to_owned(), value)),
                None => {}
            }
        }
    }

    /// Records whose fields the request has set.
    async fn record_managers(&self, object: &mut Value, old: Option<&Value>) {
        let versions = managed_fields::versions(self.resource, self.part);
        managed_fields::record(self.cx, &versions, &self.resource.gvk, self.subresource, object, old).await;
    }

    async fn create_named(&self, name: &str, object: Value) -> Result<Written, ApiError> {
        let mut object = self.to_stored(object)?;
        let reservation = self.reserve(&mut object, None).await?;
        let outcome = async {
            self.check_escalation(&object, None).await?;
            self.prepare_create(name, &mut object).await?;
            self.admission_validate(Operation::Create, name, &object, None).await?;
            if !meta_text(&object, "resourceVersion").is_empty() {
                let why = "resourceVersion should not be set on objects to be created";
                return Err(ApiError::new(500, "", why));
            }
            self.storage().create(self.namespace, name, &object).await
        }
        .await;
        settle(reservation, outcome.is_ok()).await;
        outcome
    }

    /// Who makes an object by way of an update must be allowed to create it (upstream `withAuthorization`).
    fn may_create(&self) -> Result<(), ApiError> {
        let Some(security) = self.cx.server.security() else { return Ok(()) };
        let create = RequestInfo { verb: "create".to_owned(), ..(*self.cx.info).clone() };
        authz::check(security.authorizer.as_ref(), &self.cx.user, &create)
    }

    /// Nobody writes roles that give more than the writer has.
    async fn check_escalation(&self, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
        match self.cx.server.security() {
            Some(security) => security.escalation.check(&self.cx.user, &self.cx.info, object, old).await,
            None => Ok(()),
        }
    }

    /// Nobody writes policies that read for them what they may not read.
    fn check_params(&self, object: &Value, old: Option<&Value>, errors: &mut field::ErrorList) {
        let Some(security) = self.cx.server.security().filter(|_| errors.is_empty()) else { return };
        let (registry, user) = (&self.cx.server.registry, &self.cx.user);
        let reader = Reader { registry, authorizer: security.authorizer.as_ref(), user };
        errors.extend(reader.check(&self.resource.gvk, object, old));
    }

    /// What is wrong with a claim for devices that the claim alone does not tell.
    async fn device_access(&self, object: &Value, old: Option<&Value>) -> field::ErrorList {
        match self.cx.server.security() {
            Some(security) => security.devices.check(&self.cx.user, &self.cx.info, object, old).await,
            None => field::ErrorList::new(),
        }
    }

    /// What the strategy does to a new object, and its checks.
    async fn prepare_create(&self, name: &str, object: &mut Value) -> Result<(), ApiError> {
        if let Some(custom) = &self.resource.custom {
            return super::custom::prepare_create(self, custom, name, object);
        }
        let gvk = &self.resource.stored_as;
        for warning in strategy::prepare_for_create(gvk, object) {
            self.cx.warn(warning);
        }
        let mut errors = self.device_access(object, None).await;
        let (wrong, warnings) = validation::review_create(&self.resource.gvk, gvk, object);
        errors.extend(wrong);
        if errors.is_empty() {
            // As upstream: metadata is validated after the kind, so that specific messages win.
            errors = validation::meta::validate_path_segment(object, self.resource.namespaced);
        }
        self.check_params(object, None, &mut errors);
        if !errors.is_empty() {
            return Err(ApiError::invalid(&self.resource.kind_in_errors(), name, &errors));
        }
        warnings.into_iter().for_each(|warning| self.cx.warn(warning));
        Ok(())
    }

    /// What the strategy does to a changed object, and its checks.
    async fn prepare_update(&self, name: &str, object: &mut Value, old: &Value) -> Result<(), ApiError> {
        if let Some(custom) = &self.resource.custom {
            return super::custom::prepare_update(self, custom, name, object, old);
        }
        let gvk = &self.resource.stored_as;
        let errors = if self.part.is_empty() {
            strategy::prepare_for_update(gvk, object, old);
            let mut errors = validation::validate_update(&self.resource.gvk, object, old);
            self.check_params(object, Some(old), &mut errors);
            errors
        } else {
            strategy::prepare_for_subresource_update(gvk, self.part, object, old);
            let mut errors = self.device_access(object, Some(old)).await;
            let found = validation::validate_subresource_update(&self.resource.gvk, self.part, object, old);
            errors.extend(found);
            errors
        };
        if !errors.is_empty() {
            return Err(ApiError::invalid(&self.resource.kind_in_errors(), name, &errors));
        }
        let warnings = match self.part {
            "" => strategy::warnings(gvk, object, Some(old)),
            part => strategy::subresource_warnings(gvk, part, object, old),
        };
        for warning in warnings {
            self.cx.warn(warning);
        }
        Ok(())
    }

    /// The object in the version it is stored in.
    pub fn to_stored(&self, object: Value) -> Result<Value, ApiError> {
        if self.resource.custom.is_some() {
            // They are checked in the version of the request, and converted when they are stored.
            return Ok(object);
        }
        crate::codec::convert(object, &self.resource.gvk, &self.resource.stored_as)
    }

    /// The object in the version it is served in.
    pub async fn to_served(&self, object: Value) -> Result<Value, ApiError> {
        self.resource.to_served(object).await
    }

    /// Addresses and ports for a Service.
    async fn reserve(
        &self,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Option<Reservation>, ApiError> {
        let service = self.resource.gvr.group.is_empty() && self.resource.gvr.resource == "services";
        let Some(allocators) = self.cx.server.security().map(|security| &security.services) else {
            return Ok(None);
        };
        if !service || !self.subresource.is_empty() {
            return Ok(None);
        }
        match old {
            None => allocators.create(object, self.dry_run).await.map(Some),
            Some(old) => allocators.update(object, old, self.dry_run).await.map(Some),
        }
    }

    /// Gives back what a deleted Service had.
    pub async fn release(&self, object: &Value) {
        let service = self.resource.gvr.group.is_empty() && self.resource.gvr.resource == "services";
        if let (true, false, Some(security)) = (service, self.dry_run, self.cx.server.security()) {
            security.services.release(object).await;
        }
    }

    /// Changes an object (or makes it, where the resource allows that).
    pub async fn update(&self, name: &str, source: &mut (dyn Source + '_)) -> Result<Updated, ApiError> {
        let mut change = UpdateChange { write: self, name, source, reservation: None };
        let updated = self.storage().update(self.namespace, name, &mut change).await?;
        if let Updated::Deleted(last, _) = &updated {
            self.release(last).await;
        }
        Ok(updated)
    }
}

async fn settle(reservation: Option<Reservation>, written: bool) {
    match reservation {
        Some(reservation) if written => reservation.commit().await,
        Some(reservation) => reservation.revert().await,
        None => {}
    }
}

/// Where the new state of an object comes from: the body of an update, a patch, a subresource.
#[async_trait::async_trait]
pub trait Source: Send + Sync {
    /// The new object in the version of the request; `old` is the present one, in the same version.
    async fn object(&mut self, old: Option<&Value>) -> Result<Value, ApiError>;

    /// Whether there is nothing to do without an object (patches).
    fn needs_object(&self) -> bool {
        false
    }

    /// Whether a missing object may be made, whatever the resource says (server-side apply).
    fn may_create(&self) -> bool {
        false
    }

    /// Whether uid and resourceVersion of the new object say which one is meant to be changed. Those of a patched
    /// object are checked as its other fields are.
    fn has_preconditions(&self) -> bool {
        true
    }

    /// Whether the objects say already who has set their fields.
    fn records_managers(&self) -> bool {
        false
    }

    /// What admission sees of an object, if that is not all of it (the scale of a workload).
    ///
    /// # Errors
    /// When it cannot be told.
    fn seen(&self, _object: &Value) -> Result<Option<Value>, ApiError> {
        Ok(None)
    }

    /// Puts what admission has left of [`Source::seen`] back into the object.
    ///
    /// # Errors
    /// When it does not fit.
    fn put_back(&self, _object: &mut Value, _seen: &Value) -> Result<(), ApiError> {
        Ok(())
    }
}

struct UpdateChange<'a, 'b> {
    write: &'a Write<'a>,
    name: &'a str,
    source: &'a mut (dyn Source + 'b),
    reservation: Option<Reservation>,
}

#[async_trait::async_trait]
impl Change for UpdateChange<'_, '_> {
    async fn next(&mut self, current: Option<&Current>) -> Result<Next, ApiError> {
        match current {
            Some(current) => self.changed(current).await,
            None => self.made().await,
        }
    }

    async fn finish(&mut self, written: bool) {
        settle(self.reservation.take(), written).await;
    }
}

impl UpdateChange<'_, '_> {
    /// Lets every plugin change the new state, or what of it the request is about.
    async fn admit(&mut self, object: &mut Value, old: &Value) -> Result<(), ApiError> {
        let Some(mut seen) = self.source.seen(object)? else {
            return self.write.admit(Operation::Update, self.name, object, Some(old)).await;
        };
        let old_seen = self.source.seen(old)?;
        self.write.admit(Operation::Update, self.name, &mut seen, old_seen.as_ref()).await?;
        self.source.put_back(object, &seen)
    }

    /// Lets every plugin refuse the new state, or what of it the request is about.
    async fn admission_validate(&self, object: &Value, old: &Value) -> Result<(), ApiError> {
        let (seen, old_seen) = (self.source.seen(object)?, self.source.seen(old)?);
        let (object, old) = (seen.as_ref().unwrap_or(object), old_seen.as_ref().unwrap_or(old));
        self.write.admission_validate(Operation::Update, self.name, object, Some(old)).await
    }

    /// A new state of an object that exists.
    async fn changed(&mut self, current: &Current) -> Result<Next, ApiError> {
        let (write, name) = (self.write, self.name);
        let old = &current.value;
        let old_served = write.to_served(old.clone()).await?;
        let mut object = self.source.object(Some(&old_served)).await?;
        if self.source.has_preconditions() {
            self.check_uid(&object, old)?;
        }
        if !self.source.records_managers() {
            write.record_managers(&mut object, Some(&old_served)).await;
        }
        self.admit(&mut object, &old_served).await?;
        self.check_version(&mut object, current)?;
        match_namespace(write.namespace, write.resource.namespaced, &mut object)?;
        let mut object = write.to_stored(object)?;
        // A reservation is made last of all that can fail before the write, but for validation.
        settle(self.reservation.take(), false).await;
        self.reservation = write.reserve(&mut object, Some(old)).await?;
        let checked = async {
            write.check_escalation(&object, Some(old)).await?;
            let before = if write.resource.custom.is_some() { &old_served } else { old };
            write.prepare_update(name, &mut object, before).await?;
            self.admission_validate(&object, before).await
        }
        .await;
        if let Err(error) = checked {
            settle(self.reservation.take(), false).await;
            return Err(error);
        }
        api::managed_fields::ignore_times(&mut object, old);
        Ok(if is_released(&object, old, write.resource) { Next::Delete(object) } else { Next::Put(object) })
    }

    /// The object does not exist: makes it if the resource (or the source) allows that.
    async fn made(&mut self) -> Result<Next, ApiError> {
        let (write, name) = (self.write, self.name);
        let allowed = self.source.may_create() || strategy::allow_create_on_update(&write.resource.stored_as);
        if !allowed || !write.subresource.is_empty() || self.source.needs_object() {
            return Err(ApiError::not_found(&write.resource.group_resource(), name));
        }
        let mut object = self.source.object(None).await?;
        if self.source.has_preconditions() {
            self.check_absent(&object)?;
        }
        match_namespace(write.namespace, write.resource.namespaced, &mut object)?;
        if !self.source.records_managers() {
            write.record_managers(&mut object, None).await;
        }
        write.admit(Operation::Create, name, &mut object, None).await?;
        object::set_meta(&mut object, "resourceVersion", None);
        fill_system_metadata(&mut object);
        let mut object = write.to_stored(object)?;
        self.reservation = write.reserve(&mut object, None).await?;
        let checked = async {
            write.check_escalation(&object, None).await?;
            write.prepare_create(name, &mut object).await?;
            write.may_create()?;
            write.admission_validate(Operation::Create, name, &object, None).await
        }
        .await;
        if let Err(error) = checked {
            settle(self.reservation.take(), false).await;
            return Err(error);
        }
        Ok(Next::Put(object))
    }

    /// A body that means an object of some uid or version does not mean one that is to be made.
    fn check_absent(&self, object: &Value) -> Result<(), ApiError> {
        let (write, name) = (self.write, self.name);
        let resource = write.resource.group_resource();
        let asked = meta_text(object, "uid");
        if !asked.is_empty() {
            let key = write.resource.key(write.namespace, name);
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: \
                 Precondition failed: UID in precondition: {asked}, UID in object meta: "
            );
            return Err(ApiError::conflict(&resource, name, &why));
        }
        if !matches!(meta_text(object, "resourceVersion"), "" | "0") {
            return Err(ApiError::not_found(&resource, name));
        }
        Ok(())
    }

    /// The uid of the body, if it has one, is a precondition.
    fn check_uid(&self, object: &Value, old: &Value) -> Result<(), ApiError> {
        let (asked, found) = (meta_text(object, "uid"), meta_text(old, "uid"));
        if asked.is_empty() || asked == found {
            return Ok(());
        }
        let key = self.write.resource.key(self.write.namespace, self.name);
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: \
             Precondition failed: UID in precondition: {asked}, UID in object meta: {found}"
        );
        Err(ApiError::conflict(&self.write.resource.group_resource(), self.name, &why))
    }

    /// The resourceVersion of the body, if it has one, is the one the change was made for.
    fn check_version(&self, object: &mut Value, current: &Current) -> Result<(), ApiError> {
        let resource = self.write.resource;
        let asked = meta_text(object, "resourceVersion");
        match asked.parse::<u64>() {
            Ok(0) | Err(_) if asked.is_empty() || asked == "0" => {
                if resource.custom.is_none() && strategy::allow_unconditional_update(&resource.stored_as) {
                    object::set_meta(object, "resourceVersion", Some(current.revision.to_string().into()));
                    return Ok(());
                }
                let path = field::Path::new("metadata").child("resourceVersion");
                let error = field::Error::invalid(&path, json!(0), "must be specified for an update");
                let kind = GroupVersionKind::new(
                    resource.gvr.group.clone(),
                    resource.gvr.version.clone(),
                    resource.gvr.resource.clone(),
                );
                Err(ApiError::invalid(&kind, self.name, &[error]))
            }
            Ok(version) if version == current.revision.0 => Ok(()),
            Ok(_) => Err(ApiError::modified(&resource.group_resource(), self.name)),
            Err(_) => {
                let why = format!("strconv.ParseUint: parsing {asked:?}: invalid syntax");
                Err(ApiError::invalid(
                    &resource.gvk,
                    self.name,
                    &[field::Error::invalid(
                        &field::Path::new("metadata").child("resourceVersion"),
                        asked,
                        why,
                    )],
                ))
            }
        }
    }
}

/// Whether an update took away the last thing that held an object whose deletion had been asked for.
fn is_released(new: &Value, old: &Value, resource: &Resource) -> bool {
    let held_by_namespace = resource.deletion == super::Deletion::Namespace
        && new["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    object::finalizers(new).is_empty()
        && object::is_being_deleted(old)
        && object::meta_int(old, "deletionGracePeriodSeconds").unwrap_or_default() == 0
        && !held_by_namespace
}

/// Takes away what only the server may set (upstream `WipeObjectMetaSystemFields`).
pub fn wipe_system_metadata(object: &mut Value) {
    if let Some(meta) = object::meta_mut(object) {
        for field in
            ["creationTimestamp", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"]
        {
            meta.remove(field);
        }
    }
}

/// Sets what only the server may set (upstream `FillObjectMetaSystemFields`), and the name if it is to be generated.
pub fn fill_system_metadata(object: &mut Value) {
    object::set_meta(object, "creationTimestamp", Some(object::now()));
    object::set_meta(object, "uid", Some(uuid::Uuid::new_v4().to_string().into()));
    let base = meta_text(object, "generateName");
    if !base.is_empty() && meta_text(object, "name").is_empty() {
        let name = object::generate_name(base);
        object::set_meta(object, "name", Some(name.into()));
    }
}

/// The namespace of the object is that of the request (upstream `EnsureObjectNamespaceMatchesRequestNamespace`).
pub fn match_namespace(expected: &str, namespaced: bool, object: &mut Value) -> Result<(), ApiError> {
    let found = meta_text(object, "namespace");
    if found == expected {
        return Ok(());
    }
    if found.is_empty() && namespaced {
        object::set_meta(object, "namespace", Some(expected.into()));
        return Ok(());
    }
    if !namespaced {
        object::set_meta(object, "namespace", None);
        return Ok(());
    }
    Err(ApiError::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    ))
}

/// The error after all generated names were taken (upstream `CheckGeneratedNameError`).
fn name_taken(error: &ApiError, resource: &Resource, name: &str) -> ApiError {
    let (group, plural) = (&resource.gvr.group, &resource.gvr.resource);
    let _ = error;
    ApiError::new(
        409,
        "AlreadyExists",
        format!(
            "{} {name:?} already exists, the server was not able to generate a unique name for the object",
            resource.group_resource()
        ),
    )
    .with_details(group, plural, name)
    .with_retry_after(1)
}
