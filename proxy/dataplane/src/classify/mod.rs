//! What a request means in FHIR, where the workload serves FHIR. Today the interaction is told in
//! the record; rules by interaction (`FhirAccessPolicy`) will ask it later, and then an unknown call
//! is refused here by the workload's setting.

use fhir::Interaction;
use mesh::settings::FhirSettings;

use crate::identify::Identified;

/// A request with its FHIR interaction, if it has one. One maker: [`classify`].
#[derive(Debug)]
pub struct Classified {
    identified: Identified,
    interaction: Option<Interaction>,
}

impl Classified {
    pub(crate) fn interaction(&self) -> Option<&Interaction> {
        self.interaction.as_ref()
    }

    pub(crate) fn identified(&self) -> &Identified {
        &self.identified
    }

    pub(crate) fn into_identified(self) -> Identified {
        self.identified
    }
}

/// Reads method and target as FHIR's RESTful interactions below the workload's base.
pub(crate) fn classify(identified: Identified, fhir: Option<&FhirSettings>) -> Classified {
    let request = identified.request();
    let interaction = fhir.and_then(|settings| {
        fhir::classify(request.method(), request.target().path(), request.target().query(), &settings.base)
    });
    Classified { identified, interaction }
}
