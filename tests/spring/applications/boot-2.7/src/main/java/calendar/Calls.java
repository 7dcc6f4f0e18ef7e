package calendar;

import org.springframework.beans.factory.ObjectProvider;
import org.springframework.beans.factory.annotation.Qualifier;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.client.RestTemplate;

@RestController
public class Calls {

    private final ObjectProvider<RestTemplate> oneWay;
    private final ObjectProvider<RestTemplate> twoWay;

    public Calls(@Qualifier("oneWay") ObjectProvider<RestTemplate> oneWay,
            @Qualifier("twoWay") ObjectProvider<RestTemplate> twoWay) {
        this.oneWay = oneWay;
        this.twoWay = twoWay;
    }

    @GetMapping("/withoutTrustStore")
    public ResponseEntity<String> withoutTrustStore(@RequestParam("url") String url) {
        return Answers.of(() -> new RestTemplate().getForObject(url, String.class));
    }

    @GetMapping("/withTrustStore")
    public ResponseEntity<String> withTrustStore(@RequestParam("url") String url) {
        return Answers.of(() -> oneWay.getObject().getForObject(url, String.class));
    }

    @GetMapping("/withKeyStore")
    public ResponseEntity<String> withKeyStore(@RequestParam("url") String url) {
        return Answers.of(() -> twoWay.getObject().getForObject(url, String.class));
    }
}
