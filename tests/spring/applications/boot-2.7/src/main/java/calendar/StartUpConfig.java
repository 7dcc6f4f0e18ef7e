package calendar;

import java.io.IOException;
import java.security.GeneralSecurityException;

import javax.net.ssl.SSLContext;

import org.apache.http.client.HttpClient;
import org.apache.http.impl.client.HttpClientBuilder;
import org.apache.http.ssl.SSLContextBuilder;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.core.io.Resource;
import org.springframework.http.client.HttpComponentsClientHttpRequestFactory;
import org.springframework.web.client.RestTemplate;

/**
 * RestTemplates as a service of 2020 makes them: Apache HttpClient, and properties `client.ssl.*` of its own. There is
 * no key store where nobody asks for a certificate.
 */
@Configuration
@ConditionalOnProperty("client.ssl.trustStore")
public class StartUpConfig {

    @Value("${client.ssl.trustStore}")
    private Resource trustStore;

    @Value("${client.ssl.trustStore.password}")
    private String trustStorePassword;

    @Value("${client.ssl.version}")
    private String sslVersion;

    @Value("${client.ssl.keyStore:#{null}}")
    private Resource keyStore;

    @Value("${client.ssl.keyStore.keyPassword:#{null}}")
    private String keyPassword;

    @Value("${client.ssl.keyStore.storePassword:#{null}}")
    private String storePassword;

    /** It checks the server, and shows itself. */
    @Bean
    public RestTemplate twoWay() throws IOException, GeneralSecurityException {
        SSLContext context = SSLContextBuilder.create()
                .loadTrustMaterial(trustStore.getFile(), trustStorePassword.toCharArray())
                .loadKeyMaterial(keyStore.getFile(), storePassword.toCharArray(), keyPassword.toCharArray())
                .setProtocol(sslVersion)
                .build();
        return with(context);
    }

    /** It checks the server, and shows nothing. */
    @Bean
    public RestTemplate oneWay() throws IOException, GeneralSecurityException {
        SSLContext context = SSLContextBuilder.create()
                .loadTrustMaterial(trustStore.getFile(), trustStorePassword.toCharArray())
                .setProtocol(sslVersion)
                .build();
        return with(context);
    }

    private static RestTemplate with(SSLContext context) {
        HttpClient client = HttpClientBuilder.create().setSSLContext(context).build();
        return new RestTemplate(new HttpComponentsClientHttpRequestFactory(client));
    }
}
