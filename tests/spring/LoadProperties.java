import java.io.FileInputStream;
import java.io.InputStream;
import java.util.Properties;

/** Prints what `java.util.Properties` reads from a file: a line for each property, key and value as UTF-16 in hex. */
public class LoadProperties {

    public static void main(String[] arguments) throws Exception {
        Properties read = new Properties();
        try (InputStream file = new FileInputStream(arguments[0])) {
            read.load(file);
        }
        read.forEach((key, value) -> System.out.println(hex((String) key) + " " + hex((String) value)));
    }

    private static String hex(String text) {
        StringBuilder digits = new StringBuilder();
        for (char unit : text.toCharArray()) {
            digits.append(String.format("%04x", (int) unit));
        }
        return digits.toString();
    }
}
