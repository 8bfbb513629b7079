//! Names and manifests of the namespace `datamesh` that tests of mTLS and HBONE share.

/// The FHIR server's own identity.
pub const SERVER: &str = "spiffe://cluster.local/ns/datamesh/sa/fhir-server";
/// Its usual client's.
pub const CLIENT: &str = "spiffe://cluster.local/ns/datamesh/sa/gateway";
/// The ingress gateway's, by Istio's name for its account.
pub const GATEWAY: &str = "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account";

/// Plaintext is refused.
pub const STRICT: &str = "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: datamesh}
spec: {mtls: {mode: STRICT}}
";

/// A gateway that leads every request to the FHIR server; more documents may follow.
pub const ROUTES: &str = "apiVersion: v1
kind: Service
metadata: {name: fhir-service, namespace: datamesh}
spec: {selector: {app: fhir-server}, ports: [{port: 8080, targetPort: 8080, name: http}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gateway, namespace: datamesh}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: fhir, namespace: datamesh}
spec:
  hosts: ['*']
  gateways: [gateway]
  http: [{route: [{destination: {host: fhir-service.datamesh.svc.cluster.local, port: {number: 8080}}}]}]
---
";
