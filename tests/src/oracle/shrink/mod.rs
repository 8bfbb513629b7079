//! A disagreement to its smallest form: whatever can go goes, as long as the proxies still disagree in the same way.

mod judge;
mod request;
mod world;

use super::model::{Request, World};
use super::pair::Error;

pub use judge::Judge;

/// A world and a request in it.
pub type Subject = (World, Request);

/// Candidates that are tried at once.
const AT_ONCE: usize = 24;
/// No shrinking takes more steps.
const STEPS: usize = 300;

/// Says which candidates still show what is to be kept.
pub trait Still {
    /// One answer for each candidate.
    ///
    /// # Errors
    /// When they cannot be tried.
    fn still(&mut self, candidates: &[Subject]) -> impl Future<Output = Result<Vec<bool>, Error>>;
}

/// The smallest form that is found by leaving things out one by one.
///
/// # Errors
/// When candidates cannot be tried.
pub async fn smallest(start: Subject, judge: &mut impl Still) -> Result<Subject, Error> {
    let mut subject = start;
    let mut steps = 0;
    loop {
        let before = subject.clone();
        // Requests first: all of them are asked in one world, which costs least.
        descend(&mut subject, judge, &mut steps, |(world, request)| {
            request::smaller(request).into_iter().map(|request| (world.clone(), request)).collect()
        })
        .await?;
        descend(&mut subject, judge, &mut steps, |(world, request)| {
            world::smaller(world).into_iter().map(|world| (world, request.clone())).collect()
        })
        .await?;
        if subject == before || steps >= STEPS {
            return Ok(subject);
        }
    }
}

async fn descend(
    subject: &mut Subject,
    judge: &mut impl Still,
    steps: &mut usize,
    smaller: impl Fn(&Subject) -> Vec<Subject>,
) -> Result<(), Error> {
    'step: while *steps < STEPS {
        *steps += 1;
        let candidates = smaller(subject);
        for batch in candidates.chunks(AT_ONCE) {
            let kept = judge.still(batch).await?;
            if let Some(at) = kept.iter().position(|still| *still) {
                *subject = batch[at].clone();
                continue 'step;
            }
        }
        return Ok(());
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oracle::dice::Dice;
    use crate::oracle::generate;
    use crate::oracle::model::{Http, Policy, Text};
    use crate::oracle::translate::Normalization;

    /// An evaluator that is wrong in one way: it forgets a policy on `/admin` where the path has a `%` in it.
    struct Wrong;

    fn is_wrong((world, request): &Subject) -> bool {
        let asked = world.policies.iter().any(|policy| policy.spec.to_string().contains("\"/admin\""));
        asked && request.target.plain().starts_with(b"/") && request.target.plain().contains(&b'%')
    }

    impl Still for Wrong {
        async fn still(&mut self, candidates: &[Subject]) -> Result<Vec<bool>, Error> {
            Ok(candidates.iter().map(is_wrong).collect())
        }
    }

    #[tokio::test]
    async fn what_has_no_part_in_it_goes() {
        let mut world = generate::world(&mut Dice::new(11), 2);
        world.strict = true;
        let spec = json!({"action": "DENY", "selector": {"matchLabels": {"app": "fhir"}}, "rules": [
            {"to": [{"operation": {"methods": ["GET"], "paths": ["/b", "/admin"]}}, {"operation": {"hosts": ["x"]}}]},
            {"when": [{"key": "remote.ip", "values": ["10.0.0.0/8"]}]},
        ]});
        world.policies.push(Policy { root: true, dry_run: false, spec });
        let mut request = generate::request(&mut Dice::new(5), &world, generate::Clock(0));
        request.http = Http::V2;
        request.target = Text::raw("/x/%61/../y?z=1");

        let (world, request) = smallest((world, request), &mut Wrong).await.unwrap();
        assert!(
            world.authentications.is_empty() && !world.strict && world.normalization == Normalization::Base
        );
        let only = json!({"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/admin"]}}]}]});
        assert_eq!(world.policies, [Policy { root: false, dry_run: false, spec: only }]);
        assert_eq!(request, Request { target: Text::raw("/%"), ..Request::simple() });
    }
}
