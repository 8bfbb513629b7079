package dev.fhirward.tests;

import ca.uhn.fhir.rest.annotation.Transaction;
import ca.uhn.fhir.rest.annotation.TransactionParam;
import ca.uhn.fhir.rest.api.server.RequestDetails;
import ca.uhn.fhir.rest.server.exceptions.InvalidRequestException;
import ca.uhn.fhir.rest.server.provider.HashMapResourceProvider;
import java.util.Map;
import org.hl7.fhir.instance.model.api.IBaseResource;
import org.hl7.fhir.r4.model.Bundle;
import org.hl7.fhir.r4.model.IdType;
import org.hl7.fhir.r4.model.Resource;

/** Create, update, read and delete by Bundle. Entry by entry: what was done before a fault stays done. */
public final class Transactions {
    private final Map<String, HashMapResourceProvider<IBaseResource>> byType;

    Transactions(Map<String, HashMapResourceProvider<IBaseResource>> byType) {
        this.byType = byType;
    }

    @Transaction
    public Bundle transaction(@TransactionParam Bundle asked, RequestDetails details) {
        var answer = new Bundle();
        answer.setType(
                asked.getType() == Bundle.BundleType.BATCH
                        ? Bundle.BundleType.BATCHRESPONSE
                        : Bundle.BundleType.TRANSACTIONRESPONSE);
        for (var entry : asked.getEntry()) {
            answer.addEntry(perform(entry, details));
        }
        return answer;
    }

    private Bundle.BundleEntryComponent perform(Bundle.BundleEntryComponent entry, RequestDetails details) {
        String url = entry.getRequest().getUrl();
        var provider = byType.get(url.split("[/?]")[0]);
        if (provider == null || entry.getRequest().getMethod() == null) {
            throw new InvalidRequestException("no such resource type or method: " + url);
        }
        var done = new Bundle.BundleEntryComponent();
        var response = done.getResponse();
        switch (entry.getRequest().getMethod()) {
            case POST -> response.setStatus("201").setLocation(
                    provider.create(entry.getResource(), details).getId().getValue());
            case PUT -> {
                entry.getResource().setId(url);
                response.setStatus("200").setLocation(
                        provider.update(entry.getResource(), null, details).getId().getValue());
            }
            case GET -> {
                done.setResource((Resource) provider.read(new IdType(url), details));
                response.setStatus("200");
            }
            case DELETE -> {
                provider.delete(new IdType(url), details);
                response.setStatus("204");
            }
            default -> throw new InvalidRequestException("not supported in a Bundle: "
                    + entry.getRequest().getMethod());
        }
        return done;
    }
}
