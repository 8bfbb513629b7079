//! The settings file that agent and proxy both read.

use super::{SERVICE, Stage, v4};
use crate::{
    pods::Pod,
    scene::{Failure, ISSUER_BASE, REALM},
};

pub(super) fn text(stage: &Stage) -> Result<String, Failure> {
    let captured = |pod: &Pod| {
        format!(
            "  - {{name: datamesh/{}, netns: \"{}\", cgroup: \"{}\"}}\n",
            pod.name(),
            pod.namespace().path().display(),
            pod.cgroup().display()
        )
    };
    let workload = |namespace: &str, pod: &Pod, labels: &str| {
        let ip = v4(pod)?;
        Ok::<_, Failure>(format!("  - {{name: {namespace}/{}, ip: \"{ip}\"{labels}}}\n", pod.name()))
    };
    // The FHIR server's labels are those of its Deployment.
    let workloads = [
        workload("datamesh", &stage.fhir, "")?,
        workload("datamesh", &stage.client, ", labels: {app: client}")?,
        workload("outside", &stage.keycloak, ", labels: {app: keycloak}")?,
        workload("outside", &stage.stranger, ", labels: {app: stranger}")?,
    ];
    Ok(format!(
        "capture:
  socket: \"{socket}\"
  pinPath: \"{pins}\"
  cgroupRoot: \"{cgroup}\"
  pods:
{pods}mesh:
  manifests: [\"{manifests}\"]
  serviceAddresses: {{datamesh/fhir-service: \"{SERVICE}\"}}
  workloads:
{workloads}identity:
  certificates: {{embedded: {{folder: \"{authority}\"}}}}
  providers:
  - {{issuer: \"{ISSUER_BASE}/realms/{REALM}\", jwksUri: \"{idp}/protocol/openid-connect/certs\"}}
observe: {{accessLog: {{enabled: false}}}}
admin: {{address: \"127.0.0.1:15000\"}}
",
        socket = stage.socket().display(),
        pins = stage.node.pins().display(),
        cgroup = stage.node.cgroup().display(),
        pods = [captured(&stage.fhir), captured(&stage.client)].concat(),
        manifests = stage.manifests().display(),
        workloads = workloads.concat(),
        idp = stage.idp,
        authority = stage.authority().display(),
    ))
}
