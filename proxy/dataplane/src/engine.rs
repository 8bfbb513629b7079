//! What every request needs, passed in once: mesh, authenticator, limits.

use std::sync::Arc;

use identity::Authenticator;
use mesh::Snapshot;
use observe::Record;
use tokio::sync::watch;

use crate::{Limits, Refusal, accept::Connection, authorize::Permitted};

/// Shared by all connections.
pub struct Engine {
    pub(crate) mesh: watch::Receiver<Option<Arc<Snapshot>>>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) limits: Arc<Limits>,
}

/// A refused request: what to answer and the story so far.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// What is known so far for the record.
    pub story: Box<Record>,
    /// Whether the caller asked for FHIR and the workload serves it: OperationOutcome.
    pub fhir: Option<fhir_format::FhirFormat>,
}

/// The format of FHIR a client accepts.
pub mod fhir_format {
    /// JSON or XML.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum FhirFormat {
        /// `application/fhir+json`
        Json,
        /// `application/fhir+xml`
        Xml,
    }
}

impl Engine {
    /// The whole decision: admit, canonical head, gateway route, identify, classify, authorize.
    /// Live requests and offline ones (`fhirward test`, `explain`) come this way alike.
    ///
    /// # Errors
    /// [`Refused`], for `reply` and `record`.
    pub async fn decide(
        &self,
        _connection: &Connection,
        _head: http::request::Parts,
    ) -> Result<Permitted, Box<Refused>> {
        todo!()
    }
}
