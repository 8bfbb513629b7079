//! The oracle: our proxy beside a real Envoy, asked the same.
//!
//! `FHIRWARD_ORACLE_SEED` and `FHIRWARD_ORACLE_REQUESTS` choose other requests, and more of them. A disagreement is
//! printed in its smallest form, as a PolicyTest file that expects what Envoy did.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::json;
use tests::oracle::dice::Dice;
use tests::oracle::generate;
use tests::oracle::model::{Policy, Ring, Signed, World};
use tests::oracle::pair::{Error, Pair};
use tests::oracle::print::policy_test;
use tests::oracle::run::{Disagreement, Findings, Options, clock, disagreement, run, unexplained};
use tests::oracle::shrink::{Judge, smallest};
use tests::oracle::translate::Normalization;
use tests::oracle::view::Delta;

const SEED: u64 = 20_261_122;
const REQUESTS: u64 = 20_000;
/// Disagreements that are shrunk; the rest is only counted.
const SHOWN: usize = 3;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

fn same(world: &World) -> World {
    world.clone()
}

/// A disagreement in its smallest form, as a file.
async fn shrunk(
    found: &Disagreement,
    wanted: &Delta,
    ours: fn(&World) -> World,
) -> Result<(Disagreement, String), Error> {
    let ring = Ring::generate();
    let signed = Signed::new(&ring);
    let mut judge = Judge::new(wanted.clone(), &signed, ours);
    let subject = smallest((found.world.clone(), found.request.clone()), &mut judge).await?;
    let found = judge.look(&subject).await?;
    let text = policy_test(&found, &signed, clock());
    Ok((found, text))
}

async fn show(what: &str, findings: &[Disagreement]) {
    for found in findings {
        println!("{what}: {:?} {:?} {:?}", found.world.authentications, found.request, found.deltas);
    }
    for found in findings.iter().take(SHOWN) {
        println!("--- {what}: {:?}", found.deltas);
        let wanted = found.deltas.first().expect("something differs");
        match shrunk(found, wanted, same).await {
            Ok((_, text)) => println!("{text}"),
            Err(error) => println!("not shrunk ({error}): {:?}\n{:?}", found.world, found.request),
        }
    }
}

fn tell(options: Options, findings: &Findings) {
    let Findings { compared, forwarded, denied, unauthenticated, .. } = findings;
    println!(
        "seed {}: {compared} requests, {forwarded} forwarded by both, {denied} denied, {unauthenticated} with a bad token",
        options.seed
    );
    for (entry, hits) in &findings.hits {
        let told = if *hits == 0 { "NOT SEEN".to_owned() } else { hits.to_string() };
        println!("{told:>8}  {}: {} ({})", entry.what, entry.here, entry.reason);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_do_what_envoy_does() {
    let seed = number("FHIRWARD_ORACLE_SEED", SEED);
    let requests = usize::try_from(number("FHIRWARD_ORACLE_REQUESTS", REQUESTS)).unwrap();
    let options = Options { seed, requests };
    let findings = run(options).await.unwrap();
    tell(options, &findings);
    let Findings { compared, forwarded, denied, unauthenticated, .. } = findings;
    assert!(compared >= requests);
    // Where nearly everything is refused for its form, policies are hardly compared.
    assert!([forwarded, denied, unauthenticated].iter().all(|count| count * 20 > compared));
    let (disagreements, changed) = (&findings.disagreements, &findings.changed_by_cache);
    show("disagreement", disagreements).await;
    show("changed once the token was known", changed).await;
    let count = (disagreements.len(), changed.len());
    assert_eq!(
        count,
        (0, 0),
        "seed {seed}: requests on which the proxies differ, and on which ours changed its mind"
    );
}

/// Forgets a value of a policy: what a bug in a compiler of policies might do.
fn forgetful(world: &World) -> World {
    let mut world = world.clone();
    for policy in &mut world.policies {
        if let Some(paths) = policy.spec.pointer_mut("/rules/0/to/0/operation/paths") {
            paths.as_array_mut().unwrap().retain(|path| path != "/admin");
            paths.as_array_mut().unwrap().push(json!("/nowhere"));
        }
    }
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_bug_is_found_and_shrunk_to_a_policy_test() {
    let deny = json!({"action": "DENY", "rules": [
        {"to": [{"operation": {"paths": ["/b", "/admin", "/c*"]}}]},
        {"when": [{"key": "request.headers[x-tag]", "values": ["a"]}]},
    ]});
    let mut world = World::open(Normalization::MergeSlashes);
    world.policies.push(Policy { root: false, dry_run: false, spec: deny });
    world.policies.push(Policy { root: true, dry_run: false, spec: json!({"rules": [{}]}) });
    let ring = Ring::generate();
    let signed = Signed::new(&ring);
    let (worlds, planted) = ([world.clone()], [forgetful(&world)]);
    let pair = Pair::start_unequal(&worlds, &planted, &signed).await.unwrap();
    let (mut lane, mut dice, mut found) = (pair.lane(0), Dice::new(SEED), None);
    for _ in 0..2_000 {
        let request = generate::request(&mut dice, &world, clock());
        let (envoy, ours) = lane.ask(&request, &signed).await.unwrap();
        let mut table: Vec<_> =
            tests::oracle::differences::all().into_iter().map(|entry| (entry, 0)).collect();
        let next = disagreement(&world, &request, envoy, ours);
        let deltas = unexplained(&next, &mut table);
        if !deltas.is_empty() {
            found = Some(Disagreement { deltas, ..next });
            break;
        }
    }
    let found = found.expect("the generator finds the planted bug");
    let (smallest, text) = shrunk(&found, &found.deltas[0], forgetful).await.unwrap();
    println!("{text}");
    let rule = json!({"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/admin"]}}]}]});
    assert_eq!(smallest.world.policies.len(), 1, "{text}");
    assert_eq!(smallest.world.policies[0].spec, rule, "{text}");
    assert!(
        smallest.request.headers.is_empty() && smallest.request.target.plain().len() <= "//admin#".len(),
        "{text}"
    );

    // What is printed is a PolicyTest: it holds for the policy as it was written.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("found.yaml");
    std::fs::write(&file, &text).unwrap();
    let report = std::process::Command::new(tests::harness::binary().unwrap())
        .arg("test")
        .arg(&file)
        .output()
        .unwrap();
    assert!(report.status.success(), "{text}\n{}", String::from_utf8_lossy(&report.stdout));
}
