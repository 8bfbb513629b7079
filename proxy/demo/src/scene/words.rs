//! What the demo says of itself.

use std::{
    io::{self, Write},
    net::SocketAddr,
};

pub(super) fn introduce(
    out: &mut impl Write,
    idp: &str,
    store: SocketAddr,
    proxy: Option<(SocketAddr, SocketAddr)>,
) -> io::Result<()> {
    writeln!(
        out,
        "identity provider  {idp}  (realm IDEA4RC; alice/alice1234! is a Patient, bob/bob1234! a Medic)"
    )?;
    writeln!(out, "FHIR store         http://{store}  (R4 at / and /fhir, R5 at /fhir-r5)")?;
    if let Some((ingress, admin)) = proxy {
        writeln!(out, "proxy              http://{ingress}  (the data mesh's manifests, unchanged)")?;
        writeln!(out, "for operators      http://{admin}/metrics /readyz /config_dump")?;
        curls(out, idp, ingress)?;
    }
    writeln!(out, "\nCtrl-C ends it.")?;
    out.flush()
}

fn curls(out: &mut impl Write, idp: &str, ingress: SocketAddr) -> io::Result<()> {
    write!(
        out,
        "
Try:
  token() {{ curl -s {idp}/realms/IDEA4RC/protocol/openid-connect/token \\
    -d client_id=idea -d grant_type=password -d username=$1 -d password=$2 | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/'; }}
  ALICE=$(token alice 'alice1234!'); BOB=$(token bob 'bob1234!')

  curl -i http://{ingress}/Patient                                    # 403: no token
  curl -i http://{ingress}/Patient -H 'Authorization: Bearer garbage' # 401
  curl -i http://{ingress}/Patient -H \"Authorization: Bearer $ALICE\"  # 200: a Patient may GET
  curl -i http://{ingress}/Patient -H \"Authorization: Bearer $BOB\"    # 403: a Medic may not
  curl -i http://{ingress}/Patient -H \"Authorization: Bearer $BOB\" -H 'Content-Type: application/fhir+json' \\
    -d '{{\"resourceType\":\"Patient\",\"name\":[{{\"family\":\"Demo\"}}]}}'    # 201: but may POST
"
    )
}
