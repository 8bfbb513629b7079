//! A member of the mesh that is not one of ours: it has a certificate of the mesh's authority, and speaks
//! mTLS itself, as an Istio sidecar does for its application.

use std::{fs, path::Path, path::PathBuf};

use ::certs::{Authority, LeafRequest};

use super::{Failure, Stage};

const ID: &str = "spiffe://cluster.local/ns/partners/sa/sidecar";

/// What `curl` needs to be that member.
pub(super) struct Member {
    folder: PathBuf,
}

impl Member {
    /// Has a certificate signed by the root that the proxy made.
    pub(super) fn new(stage: &Stage) -> Result<Self, Failure> {
        let authority = stage.authority();
        let root = root(&authority)?;
        let pem = |extension: &str| fs::read_to_string(root.with_extension(extension));
        let signer = Authority::from_pem(&pem("crt")?, &pem("key")?)?;
        let folder = authority.with_file_name("member");
        signer.issue(&LeafRequest::for_workload(ID))?.write_to(&folder, &signer)?;
        Ok(Self { folder })
    }

    /// Arguments of `curl`. It knows names of hosts, which no certificate of the mesh holds, so it is told
    /// not to look at the server's.
    pub(super) fn curl(&self) -> Vec<String> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let words = ["--insecure", "--cert", &file("tls.crt"), "--key", &file("tls.key")];
        words.map(str::to_owned).to_vec()
    }
}

fn root(authority: &Path) -> Result<PathBuf, Failure> {
    let files = fs::read_dir(authority)?.flatten().map(|entry| entry.path());
    let roots = files.filter(|path| path.extension().is_some_and(|extension| extension == "crt"));
    roots.max().ok_or_else(|| format!("no root in {}", authority.display()).into())
}
