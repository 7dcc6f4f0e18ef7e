import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsParameters;
import com.sun.net.httpserver.HttpsServer;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;

/**
 * A service as its author would write it: TLS comes from the properties of JSSE, which mtlsctl's java.args sets, and the
 * program says for itself only what has no property, that it wants a certificate. Arguments: what it answers, address,
 * port.
 */
public class Server {
  public static void main(String[] arguments) throws Exception {
    InetSocketAddress place = new InetSocketAddress(arguments[1], Integer.parseInt(arguments[2]));
    HttpsServer server = HttpsServer.create(place, 0);
    server.setHttpsConfigurator(
        new HttpsConfigurator(SSLContext.getDefault()) {
          @Override
          public void configure(HttpsParameters parameters) {
            // HttpsParameters.setNeedClientAuth alone asks for nothing: without SSLParameters it is reset again.
            SSLParameters wanted = new SSLParameters();
            wanted.setNeedClientAuth(true);
            parameters.setSSLParameters(wanted);
          }
        });
    server.setExecutor(Executors.newCachedThreadPool());
    server.createContext(
        "/",
        exchange -> {
          byte[] body = (arguments[0] + "\n").getBytes(StandardCharsets.UTF_8);
          exchange.sendResponseHeaders(200, body.length);
          exchange.getResponseBody().write(body);
          exchange.close();
        });
    server.start();
  }
}
