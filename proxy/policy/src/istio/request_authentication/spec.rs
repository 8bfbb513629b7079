//! RequestAuthentication `spec`, as written.
//!
//! Source: istio.io/latest/docs/reference/config/security/request_authentication and the CRD.

use serde::Deserialize;

use crate::{
    istio::selection::{TargetRefSpec, TargetSpec, WorkloadSelector},
    manifest::Located,
};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Spec {
    selector: Option<Located<WorkloadSelector>>,
    target_ref: Option<Located<TargetRefSpec>>,
    target_refs: Option<Located<Vec<Located<TargetRefSpec>>>>,
    pub(super) jwt_rules: Option<Located<Vec<Located<JwtRuleSpec>>>>,
}

impl Spec {
    pub(super) fn target(&mut self) -> TargetSpec {
        TargetSpec {
            selector: self.selector.take(),
            target_ref: self.target_ref.take(),
            target_refs: self.target_refs.take(),
        }
    }
}

/// A list of strings that know their places.
pub(super) type Strings = Vec<Located<String>>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct JwtRuleSpec {
    pub(super) issuer: Option<Located<String>>,
    pub(super) audiences: Strings,
    /// The CRD knows both spellings.
    #[serde(alias = "jwks_uri")]
    pub(super) jwks_uri: Option<Located<String>>,
    pub(super) jwks: Option<Located<String>>,
    pub(super) from_headers: Vec<Located<FromHeader>>,
    pub(super) from_params: Strings,
    pub(super) from_cookies: Strings,
    pub(super) output_payload_to_header: Option<Located<String>>,
    pub(super) forward_original_token: bool,
    pub(super) output_claim_to_headers: Vec<ClaimToHeader>,
    pub(super) timeout: Option<Located<String>>,
    pub(super) space_delimited_claims: Option<Located<Strings>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FromHeader {
    pub(super) name: Located<String>,
    #[serde(default)]
    pub(super) prefix: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ClaimToHeader {
    pub(super) header: Located<String>,
    pub(super) claim: Located<String>,
}
