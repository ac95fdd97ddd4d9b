// Asks for a URL, by GET and by POST, with Java's own client and with Apache's; prints a line for each:
// who, what, the status and the body. As both are made: each offers another protocol with plain requests.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import org.apache.hc.client5.http.classic.methods.HttpGet;
import org.apache.hc.client5.http.classic.methods.HttpPost;
import org.apache.hc.client5.http.classic.methods.HttpUriRequestBase;
import org.apache.hc.client5.http.impl.classic.HttpClients;
import org.apache.hc.core5.http.io.entity.EntityUtils;
import org.apache.hc.core5.http.io.entity.StringEntity;

public class Ask {
  static void java(HttpClient client, String what, HttpRequest request) throws Exception {
    var answer = client.send(request, BodyHandlers.ofString());
    System.out.println("java " + what + " " + answer.statusCode() + " " + answer.body());
  }

  static void apache(String what, HttpUriRequestBase request) throws Exception {
    try (var client = HttpClients.createDefault()) {
      client.execute(request, answer -> {
        System.out.println("apache " + what + " " + answer.getCode() + " " + EntityUtils.toString(answer.getEntity()));
        return null;
      });
    }
  }

  public static void main(String[] args) throws Exception {
    var url = URI.create(args[0]);
    var client = HttpClient.newHttpClient();
    java(client, "GET", HttpRequest.newBuilder(url).build());
    java(client, "POST", HttpRequest.newBuilder(url).POST(HttpRequest.BodyPublishers.ofString("body")).build());
    apache("GET", new HttpGet(url));
    var post = new HttpPost(url);
    post.setEntity(new StringEntity("body"));
    apache("POST", post);
  }
}
