//! Gateway API: HTTPRoutes, listeners, grants.

use std::time::Duration;

use super::*;

fn gateway(listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: kgw, namespace: datamesh}}\n\
         spec: {{gatewayClassName: istio, listeners: [{listeners}]}}\n---\n"
    )
}

const HTTP: &str = "{name: http, port: 8000, protocol: HTTP}";

fn route(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: datamesh}}\n\
         spec: {{parentRefs: [{{name: kgw}}], {spec}}}\n---\n"
    )
}

const BACKEND: &str = "backendRefs: [{name: fhir-service, port: 80}]";

fn at(snapshot: &Snapshot, line: &str, headers: &[&str]) -> String {
    told(&ask(line, headers).at(snapshot, &ingress(8000)))
}

/// One rule before a fallback route that answers 302.
fn one(rule: &str) -> Snapshot {
    let fallback = "rules: [{filters: [{type: RequestRedirect, requestRedirect: {hostname: other}}]}]";
    mesh(&(gateway(HTTP) + &route("a", &format!("rules: [{{{rule}}}]")) + &route("b", fallback)))
}

#[test]
fn matches_hold_as_the_gateway_api_says() {
    let cases: &[(&str, &str, &[&str], bool)] = &[
        ("path: {value: /fhir}", "GET http://h/fhir", &[], true),
        ("path: {value: /fhir}", "GET http://h/fhir/Patient", &[], true),
        ("path: {value: /fhir/}", "GET http://h/fhir", &[], true),
        ("path: {type: PathPrefix, value: /fhir}", "GET http://h/fhirx", &[], false),
        ("path: {type: Exact, value: /fhir}", "GET http://h/fhir/", &[], false),
        ("path: {type: RegularExpression, value: '/f.*'}", "GET http://h/fhir?x", &[], true),
        ("path: {type: RegularExpression, value: '/f'}", "GET http://h/fhir", &[], false),
        ("method: POST", "GET http://h/", &[], false),
        ("headers: [{name: X-A, value: v}]", "GET http://h/", &["x-a: v"], true),
        ("headers: [{name: X-A, value: v}, {name: x-a, value: w}]", "GET http://h/", &["x-a: v"], true),
        (
            "headers: [{type: RegularExpression, name: x-a, value: 'v+'}]",
            "GET http://h/",
            &["x-a: vvw"],
            false,
        ),
        ("queryParams: [{name: a, value: '1'}]", "GET http://h/?a=1&a=2", &[], true),
        ("queryParams: [{name: a, value: '2'}]", "GET http://h/?a=1&a=2", &[], false),
    ];
    for (spec, line, headers, wanted) in cases {
        let answer = at(&one(&format!("matches: [{{{spec}}}], {BACKEND}")), line, headers);
        assert_eq!(answer.starts_with("fhir:8080"), *wanted, "{spec} {line}: {answer}");
    }
}

#[test]
fn precedence_is_by_path_method_headers_parameters_age_and_name() {
    let rule = |matches: &str, name: &str| {
        format!(
            "{{matches: [{{{matches}}}], filters: [{{type: RequestRedirect, requestRedirect: {{hostname: {name}}}}}]}}"
        )
    };
    let rules = [
        rule("path: {type: RegularExpression, value: '/a/.*'}", "regex"),
        rule("path: {value: /}", "root"),
        rule("path: {value: /a}", "short"),
        rule("path: {value: /a/b}", "long"),
        rule("path: {value: /a/b}, headers: [{name: x, value: v}]", "header"),
        rule(
            "path: {value: /a/b}, headers: [{name: x, value: v}], queryParams: [{name: q, value: r}]",
            "parameter",
        ),
        rule("path: {value: /a/b}, method: PUT", "method"),
        rule("path: {type: Exact, value: /a/b}", "exact"),
    ];
    let spec = format!("rules: [{}]", rules.join(", "));
    let snapshot = mesh(&(gateway(HTTP) + &route("r", &spec)));
    let cases: &[(&str, &[&str], &str)] = &[
        ("GET http://h/a/b", &["x: v"], "exact"),
        ("PUT http://h/a/b/c", &["x: v"], "method"),
        ("GET http://h/a/b/c?q=r", &["x: v"], "parameter"),
        ("GET http://h/a/b/c", &["x: v"], "header"),
        ("GET http://h/a/b/c", &[], "long"),
        ("GET http://h/a/c", &[], "short"),
        ("GET http://h/c", &[], "root"),
    ];
    for (line, headers, wanted) in cases {
        let answer = at(&snapshot, line, headers);
        assert!(answer.starts_with(&format!("302 http://{wanted}:8000/")), "{line}: {answer}");
    }
    let redirect = |name: &str, stamp: &str| {
        route(name, &format!("rules: [{}]", rule("path: {value: /}", name)))
            .replace("namespace: datamesh}", &format!("namespace: datamesh{stamp}}}"))
    };
    let by_name = mesh(&(gateway(HTTP) + &redirect("b", "") + &redirect("a", "")));
    assert_eq!(at(&by_name, "GET http://h/", &[]), "302 http://a:8000/");
    let by_age = mesh(
        &(gateway(HTTP)
            + &redirect("a", ", creationTimestamp: '2026-02-01T00:00:00Z'")
            + &redirect("b", ", creationTimestamp: '2026-01-01T00:00:00Z'")),
    );
    assert_eq!(at(&by_age, "GET http://h/", &[]), "302 http://b:8000/");
}

#[test]
fn filters_rewrite_redirect_and_edit() {
    let cases = [
        (
            "matches: [{path: {value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]",
            "fhir:8080 /x",
        ),
        (
            "matches: [{path: {value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b/}}}]",
            "fhir:8080 /b/x",
        ),
        (
            "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]",
            "fhir:8080 /b/a/x",
        ),
        (
            "filters: [{type: URLRewrite, urlRewrite: {hostname: up.example, path: {type: ReplaceFullPath, replaceFullPath: /full}}}]",
            "fhir:8080 /full up.example",
        ),
        (
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: up.example}]}}]",
            "fhir:8080 up.example",
        ),
    ];
    for (rule, wanted) in cases {
        assert_eq!(at(&one(&format!("{rule}, {BACKEND}")), "GET http://h/a/x", &[]), wanted, "{rule}");
    }
    let redirects = [
        ("{scheme: https}", "302 https://h/a/x?q"),
        ("{scheme: https, port: 8443, statusCode: 301}", "301 https://h:8443/a/x?q"),
        ("{hostname: o}", "302 http://o:8000/a/x?q"),
        ("{port: 80}", "302 http://h:8001/a/x?q"),
        ("{path: {type: ReplaceFullPath, replaceFullPath: /n}, port: 81}", "302 http://h:81/n?q"),
        ("{path: {type: ReplacePrefixMatch, replacePrefixMatch: /n}, port: 81}", "302 http://h:81/n/x?q"),
    ];
    for (redirect, wanted) in redirects {
        let rule = format!(
            "matches: [{{path: {{value: /a}}}}], filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]"
        );
        assert_eq!(at(&one(&rule), "GET http://h:8001/a/x?q", &[]), wanted, "{redirect}");
    }
    let snapshot = one(
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: r}], remove: [x-r]}}, \
         {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: x-b, value: '50%'}]}}], \
         backendRefs: [{name: fhir-service, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x-c, value: b}]}}]}]",
    );
    let Routed::Forward(forward) = ask("GET http://h/", &[]).at(&snapshot, &ingress(8000)) else { panic!() };
    assert_eq!(edits(&forward.request_headers), "-[x-r] =[x-a=r] +[x-c=b]");
    assert_eq!(edits(&forward.response_headers), "-[] =[] +[x-b=50%]");
    assert_eq!(forward.route.as_ref(), "HTTPRoute datamesh/a rules[0]");
}

#[test]
fn bad_backends_get_their_share_of_500() {
    let cases = [
        ("backendRefs: [{name: nobody, port: 80}]", "no destination 500"),
        ("backendRefs: [{name: fhir-service, port: 81}]", "no destination 500"),
        ("backendRefs: [{name: fhir-service}]", "no destination 500"),
        ("backendRefs: [{group: x, kind: Bucket, name: b}]", "no destination 500"),
        ("backendRefs: [{name: fhir-service, port: 80, weight: 0}]", "=500 "),
        ("backendRefs: []", "=500 "),
        ("matches: []", "=500 "),
        (
            "filters: [{type: ExtensionRef, extensionRef: {group: x, kind: y, name: z}}], backendRefs: [{name: fhir-service, port: 80}]",
            "=500 ",
        ),
        (
            "filters: [{type: ExternalAuth, externalAuth: {}}], backendRefs: [{name: fhir-service, port: 80}]",
            "=500 ",
        ),
    ];
    for (rule, wanted) in cases {
        assert_eq!(at(&one(rule), "GET http://h/", &[]), wanted, "{rule}");
    }
    let none = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a, namespace: datamesh}\nspec: {parentRefs: [{name: kgw}]}\n";
    assert_eq!(at(&mesh(&(gateway(HTTP) + none)), "GET http://h/", &[]), "=500 ");
    let half =
        one("backendRefs: [{name: fhir-service, port: 80, weight: 3}, {name: nobody, port: 80, weight: 1}]");
    let failed = (0..10_000_u64)
        .filter(|dice| {
            told(&ask("GET http://h/", &[]).dice(*dice).at(&half, &ingress(8000))) == "no destination 500"
        })
        .count();
    assert!((2_300..2_700).contains(&failed), "{failed}");
}

#[test]
fn references_across_namespaces_need_a_grant() {
    let rule = "rules: [{backendRefs: [{name: keycloak, namespace: auth, port: 8080}]}]";
    let grant = |from: &str, to: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: auth}}\n\
             spec: {{from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: {from}}}], to: [{to}]}}\n---\n"
        )
    };
    let cases = [
        (String::new(), "no destination 500"),
        (grant("datamesh", "{group: '', kind: Service}"), "keycloak:9090"),
        (grant("datamesh", "{group: '', kind: Service, name: keycloak}"), "keycloak:9090"),
        (grant("datamesh", "{group: '', kind: Service, name: other}"), "no destination 500"),
        (grant("datamesh", "{group: '', kind: Secret}"), "no destination 500"),
        (grant("other", "{group: '', kind: Service}"), "no destination 500"),
    ];
    for (grant, wanted) in cases {
        let snapshot = mesh(&(gateway(HTTP) + &route("r", rule) + &grant));
        assert_eq!(at(&snapshot, "GET http://h/", &[]), wanted, "{grant}");
    }
}

#[test]
fn routes_attach_where_parents_and_listeners_agree() {
    let fhir = |parent: &str| route("r", &format!("rules: [{{{BACKEND}}}]")).replace("{name: kgw}", parent);
    let labelled = "apiVersion: v1\nkind: Namespace\nmetadata: {name: datamesh, labels: {team: a}}\n---\n";
    let far = |allowed: &str| {
        gateway(&format!("{{name: http, port: 8000, protocol: HTTP, allowedRoutes: {allowed}}}"))
            .replace("namespace: datamesh", "namespace: edge")
    };
    let there = "{name: kgw, namespace: edge}";
    let cases = [
        (gateway(HTTP), "{name: kgw}", true),
        (gateway(HTTP), "{name: kgw, sectionName: http, port: 8000}", true),
        (gateway(HTTP), "{name: kgw, sectionName: other}", false),
        (gateway(HTTP), "{name: kgw, port: 8001}", false),
        (gateway(HTTP), "{name: other}", false),
        (gateway(HTTP), "{group: '', kind: Service, name: kgw}", false),
        (far("{}"), there, false),
        (far("{namespaces: {from: Same}}"), there, false),
        (far("{namespaces: {from: None}}"), there, false),
        (far("{namespaces: {from: All}}"), there, true),
        (far("{namespaces: {from: All}, kinds: [{kind: HTTPRoute}]}"), there, true),
        (far("{namespaces: {from: All}, kinds: [{kind: GRPCRoute}]}"), there, false),
        (far("{namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}"), there, true),
        (far("{namespaces: {from: Selector, selector: {matchLabels: {team: b}}}}"), there, false),
        (
            far(
                "{namespaces: {from: Selector, selector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [datamesh]}]}}}",
            ),
            there,
            true,
        ),
        (
            far(
                "{namespaces: {from: Selector, selector: {matchExpressions: [{key: team, operator: DoesNotExist}]}}}",
            ),
            there,
            false,
        ),
    ];
    for (gateway, parent, wanted) in cases {
        let snapshot = mesh(&(labelled.to_owned() + &gateway + &fhir(parent)));
        let answer = at(&snapshot, "GET http://h/", &[]);
        assert_eq!(answer, if wanted { "fhir:8080" } else { "404" }, "{gateway} {parent}");
    }
}

#[test]
fn the_narrowest_listener_takes_a_host_alone() {
    let listeners = "{name: any, port: 8000, protocol: HTTP}, \
        {name: wide, port: 8000, protocol: HTTP, hostname: '*.example.com'}, \
        {name: narrow, port: 8000, protocol: HTTP, hostname: a.example.com}";
    let to = |name: &str, section: &str, hosts: &str| {
        route(name, &format!("hostnames: {hosts}, rules: [{{filters: [{{type: RequestRedirect, requestRedirect: {{hostname: {name}}}}}]}}]"))
            .replace("{name: kgw}", &format!("{{name: kgw, sectionName: {section}}}"))
    };
    let snapshot = mesh(
        &(gateway(listeners)
            + &to("any", "any", "[]")
            + &to("diverted", "any", "[b.example.com]")
            + &to("wide", "wide", "[b.example.com]")),
    );
    let cases = [
        ("x.org", "302 http://any:8000/"),
        ("b.example.com", "302 http://wide:8000/"),
        ("c.example.com", "404"),
        ("a.example.com", "404"),
    ];
    for (host, wanted) in cases {
        assert_eq!(at(&snapshot, &format!("GET http://{host}/"), &[]), wanted, "{host}");
    }
}

#[test]
fn gateways_are_served_by_name_or_class() {
    let manifests = |class: &str, more: &str| {
        mesh(
            &(gateway(HTTP).replace("gatewayClassName: istio", &format!("gatewayClassName: {class}"))
                + &route("r", &format!("rules: [{{{BACKEND}}}]"))
                + more),
        )
    };
    let own = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: mine}\nspec: {controllerName: istio.io/gateway-controller}\n";
    let foreign = own.replace("istio.io/gateway-controller", "other.io/controller");
    assert_eq!(at(&manifests("fhirward", ""), "GET http://h/", &[]), "fhir:8080");
    assert_eq!(at(&manifests("mine", own), "GET http://h/", &[]), "fhir:8080");
    assert_eq!(at(&manifests("mine", &foreign), "GET http://h/", &[]), "404");
    let named = |name: &str| GatewayKey {
        labels: BTreeMap::from([("gateway.networking.k8s.io/gateway-name".to_owned(), name.to_owned())]),
        port: 8000,
    };
    let foreign = manifests("mine", &foreign);
    let ask = ask("GET http://h/", &[]);
    assert_eq!(told(&ask.at(&foreign, &named("kgw"))), "fhir:8080");
    assert_eq!(told(&ask.at(&foreign, &named("other"))), "404");
    assert_eq!(foreign.gateway_workload(&named("kgw")).unwrap().name.to_string(), "datamesh/kgw-mine");
}

#[test]
fn https_listeners_answer_over_tls_only() {
    let listener = "{name: https, port: 8000, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}";
    let manifests = route("r", &format!("rules: [{{{BACKEND}}}]"));
    let snapshot = mesh(&(gateway(listener) + &manifests));
    assert_eq!(at(&snapshot, "GET http://h/", &[]), "404");
    assert_eq!(at(&snapshot, "GET https://h/", &[]), "fhir:8080");
    let mutual = listener.replace("tls: {", "tls: {frontendValidation: {caCertificateRefs: []}, ");
    assert!(refused(&gateway(&mutual)).contains("client certificates"));
}

#[test]
fn timeouts_retries_and_cors_are_compiled() {
    let forward = |rule: &str| {
        let snapshot = one(&format!("{rule}, {BACKEND}"));
        let Routed::Forward(forward) = ask("GET http://h/", &[]).at(&snapshot, &ingress(8000)) else {
            panic!()
        };
        (forward.timeout, forward.retries)
    };
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(forward("timeouts: {request: 10s}").0, seconds(10));
    assert_eq!(forward("timeouts: {request: 0s}").0, None);
    assert_eq!(forward("timeouts: {request: 10s, backendRequest: 2s}").0, seconds(2));
    let (timeout, retries) =
        forward("timeouts: {request: 10s, backendRequest: 2s}, retry: {attempts: 3, codes: [502]}");
    assert_eq!((timeout, retries.per_try_timeout, retries.attempts), (seconds(10), seconds(2), 3));
    assert_eq!(retries.on.statuses, [502]);
    let cors = |origins: &str| {
        let rule = format!(
            "filters: [{{type: CORS, cors: {{allowOrigins: {origins}, allowMethods: ['*'], allowCredentials: true}}}}], {BACKEND}"
        );
        let preflight = ["origin: https://a.example.com", "access-control-request-method: PUT"];
        at(&one(&rule), "OPTIONS http://h/", &preflight)
    };
    let allowed = "preflight access-control-allow-origin=https://a.example.com \
        access-control-allow-credentials=true access-control-allow-methods=PUT access-control-max-age=5";
    for origins in ["['*']", "['https://a.example.com']", "['https://*.example.com']"] {
        assert_eq!(cors(origins), allowed, "{origins}");
    }
    for origins in ["['https://b.example.com']", "['http://*.example.com']", "['https://*.com.evil']"] {
        assert_eq!(cors(origins), "preflight ", "{origins}");
    }
}

#[test]
fn what_cannot_be_honoured_is_refused_with_its_place() {
    let cases = [
        ("rules: [{matchs: []}]", "matchs"),
        ("rules: [{matches: [{path: {type: Prefix, value: /}}]}]", "none of Exact"),
        ("rules: [{matches: [{path: {value: x}}]}]", "begins with"),
        ("rules: [{matches: [{method: get}]}]", "no HTTP method"),
        ("rules: [{matches: [{headers: [{name: 'a b', value: c}]}]}]", "no header name"),
        ("rules: [{filters: [{type: Nonsense}]}]", "no filter"),
        ("rules: [{filters: [{type: URLRewrite}]}]", "urlRewrite"),
        (
            "rules: [{filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: a, port: 80}]}]",
            "beside backendRefs",
        ),
        (
            "rules: [{filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}]}]",
            "together",
        ),
        (
            "rules: [{filters: [{type: URLRewrite, urlRewrite: {}}, {type: URLRewrite, urlRewrite: {}}]}]",
            "twice",
        ),
        (
            "rules: [{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}]",
            "exactly one PathPrefix",
        ),
        ("hostnames: ['a*b']", "no host name"),
        ("rules: [{timeouts: {request: 10}}]", "string"),
    ];
    for (spec, wanted) in cases {
        let text = refused(&(gateway(HTTP) + &route("r", spec)));
        assert!(text.contains(wanted) && text.contains("test.yaml:"), "{spec}: {text}");
    }
}
