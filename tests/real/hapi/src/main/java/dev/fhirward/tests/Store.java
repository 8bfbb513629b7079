package dev.fhirward.tests;

import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.rest.api.EncodingEnum;
import ca.uhn.fhir.rest.server.RestfulServer;
import ca.uhn.fhir.rest.server.provider.HashMapResourceProvider;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.hl7.fhir.instance.model.api.IBaseResource;

/** One in-memory provider per resource type, and a provider for transactions over them. */
final class Store extends RestfulServer {
    private static final List<String> TYPES = List.of(
            "AllergyIntolerance", "Binary", "Condition", "Consent", "DiagnosticReport", "Encounter", "Group", "List",
            "MedicationRequest", "Observation", "Organization", "Patient", "Practitioner", "Procedure");

    Store() {
        super(FhirContext.forR4());
    }

    @Override
    protected void initialize() {
        Map<String, HashMapResourceProvider<IBaseResource>> byType = new HashMap<>();
        for (String type : TYPES) {
            byType.put(type, provider(type));
        }
        var providers = new ArrayList<Object>(byType.values());
        providers.add(new Transactions(byType));
        registerProviders(providers);
        setDefaultResponseEncoding(EncodingEnum.JSON);
    }

    @SuppressWarnings("unchecked")
    private HashMapResourceProvider<IBaseResource> provider(String type) {
        var resource = (Class<IBaseResource>)
                getFhirContext().getResourceDefinition(type).getImplementingClass();
        return new HashMapResourceProvider<>(getFhirContext(), resource);
    }
}
