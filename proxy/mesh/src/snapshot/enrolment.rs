//! Whether a pod is in the mesh: by its labels, else by its namespace's.

use std::collections::BTreeMap;

type Labels = BTreeMap<String, String>;

/// Whether a pod is enrolled. The pod's own labels win over its namespace's.
pub(super) fn enrolled(pod: &Labels, namespace: Option<&Labels>) -> bool {
    verdict(pod).or_else(|| namespace.and_then(verdict)).unwrap_or(false)
}

/// What one set of labels says, if anything. Our own label decides alone; of Istio's, one that opts
/// in to either of its modes outweighs one that opts out of the other.
fn verdict(labels: &Labels) -> Option<bool> {
    let label = |name: &str| labels.get(name).map(String::as_str);
    match label("fhirward.dev/mesh") {
        Some("enabled") => return Some(true),
        Some("disabled" | "none") => return Some(false),
        _ => {}
    }
    let says = [
        match label("istio.io/dataplane-mode") {
            Some("ambient") => Some(true),
            Some("none" | "disabled") => Some(false),
            _ => None,
        },
        match label("istio-injection") {
            Some("enabled") => Some(true),
            Some("disabled" | "none") => Some(false),
            _ => None,
        },
        // Istio injects into such a pod: to leave it out would leave its policies out.
        match label("sidecar.istio.io/inject") {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        },
        label("istio.io/rev").map(|_| true),
    ];
    if says.contains(&Some(true)) { Some(true) } else { says.contains(&Some(false)).then_some(false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_pods_labels_win_over_the_namespaces() {
        let on: &'static [(&str, &str)] = &[("istio-injection", "enabled")];
        type Pairs = &'static [(&'static str, &'static str)];
        let cases: &[(Pairs, Pairs, bool)] = &[
            (&[], &[], false),
            (&[], on, true),
            (&[], &[("istio.io/dataplane-mode", "ambient")], true),
            (&[], &[("fhirward.dev/mesh", "enabled")], true),
            (&[("sidecar.istio.io/inject", "false")], on, false),
            (&[("istio.io/dataplane-mode", "none")], on, false),
            (&[("fhirward.dev/mesh", "disabled")], on, false),
            (&[("fhirward.dev/mesh", "enabled")], &[("istio-injection", "disabled")], true),
            (&[("sidecar.istio.io/inject", "false"), ("istio.io/dataplane-mode", "ambient")], &[], true),
            (&[("fhirward.dev/mesh", "disabled"), ("istio-injection", "enabled")], on, false),
            (&[("app", "x")], on, true),
            (&[("istio-injection", "Enabled")], &[], false),
        ];
        for (pod, namespace, wanted) in cases {
            let namespace = labels(namespace);
            assert_eq!(enrolled(&labels(pod), Some(&namespace)), *wanted, "{pod:?} {namespace:?}");
        }
        assert!(!enrolled(&labels(&[]), None));
    }
}
