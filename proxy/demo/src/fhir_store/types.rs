//! The resource types of each release (resourcelist.html of R4 and R5), sorted for the search.

use super::FhirVersion;

/// Types of both releases.
#[rustfmt::skip]
const BOTH: &[&str] = &[
    "Account", "ActivityDefinition", "AdverseEvent", "AllergyIntolerance", "Appointment",
    "AppointmentResponse", "AuditEvent", "Basic", "Binary", "BiologicallyDerivedProduct",
    "BodyStructure", "Bundle", "CapabilityStatement", "CarePlan", "CareTeam", "ChargeItem",
    "ChargeItemDefinition", "Claim", "ClaimResponse", "ClinicalImpression", "CodeSystem",
    "Communication", "CommunicationRequest", "CompartmentDefinition", "Composition",
    "ConceptMap", "Condition", "Consent", "Contract", "Coverage", "CoverageEligibilityRequest",
    "CoverageEligibilityResponse", "DetectedIssue", "Device", "DeviceDefinition",
    "DeviceMetric", "DeviceRequest", "DiagnosticReport", "DocumentReference", "Encounter",
    "Endpoint", "EnrollmentRequest", "EnrollmentResponse", "EpisodeOfCare", "EventDefinition",
    "Evidence", "EvidenceVariable", "ExampleScenario", "ExplanationOfBenefit",
    "FamilyMemberHistory", "Flag", "Goal", "GraphDefinition", "Group", "GuidanceResponse",
    "HealthcareService", "ImagingStudy", "Immunization", "ImmunizationEvaluation",
    "ImmunizationRecommendation", "ImplementationGuide", "InsurancePlan", "Invoice", "Library",
    "Linkage", "List", "Location", "Measure", "MeasureReport", "Medication",
    "MedicationAdministration", "MedicationDispense", "MedicationKnowledge",
    "MedicationRequest", "MedicationStatement", "MessageDefinition", "MessageHeader",
    "MolecularSequence", "NamingSystem", "NutritionOrder", "Observation",
    "ObservationDefinition", "OperationDefinition", "OperationOutcome", "Organization",
    "OrganizationAffiliation", "Parameters", "Patient", "PaymentNotice",
    "PaymentReconciliation", "Person", "PlanDefinition", "Practitioner", "PractitionerRole",
    "Procedure", "Provenance", "Questionnaire", "QuestionnaireResponse", "RelatedPerson",
    "ResearchStudy", "ResearchSubject", "RiskAssessment", "Schedule", "SearchParameter",
    "ServiceRequest", "Slot", "Specimen", "SpecimenDefinition", "StructureDefinition",
    "StructureMap", "Subscription", "Substance", "SubstanceNucleicAcid", "SubstancePolymer",
    "SubstanceProtein", "SubstanceReferenceInformation", "SubstanceSourceMaterial",
    "SupplyDelivery", "SupplyRequest", "Task", "TerminologyCapabilities", "TestReport",
    "TestScript", "ValueSet", "VerificationResult", "VisionPrescription",
];

/// Types that R5 no longer has.
#[rustfmt::skip]
const ONLY_R4: &[&str] = &[
    "CatalogEntry", "DeviceUseStatement", "DocumentManifest", "EffectEvidenceSynthesis",
    "Media", "MedicinalProduct", "MedicinalProductAuthorization",
    "MedicinalProductContraindication", "MedicinalProductIndication",
    "MedicinalProductIngredient", "MedicinalProductInteraction", "MedicinalProductManufactured",
    "MedicinalProductPackaged", "MedicinalProductPharmaceutical",
    "MedicinalProductUndesirableEffect", "RequestGroup", "ResearchDefinition",
    "ResearchElementDefinition", "RiskEvidenceSynthesis", "SubstanceSpecification",
];

/// Types that R4 does not have yet.
#[rustfmt::skip]
const ONLY_R5: &[&str] = &[
    "ActorDefinition", "AdministrableProductDefinition", "ArtifactAssessment",
    "BiologicallyDerivedProductDispense", "Citation", "ClinicalUseDefinition",
    "ConditionDefinition", "DeviceAssociation", "DeviceDispense", "DeviceUsage",
    "EncounterHistory", "EvidenceReport", "FormularyItem", "GenomicStudy", "ImagingSelection",
    "Ingredient", "InventoryItem", "InventoryReport", "ManufacturedItemDefinition",
    "MedicinalProductDefinition", "NutritionIntake", "NutritionProduct",
    "PackagedProductDefinition", "Permission", "RegulatedAuthorization", "RequestOrchestration",
    "Requirements", "SubscriptionStatus", "SubscriptionTopic", "SubstanceDefinition",
    "TestPlan", "Transport",
];

fn only(version: FhirVersion) -> &'static [&'static str] {
    match version {
        FhirVersion::R4 => ONLY_R4,
        FhirVersion::R5 => ONLY_R5,
    }
}

/// Whether the release has this type.
pub(super) fn knows(version: FhirVersion, kind: &str) -> bool {
    BOTH.binary_search(&kind).is_ok() || only(version).binary_search(&kind).is_ok()
}

/// Every type of the release.
pub(super) fn all(version: FhirVersion) -> impl Iterator<Item = &'static str> {
    BOTH.iter().chain(only(version)).copied()
}
