//! The data mesh's manifests, as the tutorial's users have them, in the binary.

use tempfile::TempDir;

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
    for (name, text) in FILES {
        std::fs::write(folder.path().join(name), text)?;
    }
    Ok(folder)
}
