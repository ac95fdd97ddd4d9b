//! A small server for stand-ins: HTTP/1.1 and HTTP/2, with TLS or without, behaving as a fault requires.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// This header marks a stand-in's response.
pub(super) const MARK: &str = "x-drill";
const HEAD_MAX: usize = 128 << 10;

/// How a stand-in behaves now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mood {
    /// Normally.
    Well,
    /// Normally, but late.
    Late(Duration),
    /// With this status, whatever the request.
    Failing(StatusCode),
    /// Every request breaks its connection.
    Resetting,
    /// Every connection is reset as soon as it is established.
    Away,
}

/// The service of a stand-in.
pub(super) trait Play: Send + Sync {
    /// Responds to a request whose body was read.
    fn answer(&self, asked: &Request<Bytes>) -> (StatusCode, Value);
}

/// The server of one stand-in.
#[derive(Clone)]
pub(super) struct Server {
    /// A change closes connections that are not in use, so that a pool does not hide it.
    pub(super) mood: watch::Receiver<Mood>,
    /// TLS, if it speaks that. A change closes connections, too.
    pub(super) tls: Option<watch::Receiver<Arc<rustls::ServerConfig>>>,
    /// Whether a connection without TLS is HTTP/2.
    pub(super) plain_http2: bool,
    pub(super) play: Arc<dyn Play>,
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

impl Server {
    /// Accepts connections until it is dropped.
    pub(super) async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            connections.spawn(self.clone().connection(stream));
            while connections.try_join_next().is_some() {}
        }
    }

    async fn connection(mut self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        self.mood.mark_unchanged();
        let mood = *self.mood.borrow();
        if mood == Mood::Away {
            return;
        }
        let Some(mut tls) = self.tls.clone() else {
            if mood == Mood::Resetting {
                // Unread bytes make the kernel reset the connection.
                let _ = stream.readable().await;
                return;
            }
            return self.spoken(stream, self.plain_http2).await;
        };
        tls.mark_unchanged();
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.borrow()));
        let Ok(stream) = acceptor.accept(stream).await else { return };
        if mood == Mood::Resetting {
            // TLS may have read the request already, so set the socket option.
            let mut stream = stream;
            let _ = stream.read(&mut [0]).await;
            let _ = stream.get_ref().0.set_zero_linger();
            return;
        }
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        tokio::select! {
            () = self.spoken(stream, http2) => {}
            _ = tls.changed() => {}
        }
    }

    async fn spoken(&mut self, wire: impl Wire, http2: bool) {
        // How a connection ends is the proxy's to mind.
        if http2 {
            let _ = self.http2(wire).await;
        } else {
            let _ = self.http1(wire).await;
        }
    }

    async fn http1(&mut self, mut wire: impl Wire) -> io::Result<()> {
        let mut got = Vec::new();
        loop {
            let asked = tokio::select! {
                asked = request(&mut wire, &mut got) => asked?,
                _ = self.mood.changed() => return Ok(()),
            };
            let Some(asked) = asked else { return Ok(()) };
            let (status, body) = self.answer(&asked).await;
            let body = body.to_string();
            let mut answer = format!(
                "HTTP/1.1 {} drill\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{MARK}: 1\r\n\r\n",
                status.as_u16(),
                body.len()
            );
            if asked.method() != Method::HEAD {
                answer += &body;
            }
            wire.write_all(answer.as_bytes()).await?;
            wire.flush().await?;
        }
    }

    async fn http2(&mut self, wire: impl Wire) -> Result<(), h2::Error> {
        let mut connection = h2::server::handshake(wire).await?;
        let mut in_flight = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = connection.accept() => accepted,
                _ = self.mood.changed() => {
                    connection.graceful_shutdown();
                    continue;
                }
            };
            let Some(accepted) = accepted else { return Ok(()) };
            let (request, mut respond) = accepted?;
            let server = self.clone();
            in_flight.spawn(async move {
                let (head, mut stream) = request.into_parts();
                while let Some(Ok(chunk)) = stream.data().await {
                    let _ = stream.flow_control().release_capacity(chunk.len());
                }
                let asked = Request::from_parts(head, Bytes::new());
                let (status, body) = server.answer(&asked).await;
                let answer = Response::builder()
                    .status(status)
                    .version(Version::HTTP_2)
                    .header("content-type", "application/json")
                    .header(MARK, "1")
                    .body(())
                    .expect("the headers are valid");
                let nothing = asked.method() == Method::HEAD;
                let Ok(mut sent) = respond.send_response(answer, nothing) else { return };
                if !nothing {
                    let _ = sent.send_data(Bytes::from(body.to_string()), true);
                }
            });
            while in_flight.try_join_next().is_some() {}
        }
    }

    async fn answer(&self, asked: &Request<Bytes>) -> (StatusCode, Value) {
        let mood = *self.mood.borrow();
        if let Mood::Late(late) = mood {
            tokio::time::sleep(late).await;
        }
        let answer = self.play.answer(asked);
        match mood {
            Mood::Failing(status) => (status, Value::String("the stand-in is sick".to_owned())),
            _ => answer,
        }
    }
}

/// Reads a request with its body; `None` at the end of the connection.
async fn request(wire: &mut impl Wire, got: &mut Vec<u8>) -> io::Result<Option<Request<Bytes>>> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    let end = loop {
        if let Some(end) = memchr::memmem::find(got, b"\r\n\r\n") {
            break end;
        }
        if got.len() > HEAD_MAX {
            return Err(wrong());
        }
        if wire.read_buf(got).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&got[..end]).into_owned();
    got.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let mut asked = Request::builder().method(method).uri(target);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        asked = asked.header(name, value.trim());
    }
    let asked = asked.body(()).map_err(|_| wrong())?;
    let body = body(wire, got, asked.headers()).await?;
    Ok(Some(asked.map(|()| body)))
}

async fn body(wire: &mut impl Wire, got: &mut Vec<u8>, headers: &HeaderMap) -> io::Result<Bytes> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let length = text(http::header::CONTENT_LENGTH).and_then(|text| text.parse::<usize>().ok());
    let chunked = headers.get(http::header::TRANSFER_ENCODING).map(HeaderValue::as_bytes);
    if chunked == Some(b"chunked") {
        // The body is ignored, and we send none that contains this.
        let last = b"0\r\n\r\n";
        let end = loop {
            if let Some(at) = memchr::memmem::find(got, last) {
                break at + last.len();
            }
            if wire.read_buf(got).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        return Ok(got.drain(..end).collect::<Vec<u8>>().into());
    }
    let length = length.unwrap_or(0);
    while got.len() < length {
        if wire.read_buf(got).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(got.drain(..length).collect::<Vec<u8>>().into())
}
