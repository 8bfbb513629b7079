//! Statuses, bodies, Envoy's response flags and details: one table, read by `render` and `record`.

use std::borrow::Cow;

use fhir::IssueCode;
use http::StatusCode;
use identity::{Rejection, RejectionReason};
use policy::Decision;

use crate::{Refusal, limits::Exceeded, refusal::UpstreamFault, serve::head::HeadError};

/// The status of a refusal.
pub(super) fn of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Dropped(_) | Refusal::Denied(_) => StatusCode::FORBIDDEN,
        Refusal::Malformed(_) | Refusal::Target(_) => StatusCode::BAD_REQUEST,
        Refusal::Head(error) => of_head(*error),
        Refusal::Limit(exceeded) => of_limit(*exceeded),
        Refusal::Credentials(rejection) => of_credentials(rejection),
        Refusal::NoRoute => StatusCode::NOT_FOUND,
        Refusal::NoDestination(status) => *status,
        Refusal::Answered(answer) => answer.status,
        Refusal::Upstream(fault) => of_upstream(*fault),
        Refusal::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn of_head(error: HeadError) -> StatusCode {
    match error {
        HeadError::Version => StatusCode::UPGRADE_REQUIRED,
        HeadError::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        HeadError::TransferEncoding => StatusCode::NOT_IMPLEMENTED,
        HeadError::Expectation => StatusCode::EXPECTATION_FAILED,
        HeadError::Method
        | HeadError::MissingHost
        | HeadError::SeveralHosts
        | HeadError::BadHost
        | HeadError::HostMismatch
        | HeadError::AsteriskForm
        | HeadError::ContentLength
        | HeadError::LengthAndEncoding
        | HeadError::ConnectionSpecific
        | HeadError::HeaderName
        | HeadError::Nominated
        | HeadError::Cookie => StatusCode::BAD_REQUEST,
    }
}

fn of_limit(exceeded: Exceeded) -> StatusCode {
    match exceeded {
        Exceeded::HeadBytes | Exceeded::HeaderCount => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Exceeded::RequestBodyBytes => StatusCode::PAYLOAD_TOO_LARGE,
        Exceeded::HeadTimeout | Exceeded::BodyIdleTimeout => StatusCode::REQUEST_TIMEOUT,
        Exceeded::Requests | Exceeded::RequestsPerWorkload => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A wrong audience is 403, everything else 401 (Envoy's jwt_authn filter).
fn of_credentials(rejection: &Rejection) -> StatusCode {
    if is_audience(rejection) { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED }
}

fn of_upstream(fault: UpstreamFault) -> StatusCode {
    match fault {
        UpstreamFault::ConnectFailed
        | UpstreamFault::ConnectTimeout
        | UpstreamFault::ClosedBeforeHead
        | UpstreamFault::Overflow
        | UpstreamFault::Tunnel(_) => StatusCode::SERVICE_UNAVAILABLE,
        UpstreamFault::Protocol => StatusCode::BAD_GATEWAY,
        UpstreamFault::Timeout => StatusCode::GATEWAY_TIMEOUT,
    }
}

fn is_audience(rejection: &Rejection) -> bool {
    rejection.reason == RejectionReason::AudienceNotAllowed
}

/// Whether a token was merely missing.
pub(super) fn is_missing(rejection: &Rejection) -> bool {
    rejection.reason == RejectionReason::Missing
}

/// The plain body; empty where Envoy sends none.
pub(super) fn body(refusal: &Refusal) -> Cow<'static, str> {
    match refusal {
        Refusal::Denied(_) => "RBAC: access denied".into(),
        Refusal::Credentials(rejection) => rejection.reason.to_string().into(),
        Refusal::Malformed(reason) => (*reason).into(),
        // What Envoy's own HTTP/1 codec says (pinned on 1.40); our other checks have no counterpart.
        Refusal::Head(HeadError::Version) => "Upgrade Required".into(),
        Refusal::Head(HeadError::TransferEncoding) => "Not Implemented".into(),
        Refusal::Head(HeadError::Method) => "Bad Request".into(),
        Refusal::Head(error) => error.to_string().into(),
        Refusal::Target(error) => error.to_string().into(),
        Refusal::Limit(exceeded) => limit_text(*exceeded).into(),
        Refusal::NoDestination(StatusCode::SERVICE_UNAVAILABLE) => "no healthy upstream".into(),
        Refusal::Upstream(fault) => fault.to_string().into(),
        Refusal::Answered(answer) => answer.body.clone().into(),
        Refusal::Dropped(_) | Refusal::NoRoute | Refusal::NoDestination(_) | Refusal::Internal(_) => {
            "".into()
        }
    }
}

fn limit_text(exceeded: Exceeded) -> &'static str {
    match exceeded {
        Exceeded::HeadBytes => "the request head is too large",
        Exceeded::HeaderCount => "the request has too many headers",
        Exceeded::RequestBodyBytes => "the request body is too large",
        Exceeded::HeadTimeout => "the request head took too long",
        Exceeded::BodyIdleTimeout => "the request body took too long",
        Exceeded::Requests | Exceeded::RequestsPerWorkload => "too many requests under way",
    }
}

/// FHIR's word for it (R4 and R5 value set `issue-type`).
pub(super) fn issue_code(refusal: &Refusal) -> IssueCode {
    match refusal {
        Refusal::Denied(_) | Refusal::Dropped(_) => IssueCode::Forbidden,
        Refusal::Credentials(rejection) if is_audience(rejection) => IssueCode::Forbidden,
        Refusal::Credentials(rejection) => match rejection.reason {
            RejectionReason::Expired => IssueCode::Expired,
            _ => IssueCode::Login,
        },
        Refusal::Malformed(_) | Refusal::Target(_) => IssueCode::Structure,
        Refusal::Head(HeadError::MethodNotAllowed) => IssueCode::NotSupported,
        Refusal::Head(_) => IssueCode::Structure,
        Refusal::Limit(exceeded) => match exceeded {
            Exceeded::HeadBytes | Exceeded::HeaderCount | Exceeded::RequestBodyBytes => IssueCode::TooLong,
            Exceeded::HeadTimeout | Exceeded::BodyIdleTimeout => IssueCode::Timeout,
            Exceeded::Requests | Exceeded::RequestsPerWorkload => IssueCode::Throttled,
        },
        Refusal::NoRoute => IssueCode::NotFound,
        Refusal::Upstream(UpstreamFault::Timeout) => IssueCode::Timeout,
        Refusal::Upstream(_) | Refusal::NoDestination(_) | Refusal::Answered(_) => IssueCode::Transient,
        Refusal::Internal(_) => IssueCode::Exception,
    }
}

/// Envoy's response flags (`%RESPONSE_FLAGS%`).
pub(crate) fn flags(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NoRoute => "NR",
        Refusal::NoDestination(_) => "UH",
        Refusal::Limit(Exceeded::Requests | Exceeded::RequestsPerWorkload) => "UO",
        Refusal::Malformed(_) | Refusal::Head(_) | Refusal::Target(_) | Refusal::Limit(_) => "DPE",
        Refusal::Answered(answer) if answer.details == "fault_filter_abort" => "FI",
        Refusal::Upstream(fault) => match fault {
            UpstreamFault::ConnectFailed | UpstreamFault::ConnectTimeout | UpstreamFault::Tunnel(_) => "UF",
            UpstreamFault::ClosedBeforeHead => "UC",
            UpstreamFault::Protocol => "UPE",
            UpstreamFault::Timeout => "UT",
            UpstreamFault::Overflow => "UO",
        },
        _ => "-",
    }
}

/// Envoy's response code details (`%RESPONSE_CODE_DETAILS%`), or ours where Envoy has no such case.
pub(crate) fn details(refusal: &Refusal) -> Cow<'static, str> {
    match refusal {
        Refusal::Denied(decision) => rbac_details(decision).into(),
        Refusal::Credentials(rejection) => {
            let reason = rejection.reason.to_string().replace(' ', "_");
            format!("jwt_authn_access_denied{{{reason}}}").into()
        }
        Refusal::NoRoute => "route_not_found".into(),
        Refusal::NoDestination(_) => "no_healthy_upstream".into(),
        Refusal::Answered(answer) => answer.details.into(),
        Refusal::Upstream(UpstreamFault::Tunnel(fault)) => {
            format!("upstream_reset_before_response_started{{{fault}}}").into()
        }
        Refusal::Upstream(fault) => upstream_details(*fault).into(),
        Refusal::Internal(_) => "internal_error".into(),
        Refusal::Dropped(_) => "connection_dropped".into(),
        Refusal::Malformed(_) | Refusal::Head(_) | Refusal::Target(_) | Refusal::Limit(_) => {
            refused(refusal).unwrap_or("refused").into()
        }
    }
}

fn rbac_details(decision: &Decision) -> String {
    let rule = decision.rule.as_deref().unwrap_or("none");
    format!("rbac_access_denied_matched_policy[{rule}]")
}

fn upstream_details(fault: UpstreamFault) -> &'static str {
    match fault {
        UpstreamFault::ConnectFailed | UpstreamFault::Tunnel(_) => {
            "upstream_reset_before_response_started{remote_connection_failure}"
        }
        UpstreamFault::ConnectTimeout => "upstream_reset_before_response_started{connection_timeout}",
        UpstreamFault::ClosedBeforeHead => "upstream_reset_before_response_started{connection_termination}",
        UpstreamFault::Protocol => "upstream_reset_before_response_started{protocol_error}",
        UpstreamFault::Timeout => "response_timeout",
        UpstreamFault::Overflow => "upstream_reset_before_response_started{overflow}",
    }
}

/// Which limit or check of ours refused it: the metric's label.
pub(crate) fn refused(refusal: &Refusal) -> Option<&'static str> {
    match refusal {
        Refusal::Malformed(_) => Some("malformed"),
        Refusal::Head(error) => Some(error.reason()),
        Refusal::Target(error) => Some(error.reason()),
        Refusal::Limit(exceeded) => Some(exceeded.name()),
        Refusal::Dropped(error) => Some(error.reason()),
        _ => None,
    }
}
