import com.azure.core.http.HttpClient;
import com.azure.core.http.HttpMethod;
import com.azure.core.http.HttpRequest;
import com.azure.core.http.HttpResponse;
import com.azure.core.util.Context;

/**
 * A job's program in Java that fetches pages with what Azure's own libraries send their requests with, and the proxy that the
 * environment names. Prints a line of JSON for each: what the page says of the way that it came by, or the error.
 */
public final class Fetch {
    private Fetch() {}

    public static void main(String[] urls) {
        HttpClient client = HttpClient.createDefault();
        for (String url : urls) {
            String line;
            try (HttpResponse response = client.sendSync(new HttpRequest(HttpMethod.GET, url), Context.NONE)) {
                if (response.getStatusCode() != 200) {
                    throw new IllegalStateException("status " + response.getStatusCode());
                }
                String[] words = response.getBodyAsString().block().trim().split("\\s+");
                line = "\"way\": " + Json.text(words[words.length - 1]) + ", \"error\": null";
            } catch (RuntimeException error) {
                line = "\"way\": null, \"error\": " + Json.text(error.getClass().getSimpleName())
                        + ", \"message\": " + Json.text(String.valueOf(error.getMessage()));
            }
            System.out.println("{\"url\": " + Json.text(url) + ", " + line + "}");
        }
        System.exit(0);
    }
}
