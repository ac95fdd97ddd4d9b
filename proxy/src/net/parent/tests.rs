use tokio::net::TcpListener;

use super::*;

fn config(rest: &str) -> config::Config {
    let text = format!(
        "version: stagedoor/v1\nlisteners: {{out: {{kind: forward, address: '0.0.0.0:3128', plugin: x}}}}\n{rest}"
    );
    config::parse("s.yaml", &text).unwrap_or_else(|problems| panic!("{problems}")).config
}

fn of_environment(config: &config::Config, variables: &[(&str, &str)]) -> Parents {
    environment::parents(config, &|name| {
        let found = variables.iter().find(|(own, _)| *own == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn who_goes_through_the_parent_and_who_does_not() {
    let config = config(
        "egress:
  parent: {url: 'http://proxy.corp:8080', no_proxy: [direct.corp, '10.0.0.0/8', 'ported.test:8443']}
  private: [{host: argocd.corp, addresses: [10.0.0.0/8]}, {host: 'one.corp:8443', addresses: [10.0.0.0/8]}]
",
    );
    let parents = Parents::of(&config).unwrap();
    let check = |host: &str, port: u16, expected: bool| {
        assert_eq!(parents.on_the_way_to(host, port, true).is_some(), expected, "{host}:{port}");
        assert_eq!(parents.on_the_way_to(host, port, false).is_some(), expected, "{host}:{port}");
    };
    check("api.github.com", 443, true);
    check("8.8.8.8", 443, true);
    check("[2001:db8::1]", 443, true);
    check("direct.corp", 443, false);
    check("evildirect.corp", 443, true);
    check("direct.corp.evil.test", 443, true);
    check("a.direct.corp", 443, false);
    check("10.1.2.3", 443, false);
    check("[::ffff:10.1.2.3]", 443, false);
    check("ported.test", 443, true);
    check("ported.test", 8443, false);
    check("argocd.corp", 8080, false);
    check("one.corp", 443, true);
    check("one.corp", 8443, false);
    check("localhost", 443, false);
    check("127.0.0.1", 443, false);
    check("[::1]", 443, false);
    check("localhost.evil.test", 443, true);
}

#[test]
fn the_environment_names_them_in_capitals_or_not() {
    let config = config("");
    let check = |variables: &[(&str, &str)], secure: Option<&str>, plain: Option<&str>| {
        let found = of_environment(&config, variables);
        let url = |parent: &Option<Arc<Parent>>| parent.as_ref().map(|p| p.url.to_string());
        assert_eq!(url(&found.secure).as_deref(), secure, "{variables:?}");
        assert_eq!(url(&found.plain).as_deref(), plain, "{variables:?}");
        found
    };
    let proxy = Some("http://proxy.corp:8080");
    check(&[("HTTPS_PROXY", "http://proxy.corp:8080")], proxy, None);
    check(&[("https_proxy", "http://proxy.corp:8080/")], proxy, None);
    check(&[("http_proxy", "proxy.corp:8080")], None, proxy);
    check(&[("HTTPS_PROXY", " "), ("HTTP_PROXY", "")], None, None);
    check(&[("NO_PROXY", "*")], None, None);
    check(&[("HTTPS_PROXY", "https://proxy.corp")], Some("https://proxy.corp"), None);
    let both = [("HTTPS_PROXY", "http://a:1"), ("https_proxy", "http://b:1")];
    let found = check(&both, Some("http://a:1"), None);
    assert_eq!(
        found.aside,
        ["`https_proxy` is not `HTTPS_PROXY`, which takes precedence; remove one of them"]
    );
    let login = [
        ("HTTPS_PROXY", "http://acme%5Cada:p%40ss:w@rd@proxy.corp:8080"),
        ("NO_PROXY", "corp.test,.svc 10.0.0.0/8, a/b"),
    ];
    let found = check(&login, proxy, None);
    let shown = found.secure.as_ref().unwrap().authorization.as_ref().unwrap().expose();
    assert_eq!(shown, format!("Basic {}", BASE64_STANDARD.encode("acme\\ada:p@ss:w@rd")));
    let entries: Vec<String> = found.no_proxy.iter().map(ToString::to_string).collect();
    assert_eq!(entries, ["corp.test", "svc", "10.0.0.0/8"]);
    assert_eq!(found.aside.len(), 1, "{:?}", found.aside);
    assert!(found.aside[0].contains("`a/b` names no host"), "{:?}", found.aside);
}

#[test]
fn an_unusable_variable_is_ignored_and_reveals_no_password() {
    let config = config("");
    let check = |value: &str, expected: &str| {
        let found = of_environment(&config, &[("HTTPS_PROXY", value)]);
        assert!(found.is_empty(), "{value}");
        assert!(found.aside[0].contains(expected), "{value}: {:?}", found.aside);
        assert!(!found.aside[0].contains("secret"), "{:?}", found.aside);
    };
    check("socks5://u:secret@proxy.corp:1080", "scheme `socks5`");
    check("http://u:secret@127.0.0.1:3128", "names our own listener `out`");
    check("http://localhost:3128", "names our own listener `out`");
    check("http://u:secret@:8080", "an invalid host");
    check("http://u:secret@proxy.corp:0", "an invalid port");
    check("http://proxy.corp:8080/x", "has a path");
}

#[test]
fn the_config_wins_and_can_leave_the_environment_aside() {
    let of = |rest: &str| Parents::of(&config(rest)).unwrap();
    let parents = of("egress: {parent: {url: 'http://proxy.corp:8080'}}");
    assert_eq!(parents.secure.as_ref().unwrap().from, "egress.parent");
    assert!(of("egress: {parent_from_environment: false}").is_empty());
}

#[test]
fn a_status_is_that_of_http_1() {
    let check = |head: &str, expected: Option<u16>| {
        assert_eq!(status(head.as_bytes()), expected, "{head:?}");
    };
    check("HTTP/1.1 200 Connection established\r\n\r\n", Some(200));
    check("HTTP/1.0 407 Proxy Authentication Required\r\n\r\n", Some(407));
    check("HTTP/1.1 200\r\n\r\n", Some(200));
    for wrong in [
        "HTTP/1.1 20\r\n\r\n",
        "HTTP/1.1 2000\r\n",
        "HTTP/2 200\r\n",
        "HTTP/1.1  200\r\n",
        "HTTP/1.1 +20 \r\n",
        "200 OK\r\n",
        "",
    ] {
        check(wrong, None);
    }
}

/// The result with a proxy that sends this response, and what is then read through it.
async fn answering(answer: &'static [u8]) -> Result<Vec<u8>, Fault> {
    let listening = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listening.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listening.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(
            head.starts_with("CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n"),
            "{head}"
        );
        // In pieces, so that every cut is one.
        for byte in answer {
            let _ = client.write_all(&[*byte]).await;
        }
    });
    let url = format!("http://{at}").parse().unwrap();
    let parent = Parent::new(url, "egress.parent", Some(basic("a", "b")), None);
    let patience = Duration::from_secs(5);
    let (mut connection, reached) =
        parent.tunnel(&Dial::default(), ("api.test", 443), patience).await?;
    assert_eq!(reached, at);
    let mut rest = Vec::new();
    connection.read_to_end(&mut rest).await.unwrap();
    Ok(rest)
}

#[tokio::test]
async fn a_tunnel_opens_when_the_proxy_accepts_and_no_byte_is_lost() {
    let ok = answering(b"HTTP/1.1 200 OK\r\nVia: squid\r\n\r\nSSH-2.0").await;
    assert_eq!(ok.unwrap(), b"SSH-2.0");
    let early =
        answering(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n").await;
    assert_eq!(early.unwrap(), b"");
    let refused = |status| Fault::Refused(Label::lossy(""), status);
    let kind = std::mem::discriminant::<Fault>;
    for (answer, expected) in [
        (&b"HTTP/1.1 407 Who\r\n\r\n"[..], refused(407)),
        (b"HTTP/1.1 302 Found\r\nLocation: http://evil.test/\r\n\r\n", refused(302)),
        (b"HTTP/1.1 101 Switching\r\n\r\n", refused(101)),
    ] {
        match answering(answer).await.unwrap_err() {
            Fault::Refused(_, status) => {
                assert_eq!(Fault::Refused(Label::lossy(""), status), expected)
            }
            other => panic!("{other}"),
        }
    }
    let malformed = kind(&Fault::Malformed(Label::lossy("")));
    for answer in [&b"SSH-2.0-OpenSSH\r\n"[..], b"HTTP/1.1 2xx\r\n\r\n", b"HTTP/3 200 OK\r\n\r\n"] {
        assert_eq!(kind(&answering(answer).await.unwrap_err()), malformed);
    }
    let long: &'static [u8] = Box::leak(
        [b"HTTP/1.1 200 OK\r\n".as_slice(), &vec![b'a'; HEAD_MAX + 1]].concat().into_boxed_slice(),
    );
    assert_eq!(kind(&answering(long).await.unwrap_err()), malformed);
    let gone = kind(&Fault::Unreachable(Label::lossy(""), String::new()));
    assert_eq!(kind(&answering(b"HTTP/1.1 200").await.unwrap_err()), gone);
}
