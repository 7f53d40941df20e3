// next → work → ack, until you stop it. Java 17 or newer, no library: java Worker.java
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public class Worker {
    static final String QUEUE = "{{.Queue}}";
    static final HttpClient HTTP = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build();

    // One change at a time, its token first. Use your JSON library for more.
    static final Pattern FIRST = Pattern.compile("^\\{\"data\":\\[(\\{\"ack_token\":\"([^\"]+)\".*)\\],\"info\":[^\\]]*$", Pattern.DOTALL);

    // Your own code. Throw, and the change comes again, ever later.
    // It may come twice: its idempotency_key is the same then.
    static void work(String change) throws Exception {
        System.out.println(change);
    }

    static String call(String verb, String body) throws IOException, InterruptedException {
        String token = System.getenv().getOrDefault("LOCKSTEP_TOKEN", "");
        HttpRequest request = HttpRequest.newBuilder(URI.create(QUEUE + "/" + verb))
            .timeout(Duration.ofSeconds(60))
            .header("Content-Type", "application/json")
            .header("Authorization", "Bearer " + token)
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
        HttpResponse<String> answer = HTTP.send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() / 100 != 2) {
            throw new IOException(verb + ": HTTP " + answer.statusCode() + " " + answer.body());
        }
        return answer.body();
    }

    public static void main(String[] args) throws InterruptedException {
        while (true) {
            try {
                Matcher found = FIRST.matcher(call("next", "{\"batch_size\": 1, \"wait_for\": \"20s\"}").strip());
                if (!found.matches()) {
                    continue; // none came in 20 seconds
                }
                String tokens = "\"ack_tokens\": [\"" + found.group(2) + "\"]";
                try {
                    work(found.group(1));
                } catch (Exception failure) {
                    System.err.println("a change failed: " + failure);
                    call("nack", "{" + tokens + ", \"reason\": \"work failed\"}");
                    continue;
                }
                call("ack", "{" + tokens + "}");
            } catch (IOException error) { // what was not settled comes again
                System.err.println(error.getMessage());
                Thread.sleep(2000);
            }
        }
    }
}
