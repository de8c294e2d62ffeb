import com.azure.core.credential.AccessToken;
import com.azure.core.credential.TokenCredential;
import com.azure.core.credential.TokenRequestContext;
import com.azure.identity.DefaultAzureCredentialBuilder;
import com.azure.identity.ManagedIdentityCredentialBuilder;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Base64;

/**
 * A job's program in Java that gets tokens with Azure's own SDK and knows nothing of jobcred.
 *
 * <p>Each line of its standard input asks once, and is answered by a line of JSON: whose token came of it, or the error. It
 * never prints a token. {"kind": "managed" | "default", "client_id": C?}
 */
public final class Ask {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final TokenRequestContext STORAGE =
            new TokenRequestContext().addScopes("https://storage.azure.com/.default");

    private Ask() {}

    public static void main(String[] arguments) throws IOException {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            System.out.println(answer(JSON.readTree(line)));
        }
        System.exit(0);
    }

    private static String answer(JsonNode request) {
        try {
            AccessToken token = credential(request).getTokenSync(STORAGE);
            byte[] payload = Base64.getUrlDecoder().decode(token.getToken().split("\\.")[1]);
            JsonNode claims = JSON.readTree(new String(payload, StandardCharsets.UTF_8));
            return "{\"oid\": " + claims.get("oid") + ", \"aud\": " + claims.get("aud")
                    + ", \"error\": null, \"message\": null}";
        } catch (IOException | RuntimeException error) {
            return "{\"oid\": null, \"aud\": null, \"error\": " + Json.text(error.getClass().getSimpleName())
                    + ", \"message\": " + Json.text(String.valueOf(error.getMessage())) + "}";
        }
    }

    private static TokenCredential credential(JsonNode request) {
        if (request.get("kind").asText().equals("default")) {
            return new DefaultAzureCredentialBuilder().build();
        }
        ManagedIdentityCredentialBuilder managed = new ManagedIdentityCredentialBuilder();
        if (request.hasNonNull("client_id")) {
            managed.clientId(request.get("client_id").asText());
        }
        return managed.build();
    }
}
