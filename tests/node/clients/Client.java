import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;

/** Java as applications have it: {@code java Client.java URL HOST PORT}. */
public final class Client {
    private static final Duration PATIENCE = Duration.ofSeconds(60);

    private Client() {
    }

    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newBuilder().connectTimeout(PATIENCE).build();
        tell("http", get(client, arguments[0] + "/open") == 200);
        tell("http_denied", get(client, arguments[0] + "/secret") == 403);
        String host = arguments[1];
        int port = Integer.parseInt(arguments[2]);
        try (Socket socket = new Socket(host, port)) {
            socket.getOutputStream().write("who\n".getBytes(StandardCharsets.US_ASCII));
            socket.shutdownOutput();
            BufferedReader reader = new BufferedReader(new InputStreamReader(socket.getInputStream()));
            tell("socket", reader.readLine().split(" ").length == 3 && reader.readLine() == null);
            tell("peer", socket.getInetAddress().getHostAddress().equals(host) && socket.getPort() == port);
        }
    }

    private static int get(HttpClient client, String url) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).timeout(PATIENCE).build();
        return client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode();
    }

    private static void tell(String name, boolean good) {
        System.out.println((good ? "ok " : "FAILED ") + name);
    }
}
