//! Explanations: what was looked at, what was seen, never the token.

use std::sync::Arc;

use policy::istio::{JwtRule, KeySource};
use serde_json::json;

use super::{Ask, ISSUER, NOW, ask, bearer, claims, offline, rule, signer::Signer, with};

async fn steps(ask: &Ask, rules: &[JwtRule], signer: &Signer) -> Vec<String> {
    let authenticator = offline(&[(ISSUER, signer)]);
    let rules: Vec<Arc<JwtRule>> = rules.iter().cloned().map(Arc::new).collect();
    let (explained, steps) = ask.explained(&authenticator, &rules).await;
    let (again, _) = ask.explained(&authenticator, &rules).await;
    let plain = ask.of(&authenticator, &rules).await;
    for other in [again, plain] {
        let verdict = |result: &Result<crate::Authenticated, crate::Rejection>| match result {
            Ok(passed) => Ok(passed.identity.clone()),
            Err(rejection) => Err(rejection.clone()),
        };
        assert_eq!(verdict(&explained), verdict(&other), "explaining changes nothing");
    }
    steps
}

fn has(steps: &[String], part: &str) {
    assert!(steps.iter().any(|step| step.contains(part)), "{part:?} is not in {steps:#?}");
}

#[tokio::test]
async fn each_check_is_told_with_what_it_saw_and_without_the_token() {
    let signer = Signer::new("k", "ES256");
    let rules = [JwtRule { audiences: vec!["fhir".to_owned()], ..rule(ISSUER, KeySource::Discovery) }];
    let cases = [
        (
            json!({"aud": "account"}),
            r#"audience: no match: audience is "account", wanted one of ["fhir"]"#.to_owned(),
        ),
        (json!({"exp": 5}), format!("time: no match: nbf absent, exp 5, now {NOW}, allowed skew 60 s")),
        (json!({"iss": "x"}), format!(r#"issuer: no match: is "x", wanted "{ISSUER}""#)),
        (json!({"aud": "fhir"}), r#"signature: matched: kid "k" verifies"#.to_owned()),
    ];
    for (change, expected) in cases {
        let token = signer.token(&with(claims(ISSUER), change));
        let steps = steps(&bearer(&token), &rules, &signer).await;
        has(&steps, &expected);
        has(&steps, "RequestAuthentication ns/jwt");
        has(&steps, "jwt.yaml:3:5");
        has(&steps, "header authorization after \"Bearer \"");
        for part in token.split('.') {
            assert!(!steps.iter().any(|step| step.contains(part)), "{steps:#?}");
        }
    }
    let forged = Signer::new("other", "ES256").token(&with(claims(ISSUER), json!({"aud": "fhir"})));
    has(
        &steps(&bearer(&forged), &rules, &signer).await,
        r#"kid "other" is not among the 1 keys of discovery"#,
    );
    has(&steps(&bearer("garbage"), &rules, &signer).await, "form: no match: Jwt is not in the form");
    let none = steps(&ask(), &rules, &signer).await;
    has(&none, "no token in header authorization after \"Bearer \", query parameter access_token");
    has(&none, "the request goes on without identity");
}

#[tokio::test]
async fn lower_case_bearer_is_explained_as_no_token() {
    let signer = Signer::new("k", "ES256");
    let rules = [rule(ISSUER, KeySource::Discovery)];
    let ask = ask().header("authorization", &format!("bearer {}", signer.token(&claims(ISSUER))));
    has(&steps(&ask, &rules, &signer).await, "no token in header authorization after \"Bearer \"");
}
