// A nightly job in Java, without any package: OTLP is JSON over HTTP, and that is all there is to it.
//   java Nightly.java http://127.0.0.1:4318
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.security.SecureRandom;
import java.util.HexFormat;

public class Nightly {
  static final SecureRandom DICE = new SecureRandom();

  static String id(int bytes) {
    byte[] made = new byte[bytes];
    DICE.nextBytes(made);
    return HexFormat.of().formatHex(made);
  }

  static long now() {
    var now = java.time.Instant.now();
    return now.getEpochSecond() * 1_000_000_000L + now.getNano();
  }

  static final String RESOURCE =
      """
      "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "nightly"}}]}""";

  static void send(String endpoint, String signal, String body) throws Exception {
    var request =
        HttpRequest.newBuilder(URI.create(endpoint + "/v1/" + signal))
            .header("content-type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
    var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
    // 200: it is on disk.
    if (answer.statusCode() != 200) {
      throw new IllegalStateException(answer.statusCode() + " " + answer.body());
    }
  }

  public static void main(String[] arguments) throws Exception {
    String endpoint = arguments.length > 0 ? arguments[0] : "http://127.0.0.1:4318";
    String trace = id(16), span = id(8);
    long begun = now();
    String failure = "";
    try {
      Integer.parseInt("12 prices");
    } catch (NumberFormatException error) {
      failure = error.getMessage().replace("\"", "'");
    }
    // The run of the job: a span, started by a timer, with the error it met.
    send(
        endpoint,
        "traces",
        """
        {"resourceSpans": [{%s, "scopeSpans": [{"scope": {"name": "nightly"}, "spans": [{
          "traceId": "%s", "spanId": "%s", "name": "import_prices", "kind": 2,
          "startTimeUnixNano": "%d", "endTimeUnixNano": "%d", "status": {"code": 2},
          "attributes": [
            {"key": "faas.trigger", "value": {"stringValue": "timer"}},
            {"key": "faas.name", "value": {"stringValue": "import_prices"}}],
          "events": [{"timeUnixNano": "%d", "name": "exception", "attributes": [
            {"key": "exception.type", "value": {"stringValue": "java.lang.NumberFormatException"}},
            {"key": "exception.message", "value": {"stringValue": "%s"}}]}]
        }]}]}]}"""
            .formatted(RESOURCE, trace, span, begun, now(), now(), failure));
    // What only the program knows: an event named after a type of memory.
    send(
        endpoint,
        "logs",
        """
        {"resourceLogs": [{%s, "scopeLogs": [{"scope": {"name": "nightly"}, "logRecords": [{
          "timeUnixNano": "%d", "traceId": "%s", "spanId": "%s",
          "eventName": "engram.business_decision",
          "attributes": [
            {"key": "engram.title", "value": {"stringValue": "Keep the old prices"}},
            {"key": "reason", "value": {"stringValue": "the new ones are unreadable"}}]
        }]}]}]}"""
            .formatted(RESOURCE, now(), trace, span));
    System.out.println(trace);
  }
}
