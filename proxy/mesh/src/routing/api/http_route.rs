//! HTTPRoutes: parents, hostnames and rules, checked and compiled.

use std::{collections::BTreeSet, sync::Arc};

use http::StatusCode;
use policy::{
    Object, Problem,
    manifest::{Located, codes},
};

use super::{
    filters::Filters,
    gateway::{GROUP, Gateway, Listener},
    matching::{self, Precedence},
    spec::{BackendRefSpec, HttpRouteSpec, ParentRefSpec, ReferenceGrantSpec, RuleSpec},
};
use crate::routing::{
    HeaderEdits, RetryPolicy,
    action::{Action, Forwarding, Route, Terms, Weighted},
    condition::{Condition, PathMatch},
    destination::{Registry, SERVICE_SUFFIX, Target, mesh_sni},
    duration::ManifestDuration,
    fault::Fault,
    headers::compose,
    istio::check_host,
    redirect::RedirectPath,
    retry,
    rewrite::PathRewrite,
};

/// Retries on what did not reach the backend (HTTPRouteRetry: "connection errors").
const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled";

/// An HTTPRoute, checked.
#[derive(Debug)]
pub(super) struct HttpRoute {
    pub(super) namespace: String,
    parents: Vec<Parent>,
    /// `*` where it names none.
    pub(super) hostnames: Vec<String>,
    pub(super) rules: Vec<Rule>,
}

/// One match of one rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) precedence: Precedence,
    pub(super) route: Arc<Route>,
}

#[derive(Debug)]
struct Parent {
    namespace: String,
    name: String,
    section: Option<String>,
    port: Option<u16>,
}

/// References to Services across namespaces that their namespaces permit (ReferenceGrant):
/// from namespace, to namespace, Service (`None`: all).
#[derive(Debug, Default)]
pub(super) struct Grants(BTreeSet<(String, String, Option<String>)>);

impl Grants {
    pub(super) fn add(&mut self, object: &Object, problems: &mut Vec<Problem>) {
        let spec = match object.field::<ReferenceGrantSpec>("spec") {
            Ok(spec) => spec.unwrap_or_default(),
            Err(problem) => return problems.push(problem),
        };
        let from = spec.from.iter().filter(|from| from.group == GROUP && from.kind == "HTTPRoute");
        for from in from {
            for to in spec.to.iter().filter(|to| is_core(&to.group) && to.kind == "Service") {
                let name = to.name.clone().filter(|name| !name.is_empty());
                self.0.insert((from.namespace.clone(), object.namespace().to_owned(), name));
            }
        }
    }

    fn permit(&self, from: &str, to: &str, service: &str) -> bool {
        let granted =
            |name: Option<&str>| self.0.contains(&(from.to_owned(), to.to_owned(), name.map(str::to_owned)));
        from == to || granted(None) || granted(Some(service))
    }
}

fn is_core(group: &str) -> bool {
    group.is_empty() || group == "core"
}

impl HttpRoute {
    /// Whether a parentRef names the listener.
    pub(super) fn names(&self, gateway: &Gateway, listener: &Listener) -> bool {
        self.parents.iter().any(|parent| {
            parent.name == gateway.name.name
                && parent.namespace == gateway.name.namespace
                && parent.section.as_ref().is_none_or(|section| *section == listener.section)
                && parent.port.is_none_or(|port| port == listener.port)
        })
    }

    pub(super) fn read(
        object: &Object,
        grants: &Grants,
        registry: &Registry,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let before = problems.len();
        let read = Self::compile(object, grants, registry, problems);
        for problem in problems.iter_mut().skip(before) {
            problem.object = Some(object.label());
        }
        read.map_err(|problem| problems.push(problem.of(object.label()))).ok()
    }

    fn compile(
        object: &Object,
        grants: &Grants,
        registry: &Registry,
        problems: &mut Vec<Problem>,
    ) -> Result<Self, Problem> {
        let spec = object.field::<HttpRouteSpec>("spec")?.unwrap_or_default();
        let namespace = object.namespace();
        let parents = spec.parent_refs.iter().filter_map(|parent| Parent::read(parent, namespace));
        let mut hostnames = Vec::new();
        for name in &spec.hostnames {
            check_host(name).map_err(|text| name.error(codes::INVALID_VALUE, text))?;
            hostnames.push(name.to_ascii_lowercase());
        }
        if hostnames.is_empty() {
            hostnames.push("*".to_owned());
        }
        let metadata = &object.metadata;
        let age = (
            metadata.creation_timestamp.clone().unwrap_or_default(),
            namespace.to_owned(),
            metadata.name.clone(),
        );
        let mut rules = Vec::new();
        if spec.rules.is_none() {
            rules.push(Rule::without_backends(object, &age));
        }
        for (index, rule) in spec.rules.iter().flatten().enumerate() {
            let context = Context { namespace, grants, registry };
            let terms = Arc::new(context.read_rule(rule, problems)?);
            let name: Arc<str> = match rule.name.as_deref().filter(|name| !name.is_empty()) {
                Some(name) => format!("{} rules[{index}] {name}", object.label()).into(),
                None => format!("{} rules[{index}]", object.label()).into(),
            };
            for (position, condition) in conditions(rule)?.into_iter().enumerate() {
                let precedence = Precedence::of(&condition, age.clone(), (index, position));
                let (name, terms) = (Arc::clone(&name), Arc::clone(&terms));
                let route = Arc::new(Route { name, condition, terms });
                rules.push(Rule { precedence, route });
            }
        }
        let namespace = namespace.to_owned();
        Ok(Self { namespace, parents: parents.collect(), hostnames, rules })
    }
}

impl Rule {
    /// What the API server makes of a route without rules: it takes everything, and has no backend.
    fn without_backends(object: &Object, age: &(String, String, String)) -> Self {
        let condition = Condition::default();
        let terms = Terms { fault: Fault::default(), cors: None, action: failed() };
        let precedence = Precedence::of(&condition, age.clone(), (0, 0));
        let name = object.label().into();
        Self { precedence, route: Arc::new(Route { name, condition, terms: Arc::new(terms) }) }
    }
}

impl Parent {
    /// `None` for parents that are no Gateways (a Service: traffic within the mesh).
    fn read(spec: &Located<ParentRefSpec>, namespace: &str) -> Option<Self> {
        let group = spec.group.as_deref().unwrap_or(GROUP);
        let kind = spec.kind.as_deref().unwrap_or("Gateway");
        (group == GROUP && kind == "Gateway").then(|| Self {
            namespace: spec.namespace.clone().unwrap_or_else(|| namespace.to_owned()),
            name: spec.name.clone(),
            section: spec.section_name.clone().filter(|name| !name.is_empty()),
            port: spec.port,
        })
    }
}

fn conditions(rule: &RuleSpec) -> Result<Vec<Condition>, Problem> {
    if rule.matches.is_empty() {
        return Ok(vec![Condition::default()]);
    }
    rule.matches.iter().map(matching::read).collect()
}

/// What a rule is read against.
struct Context<'a> {
    namespace: &'a str,
    grants: &'a Grants,
    registry: &'a Registry,
}

impl Context<'_> {
    fn read_rule(&self, rule: &Located<RuleSpec>, problems: &mut Vec<Problem>) -> Result<Terms, Problem> {
        if let Some(sessions) = &rule.session_persistence {
            let text = "sessions are not kept on one endpoint";
            problems.push(sessions.warning(codes::NOT_ENFORCED, text));
        }
        let filters = Filters::read(&rule.filters, problems)?;
        check_prefix_modifier(rule, &filters)?;
        let cors = filters.cors.clone();
        let weights = rule.backend_refs.iter().map(|backend| backend.weight.unwrap_or(1));
        let total: u64 = weights.map(u64::from).sum();
        let action = match (&filters.redirect, total) {
            _ if filters.invalid => failed(),
            (Some(_), _) if !rule.backend_refs.is_empty() => {
                let text = "RequestRedirect cannot stand beside backendRefs";
                return Err(rule.error(codes::INVALID_VALUE, text));
            }
            (Some(redirect), _) => Action::Redirect(redirect.clone()),
            (None, 0) => failed(),
            (None, _) => Action::Forward(self.read_forwarding(rule, filters, problems)?),
        };
        Ok(Terms { fault: Fault::default(), cors, action })
    }

    fn read_forwarding(
        &self,
        rule: &RuleSpec,
        filters: Filters,
        problems: &mut Vec<Problem>,
    ) -> Result<Forwarding, Problem> {
        let weighted = |backend: &&Located<BackendRefSpec>| backend.weight != Some(0);
        let alone = rule.backend_refs.iter().filter(weighted).count() == 1;
        let host = filters.authority.clone().or(filters.request.authority.clone());
        let mut destinations = Vec::new();
        for backend in rule.backend_refs.iter().filter(weighted) {
            let own = Filters::read(&backend.filters, problems)?;
            let unsupported = own.redirect.is_some() || own.cors.is_some() || own.rewrite.is_some();
            if unsupported {
                let text = "backends take header modifiers only";
                return Err(backend.error(codes::NOT_ENFORCED, text));
            }
            let (name, mut target) = self.resolve(backend, problems);
            let sni = backend.port.map(|port| mesh_sni(&name, port, None).into());
            if own.invalid {
                target = Target::Unknown;
            }
            let fold = |own: &HeaderEdits, rule: &HeaderEdits| {
                Arc::new(if alone { compose(rule, own, true) } else { compose(own, rule, false) })
            };
            destinations.push(Weighted {
                weight: backend.weight.unwrap_or(1).into(),
                sni,
                host: name.into(),
                target,
                authority: own.request.authority.clone().or_else(|| host.clone()),
                request_headers: fold(&own.request.headers, &filters.request.headers),
                response_headers: fold(&own.response.headers, &filters.response.headers),
            });
        }
        let (timeout, retries) = read_times(rule)?;
        Ok(Forwarding {
            destinations,
            rewrite: filters.rewrite,
            timeout,
            retries,
            unknown_status: StatusCode::INTERNAL_SERVER_ERROR,
        })
    }

    /// The backend's host, and what stands there; unknown where the reference is no good.
    fn resolve(&self, backend: &Located<BackendRefSpec>, problems: &mut Vec<Problem>) -> (String, Target) {
        let namespace = backend.namespace.as_deref().unwrap_or(self.namespace);
        let group = backend.group.as_deref().unwrap_or_default();
        let host = match (group, backend.kind.as_deref().unwrap_or("Service")) {
            ("" | "core", "Service") => format!("{}.{namespace}.{SERVICE_SUFFIX}", backend.name),
            ("networking.istio.io", "Hostname") => backend.name.to_ascii_lowercase(),
            (group, kind) => {
                let text = format!("`{group}/{kind}` is no backend that is served: requests get 500");
                problems.push(backend.warning(crate::codes::UNKNOWN_DESTINATION, text));
                return (backend.name.clone(), Target::Unknown);
            }
        };
        if !self.grants.permit(self.namespace, namespace, &backend.name) {
            let text = format!("no ReferenceGrant in `{namespace}` permits this reference: requests get 500");
            problems.push(backend.warning(crate::codes::REFERENCE_NOT_GRANTED, text));
            return (host, Target::Unknown);
        }
        let target = match backend.port {
            None => Target::Unknown,
            port => self.registry.target(&host, port, None),
        };
        if !target.is_known() {
            let text = format!("`{host}` has no such port: requests get 500");
            problems.push(backend.warning(crate::codes::UNKNOWN_DESTINATION, text));
        }
        (host, target)
    }
}

/// A rule that cannot be served as written answers 500, it never passes (HTTPRouteRule).
fn failed() -> Action {
    Action::Respond { status: StatusCode::INTERNAL_SERVER_ERROR, body: String::new() }
}

/// ReplacePrefixMatch needs a prefix to replace: one PathPrefix match, or none at all.
fn check_prefix_modifier(rule: &Located<RuleSpec>, filters: &Filters) -> Result<(), Problem> {
    let swaps = matches!(filters.rewrite, Some(PathRewrite::Segments(_)))
        || filters
            .redirect
            .as_ref()
            .is_some_and(|redirect| matches!(redirect.path, RedirectPath::Segments(_)));
    let fits = conditions(rule)?
        .iter()
        .all(|condition| matches!(condition.path, PathMatch::Any | PathMatch::Segments(_)));
    if swaps && (!fits || rule.matches.len() > 1) {
        let text = "ReplacePrefixMatch needs exactly one PathPrefix match";
        return Err(rule.error(codes::INVALID_VALUE, text));
    }
    Ok(())
}

/// `timeouts.backendRequest` holds for each attempt where retries are asked for, else for the
/// whole exchange.
fn read_times(rule: &RuleSpec) -> Result<(Option<std::time::Duration>, RetryPolicy), Problem> {
    let request = rule.timeouts.request.and_then(ManifestDuration::limit);
    let backend = rule.timeouts.backend_request.and_then(ManifestDuration::limit);
    let Some(spec) = &rule.retry else {
        let timeout = request.into_iter().chain(backend).min();
        return Ok((timeout, retry::default_policy()));
    };
    let conditions = spec.codes.iter().fold(RETRY_ON.to_owned(), |all, code| format!("{all},{code}"));
    let retries = retry::policy(spec.attempts.unwrap_or(2), backend, &conditions)
        .map_err(|text| spec.error(codes::INVALID_VALUE, text))?;
    Ok((request, retries))
}
