//! The manifests, and which of them select a workload.

use serde_json::Value;

use super::{EnvoyListener, TranslateError};

const ROOT_NAMESPACE: &str = "istio-system";

/// AuthorizationPolicies and RequestAuthentications; other objects are passed over.
#[derive(Debug, Clone, Default)]
pub struct Manifests {
    objects: Vec<Object>,
}

#[derive(Debug, Clone)]
pub(super) struct Object {
    kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) dry_run: bool,
    pub(super) spec: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    AuthorizationPolicy,
    RequestAuthentication,
}

impl Manifests {
    /// Reads multi-document YAML or JSON.
    ///
    /// # Errors
    /// Text that is no manifest.
    pub fn parse(text: &str) -> Result<Self, TranslateError> {
        let (objects, problems) = policy::manifest::parse("manifests", text);
        if let Some(problem) = problems.first() {
            return Err(TranslateError(problem.to_string()));
        }
        let mut manifests = Self::default();
        for object in objects {
            let read =
                |name| object.field::<Value>(name).map_err(|problem| TranslateError(problem.to_string()));
            let spec = read("spec")?.unwrap_or_default();
            let metadata = read("metadata")?.unwrap_or_default();
            manifests.push(&object.kind, &metadata, spec);
        }
        Ok(manifests)
    }

    /// Adds one whole object.
    pub fn add(&mut self, object: &Value) {
        let kind = object["kind"].as_str().unwrap_or_default();
        self.push(kind, &object["metadata"], object["spec"].clone());
    }

    fn push(&mut self, kind: &str, metadata: &Value, spec: Value) {
        let kind = match kind {
            "AuthorizationPolicy" => Kind::AuthorizationPolicy,
            "RequestAuthentication" => Kind::RequestAuthentication,
            _ => return,
        };
        let text = |name: &str| metadata[name].as_str().unwrap_or("default").to_owned();
        let dry_run = metadata["annotations"]["istio.io/dry-run"] == "true";
        let (namespace, name) = (text("namespace"), text("name"));
        self.objects.push(Object { kind, namespace, name, dry_run, spec });
    }

    /// Those of a kind that select the workload of a listener.
    pub(super) fn selecting<'a>(
        &'a self,
        kind: Kind,
        listener: &'a EnvoyListener,
    ) -> impl Iterator<Item = &'a Object> {
        self.objects.iter().filter(move |object| object.kind == kind && object.selects(listener))
    }
}

impl Object {
    fn selects(&self, listener: &EnvoyListener) -> bool {
        if self.namespace != ROOT_NAMESPACE && self.namespace != listener.namespace {
            return false;
        }
        let labels = self.spec["selector"]["matchLabels"].as_object();
        labels.is_none_or(|labels| {
            labels.iter().all(|(key, value)| {
                listener.labels.get(key).is_some_and(|found| Some(found.as_str()) == value.as_str())
            })
        })
    }
}
