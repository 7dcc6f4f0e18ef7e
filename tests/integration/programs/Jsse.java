import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLServerSocketFactory;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.SSLSocketFactory;

/** A program that takes all its TLS from the properties of JSSE, as most old ones do. */
public class Jsse {
    public static void main(String[] words) throws Exception {
        switch (words[0]) {
            case "serve" -> serve(Integer.parseInt(words[1]));
            case "get" -> get(Integer.parseInt(words[1]), words[2]);
            case "show" -> show();
            default -> throw new IllegalArgumentException(words[0]);
        }
    }

    private static void serve(int port) throws Exception {
        InetAddress here = InetAddress.getLoopbackAddress();
        SSLServerSocketFactory factory = (SSLServerSocketFactory) SSLServerSocketFactory.getDefault();
        try (SSLServerSocket door = (SSLServerSocket) factory.createServerSocket(port, 50, here)) {
            door.setNeedClientAuth(true);
            System.out.println("ready " + door.getLocalPort());
            while (true) {
                try (SSLSocket caller = (SSLSocket) door.accept()) {
                    caller.startHandshake();
                    String who = caller.getSession().getPeerPrincipal().getName();
                    String answer = "let in " + who + " by " + caller.getSession().getProtocol() + "\n";
                    caller.getOutputStream().write(answer.getBytes(StandardCharsets.UTF_8));
                } catch (Exception refused) {
                    System.out.println("refused: " + refused);
                }
            }
        }
    }

    private static void get(int port, String name) throws Exception {
        SSLSocketFactory factory = (SSLSocketFactory) SSLSocketFactory.getDefault();
        Socket plain = new Socket(InetAddress.getLoopbackAddress(), port);
        try (SSLSocket socket = (SSLSocket) factory.createSocket(plain, name, port, true)) {
            SSLParameters parameters = socket.getSSLParameters();
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            socket.setSSLParameters(parameters);
            socket.startHandshake();
            String line = new BufferedReader(new InputStreamReader(socket.getInputStream())).readLine();
            System.out.println(line == null ? "hung up" : line);
        } catch (java.io.IOException refused) {
            System.out.println("refused: " + refused);
        }
    }

    /** Every property that a test gave, as hex: no encoding comes in between. */
    private static void show() {
        for (int n = 0; System.getProperty("p" + n) != null; n++) {
            StringBuilder hex = new StringBuilder();
            for (byte one : System.getProperty("p" + n).getBytes(StandardCharsets.UTF_8)) {
                hex.append(String.format("%02x", one));
            }
            System.out.println(hex);
        }
    }
}
