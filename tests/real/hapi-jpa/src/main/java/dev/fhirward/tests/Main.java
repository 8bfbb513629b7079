package dev.fhirward.tests;

import ca.uhn.fhir.rest.server.RestfulServer;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.http2.server.HTTP2CServerConnectionFactory;
import org.eclipse.jetty.server.HttpConfiguration;
import org.eclipse.jetty.server.HttpConnectionFactory;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;

/**
 * The full HAPI FHIR JPA server (R4) on 127.0.0.1, HTTP/1.1 and h2c on one port, below {@code /fhir}.
 *
 * <p>Argument: the port, 0 for a free one. Once it serves, it prints {@code listening on PORT}.
 */
public final class Main {
    private Main() {}

    public static void main(String[] args) throws Exception {
        int port = args.length > 0 ? Integer.parseInt(args[0]) : 0;
        var context = new AnnotationConfigApplicationContext(Store.class);
        context.registerShutdownHook();

        var http = new HttpConfiguration();
        var jetty = new Server();
        var connector = new ServerConnector(
                jetty, new HttpConnectionFactory(http), new HTTP2CServerConnectionFactory(http));
        connector.setHost("127.0.0.1");
        connector.setPort(port);
        jetty.addConnector(connector);
        var servlets = new ServletContextHandler();
        servlets.setContextPath("/");
        servlets.addServlet(new ServletHolder(context.getBean(RestfulServer.class)), "/fhir/*");
        jetty.setHandler(servlets);
        jetty.setStopAtShutdown(true);
        jetty.start();
        System.out.println("listening on " + connector.getLocalPort());
        jetty.join();
    }
}
