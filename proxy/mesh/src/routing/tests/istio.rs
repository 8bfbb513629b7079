//! VirtualServices and Gateways of Istio, field by field.

use std::time::Duration;

use super::*;

/// One `http` entry with this match before a fallback that answers 200 `other`.
fn matching(spec: &str) -> Snapshot {
    mesh(&virtual_service(&format!(
        "  - match: [{{{spec}}}]\n{TO_FHIR}\n  - directResponse: {{status: 200, body: {{string: other}}}}"
    )))
}

#[test]
fn matches_hold_as_envoys_do() {
    const GET: &str = "GET http://h/fhir/Patient?a=1&b=&a=2&c";
    let cases: &[(&str, &str, &[&str], bool)] = &[
        ("uri: {exact: /fhir/Patient}", GET, &[], true),
        ("uri: {exact: /fhir}", GET, &[], false),
        ("uri: {prefix: /fhir/}", GET, &[], true),
        ("uri: {prefix: /fhi}", GET, &[], true),
        ("uri: {prefix: /FHIR}", GET, &[], false),
        ("uri: {prefix: /FHIR}, ignoreUriCase: true", GET, &[], true),
        ("uri: {exact: /FHIR/patient}, ignoreUriCase: true", GET, &[], true),
        ("uri: {regex: '/fhir/[A-Z]\\w+'}", GET, &[], true),
        ("uri: {regex: '/fhir'}", GET, &[], false),
        ("uri: {regex: '.*Patient.*a=1'}", GET, &[], false),
        ("method: {exact: GET}", GET, &[], true),
        ("method: {exact: POST}", GET, &[], false),
        ("method: {regex: 'GET|HEAD'}", GET, &[], true),
        ("scheme: {exact: https}", GET, &[], false),
        ("authority: {exact: h}", GET, &[], true),
        ("authority: {exact: h}", "GET http://h:80/", &[], false),
        ("authority: {prefix: 'h:'}", "GET http://h:80/", &[], true),
        ("headers: {x-a: {exact: v}}", GET, &["x-a: v"], true),
        ("headers: {X-A: {exact: v}}", GET, &["x-a: v"], true),
        ("headers: {x-a: {exact: v}}", GET, &["x-a: V"], false),
        ("headers: {x-a: {exact: v}}", GET, &[], false),
        ("headers: {x-a: {exact: v}}", GET, &["x-a: v", "x-a: w"], false),
        ("headers: {x-a: {exact: 'v,w'}}", GET, &["x-a: v", "x-a: w"], true),
        ("headers: {x-a: {prefix: v}}", GET, &["x-a: vw"], true),
        ("headers: {x-a: {regex: 'v.'}}", GET, &["x-a: vw"], true),
        ("headers: {x-a: {}}", GET, &["x-a: "], true),
        ("headers: {x-a: {regex: '*'}}", GET, &["x-a: anything"], true),
        ("headers: {x-a: {}}", GET, &[], false),
        ("withoutHeaders: {x-a: {}}", GET, &[], true),
        ("withoutHeaders: {x-a: {}}", GET, &["x-a: v"], false),
        ("withoutHeaders: {x-a: {exact: v}}", GET, &[], true),
        ("withoutHeaders: {x-a: {exact: v}}", GET, &["x-a: v"], false),
        ("withoutHeaders: {x-a: {exact: v}}", GET, &["x-a: w"], true),
        ("withoutHeaders: {x-a: {regex: '.*'}}", GET, &[], false),
        ("queryParams: {a: {exact: '1'}}", GET, &[], true),
        ("queryParams: {a: {exact: '2'}}", GET, &[], false),
        ("queryParams: {b: {exact: ''}}", GET, &[], true),
        ("queryParams: {c: {}}", GET, &[], true),
        ("queryParams: {d: {}}", GET, &[], false),
        ("queryParams: {a: {prefix: '1'}}", GET, &[], true),
        ("queryParams: {a: {regex: '[0-9]'}}", GET, &[], true),
        ("port: 80", GET, &[], true),
        ("port: 8080", GET, &[], false),
        ("gateways: [gw]", GET, &[], true),
        ("gateways: [datamesh/gw]", GET, &[], true),
        ("gateways: [mesh]", GET, &[], false),
        ("sourceLabels: {istio: ingressgateway}", GET, &[], true),
        ("sourceLabels: {app: other}", GET, &[], false),
        ("sourceNamespace: istio-system", GET, &[], true),
        ("sourceNamespace: datamesh", GET, &[], false),
        ("uri: {prefix: /fhir}, method: {exact: POST}", GET, &[], false),
    ];
    for (spec, line, headers, wanted) in cases {
        let answer = goes(&matching(spec), line, headers);
        assert_eq!(answer, if *wanted { "fhir:8080" } else { "=200 other" }, "{spec} {headers:?}");
    }
}

#[test]
fn a_match_takes_its_entry_alone_and_the_first_entry_wins() {
    let snapshot = mesh(&virtual_service(&format!(
        "  - match: [{{uri: {{prefix: /a}}}}, {{uri: {{prefix: /b}}, method: {{exact: GET}}}}]\n{TO_FHIR}\n  \
         - match: [{{uri: {{prefix: /ab}}}}]\n    directResponse: {{status: 200}}"
    )));
    let cases = [
        ("GET http://h/ab", "fhir:8080"),
        ("POST http://h/a", "fhir:8080"),
        ("POST http://h/b", "404"),
        ("GET http://h/b", "fhir:8080"),
        ("OPTIONS http://h/c", "404"),
    ];
    for (line, wanted) in cases {
        assert_eq!(goes(&snapshot, line, &[]), wanted, "{line}");
    }
}

#[test]
fn hosts_of_gateway_and_service_are_intersected() {
    // (gateway hosts, service hosts, request host, wanted)
    let cases = [
        ("[127.0.0.1]", "[\"*\"]", "127.0.0.1:8080", true),
        ("[127.0.0.1]", "[\"*\"]", "localhost", false),
        ("[\"*.example.com\"]", "[fhir.example.com]", "FHIR.Example.com", true),
        ("[\"*.example.com\"]", "[fhir.example.com]", "other.example.com", false),
        ("[\"*\"]", "[\"*.example.com\"]", "a.b.example.com", true),
        ("[\"*\"]", "[\"*.example.com\"]", "example.com", false),
        ("[datamesh/*]", "[h]", "h.datamesh.svc.cluster.local", true),
        ("[other/*]", "[h.com]", "h.com", false),
        ("[./*]", "[h.com]", "h.com", true),
        ("[\"*/h.com\"]", "[h.com]", "h.com", true),
        ("[a.com]", "[b.com]", "a.com", false),
    ];
    for (gateway, service, host, wanted) in cases {
        let gateway = format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: gw, namespace: datamesh}}\n\
             spec: {{selector: {{istio: ingressgateway}}, \
             servers: [{{port: {{number: 80, name: h, protocol: HTTP}}, hosts: {gateway}}}]}}\n---\n"
        );
        let service = named_service("vs", service, &format!("  -\n{TO_FHIR}"));
        let answer = goes(&mesh(&(gateway + &service)), &format!("GET http://{host}/"), &[]);
        assert_eq!(answer, if wanted { "fhir:8080" } else { "404" }, "{service} {host}");
    }
}

#[test]
fn services_of_one_host_are_merged_by_age_then_name_with_catch_alls_last() {
    let catch_all = |name: &str| {
        let http = format!("  - directResponse: {{status: 200, body: {{string: {name}}}}}");
        named_service(name, "[\"*\"]", &http)
    };
    let fhir = named_service(
        "z-fhir",
        "[\"*\"]",
        &format!("  - match: [{{uri: {{prefix: /fhir/}}}}]\n    rewrite: {{uri: /}}\n{TO_FHIR}"),
    );
    let snapshot = mesh(&(catch_all("a") + &catch_all("b") + &fhir));
    assert_eq!(goes(&snapshot, "GET http://h/fhir/Patient", &[]), "fhir:8080 /Patient");
    assert_eq!(goes(&snapshot, "GET http://h/realms", &[]), "=200 a");
    let old = catch_all("z").replace("{name: z,", "{name: z, creationTimestamp: \"2026-01-01T00:00:00Z\",");
    let new = catch_all("a").replace("{name: a,", "{name: a, creationTimestamp: \"2026-02-01T00:00:00Z\",");
    assert_eq!(goes(&mesh(&(new + &old)), "GET http://h/", &[]), "=200 z");
}

#[test]
fn gateways_are_selected_by_labels_port_and_name() {
    let service = virtual_service(&format!("  -\n{TO_FHIR}"));
    let snapshot = mesh(&service);
    let at = |key: &GatewayKey| told(&ask("GET http://h/", &[]).at(&snapshot, key));
    assert_eq!(at(&ingress(80)), "fhir:8080");
    assert_eq!(at(&ingress(8080)), "404");
    let mut other = ingress(80);
    other.labels.insert("istio".to_owned(), "egressgateway".to_owned());
    assert_eq!(at(&other), "404");
    other.labels.clear();
    assert_eq!(at(&other), "404");
    for gateways in ["[other]", "[auth/gw]", "[mesh]", "[]"] {
        let elsewhere = service.replace("gateways: [gw]", &format!("gateways: {gateways}"));
        assert_eq!(goes(&mesh(&elsewhere), "GET http://h/", &[]), "404", "{gateways}");
    }
    for gateways in ["[mesh, gw]", "[./gw]", "[datamesh/gw]", "[gw.datamesh.svc.cluster.local]"] {
        let here = service.replace("gateways: [gw]", &format!("gateways: {gateways}"));
        assert_eq!(goes(&mesh(&here), "GET http://h/", &[]), "fhir:8080", "{gateways}");
    }
    for (export, wanted) in
        [("[\".\"]", "404"), ("[\"*\"]", "fhir:8080"), ("[istio-system]", "fhir:8080"), ("[\"~\"]", "404")]
    {
        let exported =
            service.replace("  gateways: [gw]", &format!("  gateways: [gw]\n  exportTo: {export}"));
        assert_eq!(goes(&mesh(&exported), "GET http://h/", &[]), wanted, "{export}");
    }
}

#[test]
fn servers_of_https_answer_over_tls_only_and_redirect_where_asked() {
    let gateway = |tls: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: gw, namespace: datamesh}}\n\
             spec: {{selector: {{istio: ingressgateway}}, servers: [{{port: {{number: 80, name: h, {tls}, hosts: [h]}}]}}\n---\n"
        )
    };
    let service = virtual_service(&format!("  -\n{TO_FHIR}"));
    let https = mesh(&(gateway("protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: c}") + &service));
    assert_eq!(goes(&https, "GET http://h/", &[]), "404");
    assert_eq!(goes(&https, "GET https://h/", &[]), "fhir:8080");
    let redirect = mesh(&(gateway("protocol: HTTP}, tls: {httpsRedirect: true}") + &service));
    assert_eq!(goes(&redirect, "GET http://h:8080/a?b=c", &[]), "301 https://h:8080/a?b=c");
    assert_eq!(goes(&redirect, "GET https://h/", &[]), "fhir:8080");
    let alone = mesh(&gateway("protocol: HTTP}, tls: {httpsRedirect: true}"));
    assert_eq!(goes(&alone, "GET http://h/x", &[]), "301 https://h/x");
    for mode in ["MUTUAL", "ISTIO_MUTUAL"] {
        let text = refused(&gateway(&format!("protocol: HTTPS}}, tls: {{mode: {mode}, credentialName: c}}")));
        assert!(text.contains("client certificates"), "{text}");
    }
    assert!(warned(&gateway("protocol: TCP}")).contains("not served"));
}

#[test]
fn rewrites_change_path_and_authority() {
    let cases = [
        ("{prefix: /fhir/}", "{uri: /}", "/fhir/Patient?x=y", "fhir:8080 /Patient"),
        ("{prefix: /fhir}", "{uri: /}", "/fhir/Patient", "fhir:8080 //Patient"),
        ("{prefix: /}", "{uri: /}", "/Patient", "fhir:8080"),
        ("{exact: /old}", "{uri: /new}", "/old", "fhir:8080 /new"),
        ("{regex: '/o.*'}", "{uri: /new}", "/old/x", "fhir:8080 /new"),
        ("{prefix: /}", "{authority: up.example}", "/x", "fhir:8080 up.example"),
        (
            "{prefix: /}",
            "{uriRegexRewrite: {match: '^/r(\\d+)/(.*)', rewrite: '/\\2'}}",
            "/r4/Patient",
            "fhir:8080 /Patient",
        ),
    ];
    for (uri, rewrite, path, wanted) in cases {
        let snapshot = mesh(&virtual_service(&format!(
            "  - match: [{{uri: {uri}}}]\n    rewrite: {rewrite}\n{TO_FHIR}"
        )));
        assert_eq!(goes(&snapshot, &format!("GET http://h{path}"), &[]), wanted, "{uri} {rewrite}");
    }
}

#[test]
fn redirects_are_worded_as_envoy_words_them() {
    let cases = [
        ("{uri: /new}", "GET http://h:8080/a?b=c", "301 http://h:8080/new?b=c"),
        ("{uri: '/new?x=y'}", "GET http://h/a?b=c", "301 http://h/new?x=y"),
        ("{authority: other.example}", "GET http://h:8080/a", "301 http://other.example/a"),
        ("{scheme: https}", "GET http://h/a?b", "301 https://h/a?b"),
        ("{scheme: https}", "GET http://h:80/a", "301 https://h/a"),
        ("{scheme: https}", "GET http://h:8080/a", "301 https://h:8080/a"),
        ("{port: 8443, scheme: https}", "GET http://h:80/a", "301 https://h:8443/a"),
        ("{port: 443, scheme: https}", "GET http://h:8080/a", "301 https://h:8080/a"),
        ("{derivePort: FROM_REQUEST_PORT, authority: o}", "GET http://h/a", "301 http://o/a"),
        ("{redirectCode: 308}", "GET http://h/a", "308 http://h/a"),
    ];
    for (redirect, line, wanted) in cases {
        let snapshot = mesh(&virtual_service(&format!("  - redirect: {redirect}")));
        assert_eq!(goes(&snapshot, line, &[]), wanted, "{redirect} {line}");
    }
}

#[test]
fn direct_responses_and_faults_answer_themselves() {
    let snapshot = mesh(&virtual_service("  - directResponse: {status: 418, body: {bytes: dGVh}}"));
    assert_eq!(goes(&snapshot, "GET http://h/", &[]), "=418 tea");
    let fault = |fault: &str| mesh(&virtual_service(&format!("  - fault: {fault}\n{TO_FHIR}")));
    let abort = fault(
        "{abort: {httpStatus: 503, percentage: {value: 100}}, delay: {fixedDelay: 2s, percentage: {value: 100}}}",
    );
    assert_eq!(goes(&abort, "GET http://h/", &[]), "=503 fault filter abort after 2s");
    assert_eq!(goes(&fault("{abort: {httpStatus: 503}}"), "GET http://h/", &[]), "fhir:8080");
    let delay = fault("{delay: {fixedDelay: 100ms, percent: 100}}");
    let Routed::Forward(forward) = ask("GET http://h/", &[]).at(&delay, &ingress(80)) else { panic!() };
    assert_eq!(forward.delay, Some(Duration::from_millis(100)));
    let some = fault("{abort: {httpStatus: 503, percentage: {value: 30}}}");
    let aborted = (0..10_000_u64)
        .filter(|dice| told(&ask("GET http://h/", &[]).dice(*dice).at(&some, &ingress(80))).starts_with('='))
        .count();
    assert!((2_700..3_300).contains(&aborted), "{aborted}");
}

#[test]
fn weights_share_requests() {
    let snapshot = mesh(&virtual_service(
        "  - route:\n    - {destination: {host: fhir-service}, weight: 75}\n    \
         - {destination: {host: keycloak.auth.svc.cluster.local}, weight: 25}\n    \
         - {destination: {host: none}, weight: 0}",
    ));
    let fhir = (0..10_000_u64)
        .filter(|dice| {
            told(&ask("GET http://h/", &[]).dice(*dice).at(&snapshot, &ingress(80))) == "fhir:8080"
        })
        .count();
    assert!((7_200..7_800).contains(&fhir), "{fhir}");
}

#[test]
fn timeouts_and_retries_are_istiods() {
    let forward = |spec: &str| {
        let snapshot = mesh(&virtual_service(&format!("  - name: x\n{spec}\n{TO_FHIR}")));
        let Routed::Forward(forward) = ask("GET http://h/", &[]).at(&snapshot, &ingress(80)) else {
            panic!()
        };
        forward
    };
    let plain = forward("");
    assert_eq!((plain.timeout, plain.retries.attempts), (None, 2));
    assert!(plain.retries.on.connect_failure && plain.retries.on.statuses.is_empty());
    assert_eq!(plain.route.as_ref(), "VirtualService datamesh/vs http[0] x");
    assert_eq!(plain.host.as_ref(), "fhir-service.datamesh.svc.cluster.local");
    assert_eq!(forward("    timeout: 1.5s").timeout, Some(Duration::from_millis(1500)));
    assert_eq!(forward("    timeout: 0s").timeout, None);
    let retries = forward("    retries: {attempts: 3, perTryTimeout: 2s, retryOn: '5xx,429'}").retries;
    assert_eq!((retries.attempts, retries.per_try_timeout), (3, Some(Duration::from_secs(2))));
    assert!(retries.on.server_error && retries.on.statuses == [429]);
    assert_eq!(forward("    retries: {attempts: 0}").retries.attempts, 0);
}

#[test]
fn header_edits_of_route_and_destination_are_folded() {
    let forward = |spec: &str| {
        let snapshot = mesh(&virtual_service(spec));
        let Routed::Forward(forward) = ask("GET http://h/", &[]).at(&snapshot, &ingress(80)) else {
            panic!()
        };
        (edits(&forward.request_headers), edits(&forward.response_headers), forward.authority)
    };
    let (request, response, host) = forward(
        "  - headers: {request: {set: {x-a: route, host: up.example}, remove: [x-r]}, response: {add: {x-b: '1'}}}\n    \
         route: [{destination: {host: fhir-service}, headers: {request: {set: {x-a: own}, add: {x-c: '2'}}, response: {remove: [server]}}}]",
    );
    assert_eq!(request, "-[x-r] =[x-a=own] +[x-c=2]");
    assert_eq!(response, "-[server] =[] +[x-b=1]");
    assert_eq!(host.as_deref(), Some("up.example"));
    let (request, ..) = forward(
        "  - headers: {request: {set: {x-a: route}}}\n    route:\n    \
         - {destination: {host: fhir-service}, weight: 1, headers: {request: {set: {x-a: own}}}}\n    \
         - {destination: {host: fhir-service}, weight: 1, headers: {request: {set: {x-a: own}}}}",
    );
    assert_eq!(request, "-[] =[x-a=route] +[]");
}

#[test]
fn cors_answers_preflights_and_marks_responses() {
    let snapshot = |more: &str| {
        mesh(&virtual_service(&format!(
            "  - corsPolicy: {{allowOrigins: [{{exact: 'https://a'}}, {{regex: 'https://.*\\.b'}}], \
             allowMethods: [GET, POST], allowHeaders: [x-h], exposeHeaders: [x-e], maxAge: 1m, allowCredentials: true{more}}}\n{TO_FHIR}"
        )))
    };
    let plain = snapshot("");
    let preflight =
        |origin: &str| vec![format!("origin: {origin}"), "access-control-request-method: GET".to_owned()];
    let go = |snapshot: &Snapshot, method: &str, headers: Vec<String>| {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let routed = ask(&format!("{method} http://h/"), &headers).at(snapshot, &ingress(80));
        match &routed {
            Routed::Forward(forward) => format!("forward {}", pairs(&forward.cors)),
            other => told(other),
        }
    };
    let answer = "preflight access-control-allow-origin=https://a access-control-allow-credentials=true \
                  access-control-allow-methods=GET,POST access-control-allow-headers=x-h access-control-max-age=60";
    assert_eq!(go(&plain, "OPTIONS", preflight("https://a")), answer);
    assert!(go(&plain, "OPTIONS", preflight("https://x.b")).starts_with("preflight"));
    assert_eq!(go(&plain, "OPTIONS", preflight("https://x.b.evil")), "forward ");
    assert_eq!(
        go(&snapshot(", unmatchedPreflights: IGNORE"), "OPTIONS", preflight("https://evil")),
        "preflight "
    );
    assert_eq!(
        go(&plain, "OPTIONS", vec!["origin: https://a".to_owned()]),
        "forward access-control-allow-origin=https://a access-control-allow-credentials=true access-control-expose-headers=x-e"
    );
    assert_eq!(go(&plain, "GET", preflight("https://evil")), "forward ");
    assert_eq!(go(&plain, "GET", vec![]), "forward ");
}

#[test]
fn what_cannot_be_honoured_is_refused_with_its_place() {
    let cases = [
        ("  - delegate: {name: d}", "delegates"),
        ("  - match: [{uri: {prefx: /}}]\n    route: []", "prefx"),
        ("  - match: [{uri: {prefix: /, exact: /}}]\n    redirect: {uri: /}", "only one"),
        ("  - match: [{uri: {regex: '('}}]\n    redirect: {uri: /}", "RE2"),
        ("  - match: [{headers: {'@request.auth.claims.x': {exact: y}}}]\n    redirect: {uri: /}", "claims"),
        ("  - name: nothing", "exactly one of"),
        ("  - redirect: {uri: /a}\n    directResponse: {status: 200}", "exactly one of"),
        ("  - redirect: {uri: /a, redirectCode: 305}", "305"),
        ("  - redirect: {uri: 'a'}", "no path"),
        ("  - redirect: {authority: 'a/b'}", "no host"),
        ("  - directResponse: {status: 99}", "99"),
        ("  - fault: {abort: {grpcStatus: UNAVAILABLE}}\n    redirect: {uri: /}", "httpStatus"),
        ("  - timeout: 5\n    redirect: {uri: /}", "string"),
        ("  - retries: {attempts: 1, retryOn: nonsense}\n    route: [{destination: {host: x}}]", "nonsense"),
        (
            "  - headers: {request: {set: {x: '%START_TIME%'}}}\n    route: [{destination: {host: x}}]",
            "operators",
        ),
        ("  - corsPolicy: {allowOrigins: [{}]}\n    redirect: {uri: /}", "exact"),
        ("  - rewrite: {uri: 'x'}\n    route: [{destination: {host: x}}]", "no path"),
        ("  - route: [{destination: {host: a}, weight: 0}, {destination: {host: b}, weight: 0}]", "weight"),
        ("  - route: [{destination: {host: a, port: {number: 70000}}}]", "70000"),
    ];
    for (http, wanted) in cases {
        let text = refused(&virtual_service(http));
        assert!(text.contains(wanted) && text.contains("test.yaml:"), "{http}: {text}");
    }
    let unknown = virtual_service("  - redirect: {uri: /}").replace("  gateways", "  gatewayz");
    assert!(refused(&unknown).contains("gatewayz"), "{}", refused(&unknown));
    let kind =
        virtual_service("  - redirect: {uri: /}").replace("kind: VirtualService", "kind: VirtualServce");
    assert!(refused(&kind).contains("no kind"), "{}", refused(&kind));
    let version = virtual_service("  - redirect: {uri: /}").replace("istio.io/v1", "istio.io/v2");
    assert!(refused(&version).contains("no version"), "{}", refused(&version));
}

#[test]
fn what_does_not_narrow_is_warned_of() {
    let mirror = virtual_service(&format!("  - mirror: {{host: x}}\n{TO_FHIR}"));
    assert!(warned(&mirror).contains("mirroring"), "{}", warned(&mirror));
    let unknown = virtual_service("  - route: [{destination: {host: nobody}}]");
    assert!(warned(&unknown).contains("unknown-destination"), "{}", warned(&unknown));
    assert_eq!(goes(&mesh(&unknown), "GET http://h/", &[]), "no destination 503");
}
