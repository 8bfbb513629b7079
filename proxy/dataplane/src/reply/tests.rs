#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fhir::Format;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use identity::{Rejection, RejectionReason};
use policy::{Decision, Verdict, decision::Summary, target::TargetError};

use super::{Grpc, ReplyContext, details, flags, realm, refused, render};
use crate::{
    Refusal,
    limits::Exceeded,
    refusal::{RouteAnswer, UpstreamFault},
    serve::head::HeadError,
};

fn denied(rule: Option<&str>) -> Refusal {
    Refusal::Denied(Box::new(Decision {
        verdict: Verdict::Deny,
        rule: rule.map(Into::into),
        summary: Summary::NoAllowMatched,
        audited: Vec::new(),
        dry_run: None,
    }))
}

fn expired() -> Refusal {
    Refusal::Credentials(Rejection { reason: RejectionReason::Expired, origin: None })
}

fn plain(refusal: &Refusal) -> (u16, String, Option<String>) {
    let response = render(refusal, &ReplyContext::default());
    let media_type =
        response.headers().get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
    let body = String::from_utf8(response.body().to_vec()).unwrap();
    (response.status().as_u16(), body, media_type)
}

#[test]
fn plain_answers_are_envoys_to_the_byte() {
    let text = Some("text/plain".to_owned());
    let reset = "upstream connect error or disconnect/reset before headers. reset reason: ";
    let cases = [
        (denied(None), 403, "RBAC: access denied".to_owned(), "-"),
        (expired(), 401, "Jwt is expired".to_owned(), "-"),
        (
            Refusal::NoDestination(StatusCode::SERVICE_UNAVAILABLE),
            503,
            "no healthy upstream".to_owned(),
            "UH",
        ),
        (UpstreamFault::ConnectFailed.into(), 503, format!("{reset}remote connection failure"), "UF"),
        (UpstreamFault::ConnectTimeout.into(), 503, format!("{reset}connection timeout"), "UF"),
        (UpstreamFault::ClosedBeforeHead.into(), 503, format!("{reset}connection termination"), "UC"),
        (UpstreamFault::Protocol.into(), 502, format!("{reset}protocol error"), "UPE"),
        (UpstreamFault::Timeout.into(), 504, "upstream request timeout".to_owned(), "UT"),
        (UpstreamFault::Overflow.into(), 503, format!("{reset}overflow"), "UO"),
        (Refusal::Limit(Exceeded::RequestBodyBytes), 413, "the request body is too large".to_owned(), "DPE"),
        (HeadError::MissingHost.into(), 400, "the Host header is missing".to_owned(), "DPE"),
        (HeadError::Version.into(), 426, "Upgrade Required".to_owned(), "DPE"),
        (HeadError::Expectation.into(), 417, "the expectation cannot be met".to_owned(), "DPE"),
        (TargetError::Nul.into(), 400, "the request target contains NUL".to_owned(), "DPE"),
    ];
    for (refusal, status, body, flag) in cases {
        assert_eq!(plain(&refusal), (status, body, text.clone()), "{refusal:?}");
        assert_eq!(flags(&refusal), flag, "{refusal:?}");
    }
}

#[test]
fn bodies_that_envoy_leaves_empty() {
    assert_eq!(plain(&Refusal::NoRoute), (404, String::new(), None));
    assert_eq!(plain(&Refusal::Internal("secret detail")), (500, String::new(), None));
    let invalid = Refusal::NoDestination(StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(plain(&invalid), (500, String::new(), None));
}

#[test]
fn statuses_of_limits() {
    let status = |exceeded| plain(&Refusal::Limit(exceeded)).0;
    assert_eq!(status(Exceeded::HeadBytes), 431);
    assert_eq!(status(Exceeded::HeaderCount), 431);
    assert_eq!(status(Exceeded::HeadTimeout), 408);
    assert_eq!(status(Exceeded::BodyIdleTimeout), 408);
    assert_eq!(status(Exceeded::Requests), 503);
    assert_eq!(status(Exceeded::RequestsPerWorkload), 503);
}

#[test]
fn a_refused_token_is_challenged() {
    let context = ReplyContext { realm: Some(realm("http", "h:80", "/a?b")), ..ReplyContext::default() };
    let challenge = |refusal: &Refusal| {
        let response = render(refusal, &context);
        response.headers().get(header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned())
    };
    let wanted = "Bearer realm=\"http://h:80/a?b\", error=\"invalid_token\"";
    assert_eq!(challenge(&expired()).as_deref(), Some(wanted));
    let missing = Refusal::Credentials(Rejection { reason: RejectionReason::Missing, origin: None });
    assert_eq!(challenge(&missing).as_deref(), Some("Bearer realm=\"http://h:80/a?b\""));
    let audience =
        Refusal::Credentials(Rejection { reason: RejectionReason::AudienceNotAllowed, origin: None });
    assert_eq!(challenge(&audience).as_deref(), Some(wanted), "403, and challenged all the same");
    assert_eq!(plain(&audience).0, 403);
    assert_eq!(challenge(&denied(None)), None);
}

#[test]
fn the_realm_is_bounded_and_stays_in_its_quotes() {
    let long = format!("/{}", "é\"".repeat(300));
    let realm = realm("https", "h", &long);
    assert!(realm.len() <= "https://h".len() + 3 * 256);
    assert!(!realm.contains('"'));
    assert!(realm.is_ascii());
}

#[test]
fn grpc_clients_get_a_status_in_the_head() {
    let with = |media_type: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        ReplyContext::of(&headers)
    };
    for media_type in ["application/grpc", "application/grpc+proto"] {
        let response = render(&denied(None), &with(media_type));
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers().get("grpc-status").unwrap(), "7");
        assert_eq!(response.headers().get("grpc-message").unwrap(), "RBAC: access denied");
        assert_eq!(response.headers().get("content-type").unwrap(), "application/grpc");
        assert!(response.body().is_empty());
    }
    let token = render(&expired(), &with("application/grpc"));
    assert_eq!(token.headers().get("grpc-status").unwrap(), "16");
    for media_type in ["application/grpc-web", "application/grpc-web+proto", "application/json"] {
        assert_eq!(with(media_type).grpc, Grpc::No);
        assert_eq!(render(&denied(None), &with(media_type)).status(), 403, "{media_type}");
    }
}

#[test]
fn fhir_clients_get_an_operation_outcome_of_the_same_status() {
    for refusal in [
        denied(None),
        expired(),
        UpstreamFault::Timeout.into(),
        HeadError::BadHost.into(),
        Refusal::Limit(Exceeded::Requests),
        Refusal::NoRoute,
        Refusal::Internal("x"),
    ] {
        let json = ReplyContext { fhir: Some(Format::Json), ..ReplyContext::default() };
        let response = render(&refusal, &json);
        assert_eq!(response.status().as_u16(), plain(&refusal).0);
        assert_eq!(response.headers().get("content-type").unwrap(), "application/fhir+json");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["resourceType"], "OperationOutcome", "{refusal:?}");
        assert!(!body["issue"][0]["diagnostics"].as_str().unwrap().is_empty());
    }
    let xml = ReplyContext { fhir: Some(Format::Xml), ..ReplyContext::default() };
    let response = render(&denied(None), &xml);
    assert_eq!(response.headers().get("content-type").unwrap(), "application/fhir+xml");
    assert!(response.body().starts_with(b"<?xml"));
}

#[test]
fn a_routes_own_answer_is_given_as_it_is() {
    let location = (header::LOCATION, HeaderValue::from_static("https://h/"));
    let refusal = Refusal::Answered(Box::new(RouteAnswer {
        status: StatusCode::MOVED_PERMANENTLY,
        headers: vec![location],
        body: String::new(),
        delay: None,
        details: "direct_response",
    }));
    let fhir = ReplyContext { fhir: Some(Format::Json), ..ReplyContext::default() };
    let response = render(&refusal, &fhir);
    assert_eq!(response.status(), 301);
    assert_eq!(response.headers().get("location").unwrap(), "https://h/");
    assert!(response.body().is_empty());
}

#[test]
fn details_are_envoys() {
    let rule = "ns[a]-policy[b]-rule[0]";
    let wanted = "rbac_access_denied_matched_policy[ns[a]-policy[b]-rule[0]]";
    assert_eq!(details(&denied(Some(rule))), wanted);
    assert_eq!(details(&denied(None)), "rbac_access_denied_matched_policy[none]");
    assert_eq!(details(&expired()), "jwt_authn_access_denied{Jwt_is_expired}");
    assert_eq!(details(&Refusal::NoRoute), "route_not_found");
    assert_eq!(details(&HeadError::BadHost.into()), "host_invalid");
    assert_eq!(refused(&TargetError::MatrixParameter.into()), Some("target_matrix_parameter"));
    assert_eq!(refused(&denied(None)), None);
}

/// Envoy joins what is repeated: `application/grpc, text/plain` is no gRPC, and its denial is plain.
#[test]
fn one_content_type_alone_makes_a_request_grpc() {
    let of = |types: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for one in types {
            headers.append(header::CONTENT_TYPE, HeaderValue::from_static(one));
        }
        Grpc::of(&headers)
    };
    for grpc in [&["application/grpc"][..], &["application/grpc+proto"]] {
        assert_eq!(of(grpc), Grpc::Yes);
    }
    let none: [&[&str]; 4] = [
        &[],
        &["application/grpc-web"],
        &["application/grpc", "text/plain"],
        &["application/grpc", "application/grpc"],
    ];
    for plain in none {
        assert_eq!(of(plain), Grpc::No, "{plain:?}");
    }
}
