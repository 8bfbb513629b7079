//! Labels of workloads and services, made once per snapshot instead of once per request.

use std::{collections::HashMap, sync::Arc};

use ahash::RandomState;
use arc_swap::ArcSwapOption;
use mesh::{Snapshot, Workload};
use observe::record::{Service, WorkloadLabels};
use policy::WorkloadName;

/// What records say of a workload.
#[derive(Debug)]
pub(crate) struct Card {
    pub(crate) labels: Arc<WorkloadLabels>,
    /// `spiffe://…`, its own.
    pub(crate) principal: Arc<str>,
    /// The services that pick it, the first being the one named where nobody says which.
    services: Vec<Service>,
}

impl Card {
    fn of(workload: &Workload) -> Self {
        Self {
            labels: Arc::new(labels(workload)),
            principal: workload.identity.to_string().into(),
            services: workload.services.iter().map(service).collect(),
        }
    }

    /// The service of that host, or the first where no host is given.
    pub(crate) fn service(&self, host: Option<&Arc<str>>) -> Service {
        let Some(host) = host else { return self.services.first().cloned().unwrap_or_default() };
        let same = |service: &&Service| service.host.as_ref() == Some(host);
        self.services.iter().find(same).cloned().unwrap_or_else(|| service_of_host(host))
    }
}

/// Istio's labels of a workload.
fn labels(workload: &Workload) -> WorkloadLabels {
    let label = |name: &str| workload.labels.get(name).filter(|value| !value.is_empty()).cloned();
    let name = workload.name.name.clone();
    let app = label("app").or_else(|| label("app.kubernetes.io/name"));
    let version = label("version").or_else(|| label("app.kubernetes.io/version"));
    WorkloadLabels {
        namespace: workload.name.namespace.clone(),
        canonical_service: label("service.istio.io/canonical-name")
            .or_else(|| app.clone())
            .unwrap_or_else(|| name.clone()),
        canonical_revision: label("service.istio.io/canonical-revision")
            .or_else(|| version.clone())
            .unwrap_or_else(|| "latest".to_owned()),
        app: app.unwrap_or_else(|| "unknown".to_owned()),
        version: version.unwrap_or_else(|| "unknown".to_owned()),
        workload: name,
    }
}

fn service(name: &WorkloadName) -> Service {
    Service {
        host: Some(format!("{}.{}.svc.cluster.local", name.name, name.namespace).into()),
        name: Some(name.name.as_str().into()),
        namespace: Some(name.namespace.as_str().into()),
    }
}

/// A host that no service of the workload has: `name.namespace.svc…` is taken apart, others stand
/// for themselves. Hosts come from routes, not from callers: their number is bounded.
pub(crate) fn service_of_host(host: &Arc<str>) -> Service {
    let mut parts = host.splitn(4, '.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(namespace), Some("svc")) => Service {
            host: Some(Arc::clone(host)),
            name: Some(name.into()),
            namespace: Some(namespace.into()),
        },
        _ => Service { host: Some(Arc::clone(host)), name: Some(Arc::clone(host)), namespace: None },
    }
}

/// The cards of one snapshot.
#[derive(Clone)]
struct Book {
    /// Held so that the addresses used as keys stay taken.
    snapshot: Arc<Snapshot>,
    cards: HashMap<usize, Arc<Card>, RandomState>,
}

/// The newest snapshot's cards. Writers agree: a card depends on its snapshot alone, so that of two
/// at once either may win.
#[derive(Default)]
pub(crate) struct Labels {
    book: ArcSwapOption<Book>,
}

impl Labels {
    /// The card of a workload of this snapshot.
    pub(crate) fn card(&self, snapshot: &Arc<Snapshot>, workload: &Arc<Workload>) -> Arc<Card> {
        let key = Arc::as_ptr(workload) as usize;
        let book = self.book.load();
        let known = book.as_ref().filter(|book| Arc::ptr_eq(&book.snapshot, snapshot));
        if let Some(card) = known.and_then(|book| book.cards.get(&key)) {
            return Arc::clone(card);
        }
        let card = Arc::new(Card::of(workload));
        // Workloads that only stand for gateways are not listed: they are added when first seen.
        let mut new = known.map_or_else(|| Book::of(snapshot), |book| Book::clone(book));
        new.cards.insert(key, Arc::clone(&card));
        self.book.store(Some(Arc::new(new)));
        card
    }
}

impl Book {
    fn of(snapshot: &Arc<Snapshot>) -> Self {
        let card = |workload: &Arc<Workload>| (Arc::as_ptr(workload) as usize, Arc::new(Card::of(workload)));
        let cards = snapshot.workloads().map(card).collect();
        Self { snapshot: Arc::clone(snapshot), cards }
    }
}
