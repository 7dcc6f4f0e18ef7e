import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.ConnectException;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpTimeoutException;
import java.security.KeyStore;
import java.security.Principal;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.X509Certificate;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import javax.net.ssl.KeyManager;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509ExtendedKeyManager;

/**
 * Calls by HttpClient with what the properties of JSSE say, each case of standard input with a new connection: a line
 * `URL IDENTITY`, where the identity is `own`, `none`, or a PKCS#12 file whose password is the program's argument. Prints
 * a line for each: `status BODY`, `unreachable WHAT` or `refused WHAT`.
 */
public class Caller {
  public static void main(String[] arguments) throws Exception {
    Map<String, SSLContext> contexts = new HashMap<>();
    TrustManager[] trusted = trusted();
    BufferedReader cases = new BufferedReader(new InputStreamReader(System.in));
    for (String line = cases.readLine(); line != null; line = cases.readLine()) {
      String[] one = line.split(" ");
      if (!contexts.containsKey(one[1])) {
        contexts.put(one[1], context(one[1], arguments[0].toCharArray(), trusted));
      }
      System.out.println(call(one[0], contexts.get(one[1])).replaceAll("\\s+", " "));
    }
    System.exit(0);
  }

  private static String call(String url, SSLContext context) throws InterruptedException {
    HttpClient client =
        HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .connectTimeout(Duration.ofSeconds(60))
            .sslContext(context)
            .build();
    HttpRequest request = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(60)).build();
    try {
      HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
      return response.statusCode() + " " + response.body();
    } catch (ConnectException | HttpTimeoutException error) {
      return "unreachable " + error;
    } catch (IOException error) {
      return "refused " + error;
    }
  }

  private static TrustManager[] trusted() throws Exception {
    TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    String file = System.getProperty("javax.net.ssl.trustStore");
    trust.init(store(file, System.getProperty("javax.net.ssl.trustStorePassword").toCharArray()));
    return trust.getTrustManagers();
  }

  private static SSLContext context(String identity, char[] password, TrustManager[] trusted) throws Exception {
    if (identity.equals("own")) {
      return SSLContext.getDefault();
    }
    KeyManager[] keys = identity.equals("none") ? new KeyManager[0] : new KeyManager[] {shown(identity, password)};
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(keys, trusted, null);
    return context;
  }

  /** Shows the certificate whatever CAs the server asks for: Java's own would keep back one that is not among them. */
  private static KeyManager shown(String file, char[] password) throws Exception {
    KeyStore store = store(file, password);
    String alias = store.aliases().nextElement();
    PrivateKey key = (PrivateKey) store.getKey(alias, password);
    Certificate[] chain = store.getCertificateChain(alias);
    return new X509ExtendedKeyManager() {
      @Override
      public String chooseClientAlias(String[] types, Principal[] issuers, Socket socket) {
        return alias;
      }

      @Override
      public String chooseEngineClientAlias(String[] types, Principal[] issuers, SSLEngine engine) {
        return alias;
      }

      @Override
      public X509Certificate[] getCertificateChain(String name) {
        return Arrays.copyOf(chain, chain.length, X509Certificate[].class);
      }

      @Override
      public PrivateKey getPrivateKey(String name) {
        return key;
      }

      @Override
      public String[] getClientAliases(String type, Principal[] issuers) {
        return new String[] {alias};
      }

      @Override
      public String[] getServerAliases(String type, Principal[] issuers) {
        return null;
      }

      @Override
      public String chooseServerAlias(String type, Principal[] issuers, Socket socket) {
        return null;
      }
    };
  }

  private static KeyStore store(String file, char[] password) throws Exception {
    KeyStore store = KeyStore.getInstance("PKCS12");
    try (InputStream in = new FileInputStream(file)) {
      store.load(in, password);
    }
    return store;
  }
}
