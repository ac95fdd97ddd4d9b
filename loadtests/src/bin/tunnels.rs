//! Tunnels through a forward proxy, and their other end.
//!
//! `tunnels serve ADDRESS` echoes the first byte of each connection and discards the rest; `tunnels new
//! PROXY TARGET SECONDS CONNECTIONS` opens one after the other and prints how many; `tunnels bulk
//! PROXY|direct TARGET MEGABYTES` prints the seconds that sending them takes; `tunnels idle PROXY TARGET
//! COUNT SECONDS` keeps that many open.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().expect("a number");
    match words[..] {
        ["serve", address] => serve(address).await,
        ["new", proxy, target, seconds, connections] => {
            println!("{}", open(proxy, target, number(seconds), number(connections)).await);
            Ok(())
        }
        ["bulk", proxy, target, megabytes] => {
            let mut stream = tunnel(proxy, target).await?;
            let (begun, block) = (Instant::now(), vec![b'x'; 1 << 20]);
            for _ in 0..number(megabytes) {
                stream.write_all(&block).await?;
            }
            stream.shutdown().await?;
            while stream.read(&mut [0; 64]).await? > 0 {}
            println!("{:.3}", begun.elapsed().as_secs_f64());
            Ok(())
        }
        ["idle", proxy, target, count, seconds] => {
            let mut all = Vec::new();
            for _ in 0..number(count) {
                all.push(tunnel(proxy, target).await?);
            }
            println!("{}", all.len());
            tokio::time::sleep(Duration::from_secs(number(seconds))).await;
            Ok(())
        }
        _ => {
            eprintln!("tunnels serve|new|bulk|idle: see its source");
            Ok(())
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a load generator dials addresses")]
async fn dial(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A tunnel whose other end has sent one byte back.
async fn tunnel(proxy: &str, target: &str) -> io::Result<TcpStream> {
    let mut stream = dial(if proxy == "direct" { target } else { proxy }).await?;
    if proxy != "direct" {
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if !answer.starts_with(b"HTTP/1.1 200") {
            return Err(io::Error::other(String::from_utf8_lossy(&answer)));
        }
    }
    stream.write_all(b"1").await?;
    stream.read_exact(&mut [0]).await?;
    Ok(stream)
}

async fn open(proxy: &str, target: &str, seconds: u64, connections: u64) -> u64 {
    let until = Instant::now() + Duration::from_secs(seconds);
    let opened = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let (proxy, target) = (proxy.to_owned(), target.to_owned());
        let opened = Arc::clone(&opened);
        tasks.spawn(async move {
            while Instant::now() < until {
                tunnel(&proxy, &target).await.expect("a tunnel opens");
                opened.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("every tunnel opens");
    }
    opened.load(Ordering::Relaxed)
}

async fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut space = vec![0; 1];
            if stream.read_exact(&mut space).await.is_ok() {
                let _ = stream.write_all(&space).await;
                let mut space = vec![0; 64 << 10];
                while stream.read(&mut space).await.is_ok_and(|read| read > 0) {}
            }
        });
    }
}
