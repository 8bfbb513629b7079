//! The data mesh's manifests, as the tutorial's users have them, in the binary.

use std::path::Path;

use tempfile::TempDir;

/// The file that holds the namespace and its label.
pub(super) const NAMESPACE_FILE: &str = "01-namespace.yaml";
/// What puts the namespace in the mesh.
const LABEL: &str = "  labels:\n    istio-injection: enabled\n";

const FILES: [(&str, &str); 9] = [
    ("01-namespace.yaml", include_str!("../../../../config/data-mesh/01-namespace.yaml")),
    ("02-peer-authentication.yaml", include_str!("../../../../config/data-mesh/02-peer-authentication.yaml")),
    ("03-gateway.yaml", include_str!("../../../../config/data-mesh/03-gateway.yaml")),
    ("04-services.yaml", include_str!("../../../../config/data-mesh/04-services.yaml")),
    ("05-deployments.yaml", include_str!("../../../../config/data-mesh/05-deployments.yaml")),
    ("06-virtual-service.yaml", include_str!("../../../../config/data-mesh/06-virtual-service.yaml")),
    (
        "07-request-authentication.yaml",
        include_str!("../../../../config/data-mesh/07-request-authentication.yaml"),
    ),
    ("08-authorization-medic.yaml", include_str!("../../../../config/data-mesh/08-authorization-medic.yaml")),
    (
        "09-authorization-patient.yaml",
        include_str!("../../../../config/data-mesh/09-authorization-patient.yaml"),
    ),
];

/// Writes them to a folder of their own, from which the proxy reads them as it would anywhere.
pub(super) fn unpack() -> std::io::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("fhirward-demo-").tempdir()?;
    write_to(folder.path())?;
    Ok(folder)
}

/// Writes them to this folder.
pub(super) fn write_to(folder: &Path) -> std::io::Result<()> {
    FILES.iter().try_for_each(|(name, text)| std::fs::write(folder.join(name), text))
}

/// The namespace with its label, as users have it, or without it; nothing where there is no label.
pub(super) fn namespace(labelled: bool) -> Option<String> {
    let (_, text) = FILES.iter().find(|(name, _)| *name == NAMESPACE_FILE)?;
    let without = text.replace(LABEL, "");
    (without != *text).then(|| if labelled { (*text).to_owned() } else { without })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::namespace;

    #[test]
    fn the_label_can_be_removed_and_the_rest_stays() {
        let (with, without) = (namespace(true).unwrap(), namespace(false).unwrap());
        assert!(with.contains("istio-injection: enabled") && !without.contains("label"), "{without}");
        assert!(without.contains("kind: Namespace") && without.contains("name: datamesh"), "{without}");
    }
}
