//! A call out through a forward listener: CONNECT with TLS within, or the absolute form.

use std::io;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Call, Client, Credential, MARK, PATIENCE, Saw, seen};

impl Client {
    /// Makes a call out.
    pub(super) async fn out(&self, call: &Call) -> io::Result<Saw> {
        let Call::Out { proxy, proxy_tls, host, port, tunnel, credential } = call else {
            unreachable!("it was asked which it is")
        };
        let (stream, _) = self.dial.connect(&[*proxy], PATIENCE).await?;
        if *proxy_tls {
            let stream = self.secured(stream, "localhost").await?;
            return self.called(stream, host, *port, *tunnel, credential).await;
        }
        self.called(stream, host, *port, *tunnel, credential).await
    }

    async fn called<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        mut proxy: S,
        host: &str,
        port: u16,
        tunnel: bool,
        credential: &Credential,
    ) -> io::Result<Saw> {
        let authorization = self.authorization(credential);
        let authorization = authorization
            .map_or_else(String::new, |value| format!("proxy-authorization: {value}\r\n"));
        let at = format!("{host}:{port}");
        if !tunnel {
            let head = format!(
                "GET http://{at}/drill HTTP/1.1\r\nhost: {at}\r\n{authorization}connection: close\r\n\r\n"
            );
            return answer(&mut proxy, &head).await.map(|(saw, _)| saw);
        }
        let head = format!("CONNECT {at} HTTP/1.1\r\nhost: {at}\r\n{authorization}\r\n");
        let (saw, status) = answer(&mut proxy, &head).await?;
        if status != 200 {
            return Ok(saw);
        }
        let mut called = self.secured(proxy, host).await?;
        let head = format!("GET /drill HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let (saw, _) = answer(&mut called, &head).await?;
        let _ = called.shutdown().await;
        Ok(saw)
    }

    async fn secured<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        name: &str,
    ) -> io::Result<tokio_rustls::client::TlsStream<S>> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        self.tls.connect(name, stream).await
    }
}

/// Sends a head and reads the response with its body.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut S,
    head: &str,
) -> io::Result<(Saw, u16)> {
    wire.write_all(head.as_bytes()).await?;
    wire.flush().await?;
    let mut got = Vec::new();
    let end = loop {
        if let Some(end) = memchr::memmem::find(&got, b"\r\n\r\n") {
            break end;
        }
        if wire.read_buf(&mut got).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let text = String::from_utf8_lossy(&got[..end]).to_ascii_lowercase();
    let status = text.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let header =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let length = header("content-length").and_then(|text| text.parse::<usize>().ok());
    while got.len() < end + 4 + length.unwrap_or(0) {
        if wire.read_buf(&mut got).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    // A tunnel's refusal has its code in the reason phrase.
    let reason = text.lines().next().and_then(|line| line.splitn(3, ' ').nth(2));
    let code = header("proxy-status").map(str::to_owned).or_else(|| {
        let reason = reason.filter(|reason| reason.contains('_'))?;
        Some(format!("stagedoor; error=\"{reason}\""))
    });
    Ok((seen(status, code.as_deref(), header(MARK).is_some()), status))
}
