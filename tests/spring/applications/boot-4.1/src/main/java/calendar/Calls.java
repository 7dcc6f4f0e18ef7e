package calendar;

import java.net.URI;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

import org.springframework.boot.restclient.autoconfigure.RestClientSsl;
import org.springframework.boot.ssl.SslBundle;
import org.springframework.boot.ssl.SslBundles;
import org.springframework.boot.ssl.SslStoreBundle;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.client.RestClient;

/** Calls by RestClient; each callee has an SSL bundle of its name. */
@RestController
public class Calls {

    private final Map<String, RestClient> clients = new ConcurrentHashMap<>();
    private final SslBundles bundles;
    private final RestClientSsl ssl;

    public Calls(SslBundles bundles, RestClientSsl ssl) {
        this.bundles = bundles;
        this.ssl = ssl;
    }

    /** Believes what the JVM believes. */
    @GetMapping("/withoutBundle")
    public ResponseEntity<String> withoutBundle(@RequestParam("url") URI url) {
        return Answers.of(() -> get(RestClient.create(), url));
    }

    /** Believes the callee, and shows nothing. */
    @GetMapping("/withoutKeyStore")
    public ResponseEntity<String> withoutKeyStore(@RequestParam("callee") String callee,
            @RequestParam("url") URI url) {
        return Answers.of(() -> {
            SslBundle whole = bundles.getBundle(callee);
            SslStoreBundle stores = SslStoreBundle.of(null, null, whole.getStores().getTrustStore());
            SslBundle half = SslBundle.of(stores, null, whole.getOptions(), whole.getProtocol());
            return get(RestClient.builder().apply(ssl.fromBundle(half)).build(), url);
        });
    }

    @GetMapping("/withBundle")
    public ResponseEntity<String> withBundle(@RequestParam("callee") String callee, @RequestParam("url") URI url) {
        return Answers.of(() -> get(clients.computeIfAbsent(callee,
                name -> RestClient.builder().apply(ssl.fromBundle(name)).build()), url));
    }

    private static String get(RestClient client, URI url) {
        return client.get().uri(url).retrieve().body(String.class);
    }
}
