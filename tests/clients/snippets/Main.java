// Serves Notifications with the JDK's own HTTP server. The shop's part: a line for each notification that is new, and an
// error on request.
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

final class Main {
    static final Set<String> SEEN = new HashSet<>();

    static String field(String body, String pattern) {
        Matcher matcher = Pattern.compile(pattern).matcher(body);
        if (!matcher.find()) throw new IllegalArgumentException(pattern);
        return matcher.group(1);
    }

    static void handle(byte[] bytes) throws IOException {
        if (Files.exists(Path.of(System.getenv("FAIL")))) throw new IOException("the database is away");
        String body = new String(bytes);
        if (!SEEN.add(field(body, "\"id\":\"([^\"]+)\""))) return;
        String line = field(body, "\"order_no\":\"([^\"]+)\"") + " " + field(body, "\"version\":([0-9]+)") + "\n";
        Files.writeString(Path.of(System.getenv("EFFECTS")), line, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    }

    public static void main(String[] arguments) throws IOException {
        HttpServer server = HttpServer.create(
            new InetSocketAddress("127.0.0.1", Integer.parseInt(System.getenv("PORT"))), 0);
        List<String> secrets = List.of(System.getenv("NODROP_SECRETS").split(","));
        server.createContext("/notifications", new Notifications(secrets, Main::handle));
        server.start();
    }
}
