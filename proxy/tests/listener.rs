//! The front, with real sockets on both sides and Pingora's own proxy behind it.

#![expect(clippy::disallowed_methods, reason = "these are clients; they connect to this test")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "listener/harness.rs"]
mod harness;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use harness::{Harness, Protocol, Upstream, limits, within};
use proxy::data_plane::listener::Limits;

const SHORT: Duration = Duration::from_millis(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_head_gets_a_response_and_a_record_and_goes_no_further() {
    let harness = Harness::new(limits()).await;
    let check = async |head: &str, status: u16, code: &str| {
        let head = head.replace('~', "\r\n");
        let mut client = harness.client().await;
        client.send(&head).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{head:?}");
        assert!(answer.head.contains("Connection: close"), "{}", answer.head);
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["code"], code, "{head:?}");
        assert_eq!(body["request_id"], "an-id");
        assert_eq!(client.rest().await, "", "the connection is closed");
        assert_eq!(harness.refusals.take(), [(code, true)], "{head:?}");
    };
    let malformed = "head_malformed";
    check("\u{16}\u{3}\u{1}", 400, malformed).await;
    check("GET / HTTP/1.1\n\n", 400, malformed).await;
    check("GET  / HTTP/1.1~Host: a~~", 400, malformed).await;
    check("GET / HTTP/1.1~Host: a~X: 1~ 2~~", 400, malformed).await;
    check("GET / HTTP/1.1~Host : a~~", 400, malformed).await;
    check("GET / HTTP/1.1~Host: a~X: \0~~", 400, malformed).await;
    check("GET / HTTP/1.1~~", 400, malformed).await;
    check("GET / HTTP/1.1~Host: a~Host: a~~", 400, malformed).await;
    check("PRI * HTTP/2.0~~SM~~", 400, malformed).await;
    let framing = "framing_ambiguous";
    check("POST / HTTP/1.1~Host: a~Content-Length: +5~~hello", 400, framing).await;
    check("POST / HTTP/1.1~Host: a~Content-Length: 5~Content-Length: 5~~hello", 400, framing).await;
    check(
        "POST / HTTP/1.1~Host: a~Content-Length: 5~Transfer-Encoding: chunked~~0~~",
        400,
        framing,
    )
    .await;
    let body = "body_malformed";
    check("POST / HTTP/1.1~Host: a~Transfer-Encoding: chunked~~0x1~a~0~~", 400, body).await;
    check("GET / HTTP/1.1~Host: a~Upgrade: websocket~Content-Length: 1~~x", 400, framing).await;
    check("CONNECT a:443 HTTP/1.1~Host: a:443~~", 400, "connect_refused").await;
    let large = "head_too_large";
    check(&format!("GET / HTTP/1.1~Host: a~X: {}~~", "x".repeat(9000)), 431, large).await;
    check(&format!("GET / HTTP/1.1~Host: a~{}~", "X: x~".repeat(40)), 431, large).await;
    assert_eq!(harness.upstream.requests(), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_is_too_slow_as_a_whole_is_cut_off() {
    let harness = Harness::new(Limits { head_timeout: SHORT, ..limits() }).await;
    let mut client = harness.client().await;
    client.send("GET / HT").await;
    assert_eq!(client.answer().await.status, 408);
    assert_eq!(harness.refusals.take(), [("head_timeout", true)]);

    // A byte now and then does not help.
    let mut client = harness.client().await;
    let mut sent = 0;
    while client.send_bytes(b"A").await && !client.is_readable() {
        sent += 1;
        tokio::task::yield_now().await;
    }
    assert!(sent > 1);
    assert_ne!(harness.refusals.take(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_nothing_gets_no_response() {
    let harness = Harness::new(Limits { head_timeout: SHORT, ..limits() }).await;
    assert_eq!(harness.client().await.rest().await, "");
    assert_eq!(harness.refusals.take(), [("head_timeout", false)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed_without_a_record() {
    let harness = Harness::new(Limits { keepalive_timeout: SHORT, ..limits() }).await;
    let mut client = harness.client().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.body, "GET /1 ");
    assert_eq!(client.rest().await, "");
    assert_eq!(harness.refusals.take(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_reused_until_a_response_says_close() {
    let harness = Harness::new(Limits { keepalive_requests_max: 3, ..limits() }).await;
    let mut client = harness.client().await;
    for (nth, connection) in [(1, "keep-alive"), (2, "keep-alive"), (3, "close")] {
        client.send(&format!("GET /{nth} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_eq!(answer.body, format!("GET /{nth} "));
        assert!(answer.head.contains(&format!("onnection: {connection}")), "{}", answer.head);
    }
    assert_eq!(client.rest().await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_closes_idle_connections_and_announces_close_on_the_others() {
    let harness = Harness::new(limits()).await;
    let mut idle = harness.client().await;
    idle.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(idle.answer().await.status, 200);
    harness.drain.begin();
    harness.drain.close_idle();
    assert_eq!(idle.rest().await, "");

    let mut late = harness.client().await;
    late.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = late.answer().await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("onnection: close"), "{}", answer.head);
    assert_eq!(late.rest().await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_over_the_limit_is_refused_until_another_ends() {
    for limits in [
        Limits { connections_max: 1, ..limits() },
        Limits { connections_per_client_max: 1, ..limits() },
    ] {
        let harness = Harness::new(limits).await;
        let mut first = harness.client().await;
        first.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(first.answer().await.status, 200);

        let mut second = harness.client().await;
        let answer = second.answer().await;
        assert_eq!(answer.status, 503);
        assert!(answer.head.contains("Retry-After"), "{}", answer.head);
        assert_eq!(harness.refusals.take(), [("connections_exhausted", true)]);
        drop(first);

        // The place is given up when the front has noticed, which takes a moment.
        within(async {
            loop {
                let mut third = harness.client().await;
                third.send("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n").await;
                if third.answer().await.status == 200 {
                    break;
                }
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_get_their_responses_in_order_and_nothing_is_lost() {
    let harness = Harness::new(limits()).await;
    let mut client = harness.client().await;
    let chunked = "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\nT: t\r\n\r\n";
    let all = format!(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
         POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
         POST /3 HTTP/1.1\r\nHost: a\r\n{chunked}\
         GET /4 HTTP/1.1\r\nHost: a\r\n\r\n"
    );
    let expected = ["GET /1 ", "POST /2 hello", "POST /3 abc", "GET /4 "];
    client.send(&all).await;
    for body in expected {
        assert_eq!(client.answer().await.body, body);
    }
    // Wherever the network cuts it.
    for cut in (1..all.len()).step_by(7) {
        client.send(&all[..cut]).await;
        tokio::task::yield_now().await;
        client.send(&all[cut..]).await;
        for body in expected {
            assert_eq!(client.answer().await.body, body, "cut at {cut}");
        }
    }
    assert_eq!(harness.refusals.take(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_arrives_during_another_does_not_end_it() {
    let harness = Harness::new(limits()).await;
    let mut client = harness.client().await;
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    within(harness.upstream.asked.notified()).await;
    client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    // Another exchange's whole life, so that the bytes above have been seen.
    let mut other = harness.client().await;
    other.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(other.answer().await.body, "GET /other ");
    harness.upstream.answer.notify_one();
    assert_eq!(client.answer().await.body, "GET /wait ");
    assert_eq!(client.answer().await.body, "GET /2 ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_during_its_exchange_is_noticed() {
    let harness = Harness::new(limits()).await;
    let mut client = harness.client().await;
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    within(harness.upstream.asked.notified()).await;
    drop(client);
    within(harness.upstream.left.notified()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_head_is_checked_like_the_first() {
    let harness = Harness::new(limits()).await;
    for (hidden, code) in [
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "connect_refused"),
        ("GET /2 HTTP/1.1\r\n\r\n", "head_malformed"),
        ("GET /2 HTTP/1.1\nHost: a\n\n", "head_malformed"),
    ] {
        for together in [true, false] {
            let mut client = harness.client().await;
            let first = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
            if together {
                client.send(&format!("{first}{hidden}")).await;
                assert_eq!(client.answer().await.body, "POST /1 x");
            } else {
                client.send(first).await;
                assert_eq!(client.answer().await.body, "POST /1 x");
                client.send(hidden).await;
            }
            assert_eq!(client.answer().await.status, 400);
            assert_eq!(client.rest().await, "");
            assert_eq!(harness.refusals.take(), [(code, true)]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_breaks_on_its_way_never_becomes_whole() {
    let harness = Harness::new(limits()).await;
    for broken in ["\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n", "5;\n\r\nhello\r\n0\r\n\r\n"] {
        let mut client = harness.client().await;
        let head = "POST /begun HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(&format!("{head}2\r\nab\r\n")).await;
        within(harness.upstream.begun.notified()).await;
        client.send(broken).await;
        client.rest().await;
        within(harness.upstream.left.notified()).await;
    }
    assert_eq!(harness.upstream.requests(), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_arrives_whole_and_the_next_request_after_it() {
    let harness = Harness::new(limits()).await;
    let mut client = harness.client().await;
    let large = "x".repeat(300_000);
    let chunks = format!("{:x}\r\n{}\r\n7\r\n1234567\r\n0\r\n\r\n", large.len(), large);
    for (framing, body, length) in [
        ("Transfer-Encoding: chunked", chunks.as_str(), 300_007),
        ("Content-Length: 300000", &large, 300_000),
    ] {
        let head = format!("POST /1 HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        client.send(&format!("{head}{body}GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(client.answer().await.body.len(), "POST /1 ".len() + length);
        assert_eq!(client.answer().await.body, "GET /2 ");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_websockets_are_requested_from_an_upstream() {
    let harness = Harness::new(limits()).await;
    let mut client = harness.client().await;
    client
        .send(
            "POST /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nContent-Length: 1\r\n\r\nx",
        )
        .await;
    assert_eq!(client.answer().await.body, "POST /1 x");
    let seen = harness.upstream.requests().join("").to_lowercase();
    assert!(!seen.contains("upgrade") && !seen.contains("http2-settings"), "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_survives_an_upstream_that_responds_immediately() {
    let harness = Harness::with(limits(), Protocol::Http1, Upstream::websocket().await).await;
    let failures = AtomicUsize::new(0);
    for _ in 0..300 {
        let mut client = harness.client().await;
        let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        client.send(head).await;
        let went_well = within(async {
            client.head().await.is_some_and(|head| head.starts_with("HTTP/1.1 101 "))
                && client.send_bytes(b"ping").await
                && client.bytes(4).await.is_some_and(|echo| echo == "ping")
        });
        if !went_well.await {
            failures.fetch_add(1, Ordering::Relaxed);
        }
    }
    assert_eq!(failures.into_inner(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_connection_without_a_preface_is_closed_and_recorded() {
    let limits = Limits { head_timeout: SHORT, ..limits() };
    let harness = Harness::with(limits, Protocol::Http2, Upstream::plain().await).await;
    for begun in ["", "PRI * HTTP/2.0\r\n"] {
        let mut client = harness.client().await;
        client.send(begun).await;
        client.rest().await;
        within(async {
            while harness.refusals.take() != [("head_timeout", false)] {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_body_that_ends_with_nothing_ends_once() {
    let harness = Harness::with(limits(), Protocol::Http2, Upstream::plain().await).await;
    let (mut sender, connection) = h2::client::handshake(harness.connect().await).await.unwrap();
    let connection = tokio::spawn(connection);
    for nth in 0..3 {
        let request =
            http::Request::post(format!("https://a/{nth}")).version(http::Version::HTTP_2);
        let (answer, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from_static(b"hello"), false).unwrap();
        // Apart, as clients do that learn of the end later.
        within(harness.upstream.begun.notified()).await;
        body.send_data(Bytes::new(), true).unwrap();
        let mut answer = within(answer).await.unwrap().into_body();
        let echoed = within(answer.data()).await.unwrap().unwrap();
        assert_eq!(echoed, format!("POST /{nth} hello"));
    }
    // What is left over from one request would be the beginning of the next.
    let seen = harness.upstream.requests();
    assert!(seen.len() == 3 && seen.iter().all(|head| head.starts_with("POST ")), "{seen:?}");
    connection.abort();
}
