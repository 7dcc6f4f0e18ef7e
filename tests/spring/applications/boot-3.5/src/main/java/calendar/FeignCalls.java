package calendar;

import java.net.URI;

import javax.net.ssl.HttpsURLConnection;

import feign.Client;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.boot.ssl.SslBundles;
import org.springframework.cloud.openfeign.EnableFeignClients;
import org.springframework.cloud.openfeign.FeignClient;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;

/** Calls by OpenFeign, which has no property for a bundle: each client is given a `Client` made of one. */
@RestController
@ConditionalOnProperty("mtlsctl.callees.ledger.url")
public class FeignCalls {

    private final Ledger ledger;

    public FeignCalls(Ledger ledger) {
        this.ledger = ledger;
    }

    @GetMapping("/withFeign")
    public ResponseEntity<String> withFeign(@RequestParam("url") URI url) {
        return Answers.of(() -> ledger.greeting(url));
    }

    @FeignClient(name = "ledger", url = "${mtlsctl.callees.ledger.url}", configuration = OfLedger.class)
    interface Ledger {

        /** `base` takes the place of the client's own URL, so that a test can ask elsewhere. */
        @GetMapping("/")
        String greeting(URI base);
    }

    @Configuration(proxyBeanMethods = false)
    @ConditionalOnProperty("mtlsctl.callees.ledger.url")
    @EnableFeignClients
    static class Feign {
    }

    /** Deliberately no `@Configuration`: that would make it the default of every client. */
    static class OfLedger {

        @Bean
        Client client(SslBundles bundles) {
            return new Client.Default(bundles.getBundle("ledger").createSslContext().getSocketFactory(),
                    HttpsURLConnection.getDefaultHostnameVerifier());
        }
    }
}
