//! Acting as somebody else: the `Impersonate-*` headers and who may use them (upstream
//! `endpoints/filters/impersonation`, constrained impersonation included).

use std::collections::{BTreeMap, HashMap};

use api::status::ApiError;
use http::HeaderMap;
use parking_lot::Mutex;

use super::{ANONYMOUS, AUTHENTICATED, MASTERS, NODE_PREFIX, NODES, UNAUTHENTICATED, User};
use crate::authz::{Authorizer, Decision, forbidden, go_list, go_strings};
use crate::request::RequestInfo;

const GROUP: &str = "authentication.k8s.io";
const EXTRA_PREFIX: &str = "impersonate-extra-";
/// From so many checks on, permission for all of them is asked for first.
const MANY: usize = 4;
/// So many requestors are remembered with the mode that worked for them.
const REMEMBERED: usize = 10_000;

/// Who the headers ask to be; `None` if they do not ask.
pub fn wanted(headers: &HeaderMap) -> Result<Option<User>, ApiError> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let one = |name: &str| headers.get(name).map(text).unwrap_or_default();
    let mut user = User {
        name: one("impersonate-user"),
        uid: one("impersonate-uid"),
        groups: headers.get_all("impersonate-group").iter().map(text).collect(),
        extra: BTreeMap::new(),
    };
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
            user.extra.entry(unescape(key)).or_default().push(text(value));
        }
    }
    let asks = !(user.uid.is_empty() && user.groups.is_empty() && user.extra.is_empty());
    match (user.name.is_empty(), asks) {
        (false, _) => Ok(Some(user)),
        (true, false) => Ok(None),
        (true, true) => {
            let shown = show(&user);
            Err(ApiError::bad_request(format!("requested {shown} without impersonating a user name")))
        }
    }
}

/// As Go's `url.PathUnescape`; a broken escape leaves the whole key as it is.
fn unescape(key: &str) -> String {
    let bytes = key.as_bytes();
    let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let broken = (0..bytes.len()).any(|at| bytes[at] == b'%' && !(hex(at + 1) && hex(at + 2)));
    if broken { key.to_owned() } else { crate::query::percent_decode(key, false) }
}

/// As Go prints the value with `%#v`.
fn show(user: &User) -> String {
    let strings = |list: &[String]| {
        if list.is_empty() {
            "[]string(nil)".to_owned()
        } else {
            format!("[]string{{{}}}", go_strings(list, ", "))
        }
    };
    let extra = if user.extra.is_empty() {
        "map[string][]string(nil)".to_owned()
    } else {
        let entries = user.extra.iter().map(|(key, values)| format!("{key:?}:{}", strings(values)));
        format!("map[string][]string{{{}}}", entries.collect::<Vec<_>>().join(", "))
    };
    format!(
        "&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{}, Extra:{extra}}}",
        user.name,
        user.uid,
        strings(&user.groups)
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    /// Whether this way of impersonating is for such a user at all.
    fn applies(self, wanted: &User, requestor: &User) -> bool {
        let only_name = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let node = node_of(&wanted.name);
        let account = super::split_service_account(&wanted.name);
        match self {
            Self::AssociatedNode => only_name && node.is_some_and(|node| associated(requestor, node)),
            Self::ArbitraryNode => only_name && node.is_some(),
            Self::ServiceAccount => only_name && account.is_some(),
            Self::UserInfo => node.is_none() && account.is_none(),
            Self::Legacy => true,
        }
    }
}

fn node_of(name: &str) -> Option<&str> {
    name.strip_prefix(NODE_PREFIX).filter(|node| super::is_subdomain(node))
}

/// Whether the requestor is a service account whose token says that it runs on this node.
fn associated(requestor: &User, node: &str) -> bool {
    let on = requestor.extra.get("authentication.kubernetes.io/node-name");
    requestor.service_account().is_some() && on.is_some_and(|names| names.as_slice() == [node.to_owned()])
}

/// Decides about impersonation; remembers which mode worked for whom, so that errors speak of that one.
#[derive(Debug, Default)]
pub struct Impersonation {
    worked: Mutex<HashMap<String, usize>>,
}

impl Impersonation {
    /// The user to act as, if the headers ask for one and `requestor` may; `None`: act as the requestor.
    pub async fn apply(
        &self,
        headers: &HeaderMap,
        requestor: &User,
        request: &RequestInfo,
        authorizer: &dyn Authorizer,
    ) -> Result<Option<User>, ApiError> {
        let Some(wanted) = wanted(headers)? else { return Ok(None) };
        let known = self.worked.lock().get(&requestor.name).copied();
        let order = known.into_iter().chain((0..MODES.len()).filter(|index| Some(*index) != known));
        let mut first_error = None;
        for index in order {
            let check = Check { mode: MODES[index], requestor, wanted: &wanted, request, authorizer };
            match check.run().await {
                Ok(Some(user)) => {
                    self.remember(&requestor.name, index);
                    return Ok(Some(user));
                }
                Ok(None) => {}
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| ApiError::internal("all impersonation modes failed")))
    }

    fn remember(&self, requestor: &str, index: usize) {
        let mut worked = self.worked.lock();
        if worked.len() >= REMEMBERED {
            worked.clear();
        }
        worked.insert(requestor.to_owned(), index);
    }
}

struct Check<'a> {
    mode: Mode,
    requestor: &'a User,
    wanted: &'a User,
    request: &'a RequestInfo,
    authorizer: &'a dyn Authorizer,
}

impl Check<'_> {
    /// `Ok(None)`: the mode does not apply.
    async fn run(&self) -> Result<Option<User>, ApiError> {
        if !self.mode.applies(self.wanted, self.requestor) {
            return Ok(None);
        }
        if self.mode != Mode::Legacy {
            let verb = format!("impersonate-on:{}:{}", self.mode.name(), self.request.verb);
            self.ask(&RequestInfo { verb, ..self.request.clone() }).await?;
        }
        let mut user = self.wanted.clone();
        self.user_name(&mut user).await?;
        if !self.wanted.uid.is_empty() {
            self.ask(&self.about(GROUP, "uids", "", &self.wanted.uid)).await?;
        }
        self.groups().await?;
        self.extra().await?;
        let ensure = |user: &mut User, group: &str| {
            if !user.in_group(group) {
                user.groups.push(group.to_owned());
            }
        };
        if user.name == ANONYMOUS {
            ensure(&mut user, UNAUTHENTICATED);
        } else if !user.in_group(UNAUTHENTICATED) {
            ensure(&mut user, AUTHENTICATED);
        }
        Ok(Some(user))
    }

    fn verb(&self) -> String {
        if self.mode == Mode::Legacy {
            "impersonate".to_owned()
        } else {
            format!("impersonate:{}", self.mode.name())
        }
    }

    fn about(&self, group: &str, resource: &str, subresource: &str, name: &str) -> RequestInfo {
        RequestInfo {
            is_resource: true,
            verb: self.verb(),
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            name: name.to_owned(),
            ..RequestInfo::default()
        }
    }

    /// Users and groups are in the core group for the legacy verb.
    fn name_group(&self) -> &'static str {
        if self.mode == Mode::Legacy { "" } else { GROUP }
    }

    async fn user_name(&self, user: &mut User) -> Result<(), ApiError> {
        let name = self.wanted.name.as_str();
        let mut about = self.about(self.name_group(), "users", "", name);
        if self.mode != Mode::Legacy
            && let Some(node) = node_of(name)
        {
            "nodes".clone_into(&mut about.resource);
            // For one's own node the permission must be good for every node.
            about.name = if self.mode == Mode::AssociatedNode { "*" } else { node }.to_owned();
            user.groups = vec![NODES.to_owned()];
        }
        if let Some((namespace, account)) = super::split_service_account(name) {
            "serviceaccounts".clone_into(&mut about.resource);
            namespace.clone_into(&mut about.namespace);
            account.clone_into(&mut about.name);
            if self.wanted.groups.is_empty() {
                user.groups = super::service_account_groups(namespace);
            }
        }
        self.ask(&about).await
    }

    async fn groups(&self) -> Result<(), ApiError> {
        let groups = &self.wanted.groups;
        let about = |name: &str| self.about(self.name_group(), "groups", "", name);
        if self.mode != Mode::Legacy {
            if groups.iter().any(String::is_empty) {
                let why = "impersonating the empty string group is not allowed";
                return Err(forbidden(self.requestor, &about(""), why));
            }
            if groups.iter().any(|group| group == MASTERS) {
                let why = "impersonating the system:masters group is not allowed";
                return Err(forbidden(self.requestor, &about(MASTERS), why));
            }
            if groups.len() >= MANY && self.ask(&about("*")).await.is_ok() {
                return Ok(());
            }
        }
        for group in groups {
            self.ask(&about(group)).await?;
        }
        Ok(())
    }

    async fn extra(&self) -> Result<(), ApiError> {
        let extra = &self.wanted.extra;
        if self.mode != Mode::Legacy {
            if let Some(why) = bad_extra(extra) {
                return Err(forbidden(self.requestor, &self.about(GROUP, "userextras", "", ""), &why));
            }
            let large = extra.len() >= MANY || extra.values().map(Vec::len).sum::<usize>() >= MANY;
            if large && self.ask(&self.about(GROUP, "userextras", "*", "*")).await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.ask(&self.about(GROUP, "userextras", key, value)).await?;
            }
        }
        Ok(())
    }

    async fn ask(&self, about: &RequestInfo) -> Result<(), ApiError> {
        match self.authorizer.decide(self.requestor, about).get().await {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } | Decision::NoOpinion { reason } => {
                Err(forbidden(self.requestor, about, &reason))
            }
            Decision::Failed { error, .. } => Err(ApiError::internal(error)),
        }
    }
}

/// What constrained impersonation does not take as extra values.
fn bad_extra(extra: &BTreeMap<String, Vec<String>>) -> Option<String> {
    extra.iter().find_map(|(key, values)| {
        if key.is_empty() {
            return Some("impersonating the empty string key in extra is not allowed".to_owned());
        }
        let prefixed = key.split_once('/').is_some_and(|(domain, path)| {
            super::is_subdomain(domain)
                && !path.is_empty()
                && path.bytes().all(|b| b.is_ascii_graphic() && b != b'%')
        });
        if !prefixed {
            let why = "Invalid value: {}: must be a domain-prefixed path (such as \"acme.io/foo\")";
            let why = why.replacen("{}", &format!("{key:?}"), 1);
            return Some(format!("impersonating an invalid key in extra is not allowed: extra.key: {why}"));
        }
        if *key != key.to_lowercase() {
            return Some(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"));
        }
        let empty = values.iter().any(String::is_empty);
        empty.then(|| "impersonating the empty string value in extra is not allowed".to_owned())
    })
}

/// The requestor and the one it acts as, for the log: `alice[dev,ops]`.
#[must_use]
pub fn describe(user: &User) -> String {
    if user.groups.is_empty() { user.name.clone() } else { format!("{}{}", user.name, go_list(&user.groups)) }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// Allows what is listed as `verb resource[/subresource] name`.
    struct Listed(Vec<&'static str>);

    impl Authorizer for Listed {
        fn authorize(&self, _: &User, r: &RequestInfo) -> Decision {
            let resource = if r.subresource.is_empty() {
                r.resource.clone()
            } else {
                format!("{}/{}", r.resource, r.subresource)
            };
            let asked = format!("{} {resource} {}", r.verb, r.name);
            if self.0.contains(&asked.trim_end()) {
                Decision::Allow { reason: String::new() }
            } else {
                Decision::NoOpinion { reason: String::new() }
            }
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("header"));
        }
        headers
    }

    fn list_pods() -> RequestInfo {
        RequestInfo {
            is_resource: true,
            verb: "list".into(),
            version: "v1".into(),
            resource: "pods".into(),
            namespace: "ns".into(),
            ..RequestInfo::default()
        }
    }

    fn requestor() -> User {
        User { name: "bot".into(), ..User::default() }
    }

    fn apply(allowed: &[&'static str], pairs: &[(&'static str, &str)]) -> Result<Option<User>, String> {
        let authorizer = Listed(allowed.to_vec());
        Impersonation::default()
            .apply(&headers(pairs), &requestor(), &list_pods(), &authorizer)
            .now_or_never()
            .expect("nobody else is asked")
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn nothing_asked_is_nothing_done() {
        assert_eq!(apply(&[], &[]), Ok(None));
        assert_eq!(apply(&[], &[("impersonate-user", "")]), Ok(None));
    }

    #[test]
    fn a_user_must_be_named() {
        for (pair, shown) in [
            (
                ("impersonate-group", "dev"),
                r#"&user.DefaultInfo{Name:"", UID:"", Groups:[]string{"dev"}, Extra:map[string][]string(nil)}"#,
            ),
            (
                ("impersonate-uid", "u"),
                r#"&user.DefaultInfo{Name:"", UID:"u", Groups:[]string(nil), Extra:map[string][]string(nil)}"#,
            ),
            (
                ("impersonate-extra-scopes", "x"),
                concat!(
                    r#"&user.DefaultInfo{Name:"", UID:"", Groups:[]string(nil), "#,
                    r#"Extra:map[string][]string{"scopes":[]string{"x"}}}"#
                ),
            ),
        ] {
            let expected = format!("requested {shown} without impersonating a user name");
            assert_eq!(apply(&[], &[pair]), Err(expected));
        }
    }

    #[test]
    fn every_part_needs_permission() {
        let all = ["impersonate users bob", "impersonate groups dev", "impersonate userextras/scopes view"];
        let ask =
            [("impersonate-user", "bob"), ("impersonate-group", "dev"), ("impersonate-extra-scopes", "view")];
        let user = apply(&all, &ask).expect("allowed").expect("bob");
        assert_eq!(user.groups, ["dev", "system:authenticated"]);
        assert_eq!(user.extra["scopes"], ["view"]);
        for missing in 0..all.len() {
            let mut some = all.to_vec();
            some.remove(missing);
            assert!(apply(&some, &ask).is_err(), "without {}", all[missing]);
        }
    }

    #[test]
    fn the_first_mode_that_applies_explains_the_refusal() {
        for (user, expected) in [
            ("bob", "impersonate-on:user-info:list"),
            ("system:serviceaccount:ns:x", "impersonate-on:serviceaccount:list"),
            ("system:node:n1", "impersonate-on:arbitrary-node:list"),
        ] {
            let text = format!(
                r#"pods is forbidden: User "bot" cannot {expected} resource "pods" in API group "" in the namespace "ns""#
            );
            assert_eq!(apply(&[], &[("impersonate-user", user)]), Err(text));
        }
    }

    #[test]
    fn the_mode_that_worked_explains_later_refusals() {
        let authorizer = Listed(vec!["impersonate users bob"]);
        let impersonation = Impersonation::default();
        let ask = |user: &str| {
            let asked = headers(&[("impersonate-user", user)]);
            impersonation
                .apply(&asked, &requestor(), &list_pods(), &authorizer)
                .now_or_never()
                .expect("nobody else is asked")
        };
        assert!(ask("bob").is_ok());
        let error = ask("eve").expect_err("eve");
        assert_eq!(
            error.message(),
            r#"users "eve" is forbidden: User "bot" cannot impersonate resource "users" in API group "" at the cluster scope"#
        );
    }

    #[test]
    fn constrained_permission_is_enough() {
        let allowed = ["impersonate-on:user-info:list pods", "impersonate:user-info users bob"];
        assert!(apply(&allowed, &[("impersonate-user", "bob")]).is_ok());
        let masters = [("impersonate-user", "bob"), ("impersonate-group", "system:masters")];
        assert!(
            apply(&[allowed.as_slice(), &["impersonate:user-info groups system:masters"]].concat(), &masters)
                .is_err()
        );
    }

    #[test]
    fn service_accounts_get_their_groups() {
        let user =
            apply(&["impersonate serviceaccounts x"], &[("impersonate-user", "system:serviceaccount:ns:x")]);
        let groups = user.expect("allowed").expect("x").groups;
        assert_eq!(groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
    }

    #[test]
    fn broken_escapes_stay() {
        assert_eq!(unescape("a%zz"), "a%zz");
        assert_eq!(unescape("a%2fb"), "a/b");
    }
}
