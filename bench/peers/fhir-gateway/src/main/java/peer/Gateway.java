package peer;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.web.servlet.ServletComponentScan;

/** Starts the gateway's own servlet and checkers; settings come by environment and arguments. */
@SpringBootApplication(scanBasePackages = "com.google.fhir.gateway")
@ServletComponentScan("com.google.fhir.gateway")
public class Gateway {
    public static void main(String[] arguments) {
        SpringApplication.run(Gateway.class, arguments);
    }
}
