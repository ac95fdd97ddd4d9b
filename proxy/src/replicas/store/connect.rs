//! Finds the Redis that writes, and connects to it.
//!
//! By our own code and not the Redis client's: so names are resolved and certificates verified as everywhere
//! here, and files are read again for each connection.

use std::{path::Path, sync::Arc};

use config::{HostPort, Store, StoreKind, StoreTls};
use redis::{
    AsyncConnectionConfig, FromRedisValue, RedisConnectionInfo, Value, aio::MultiplexedConnection,
    cmd, from_redis_value,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::fault::Fault;
use crate::{
    net::{dial::Dial, fetch},
    secret_file,
};

/// Connects to the node that writes our keys.
pub(super) async fn connect(written: &Store, dial: &Dial) -> Result<MultiplexedConnection, Fault> {
    let place = match written.kind {
        StoreKind::Standalone => written.addresses[0].value.clone(),
        StoreKind::Sentinel | StoreKind::Cluster => locate(written, dial).await?,
    };
    open(written, dial, &place, &login(written)?).await
}

/// The address of the master, from the first node that responds.
async fn locate(written: &Store, dial: &Dial) -> Result<HostPort, Fault> {
    let mut last = Fault::new("no_master", "no sentinel knows where the master is");
    for address in &written.addresses {
        let found = match written.kind {
            StoreKind::Sentinel => by_sentinel(written, dial, address).await,
            _ => by_node(written, dial, address).await,
        };
        match found {
            Ok(place) => return Ok(place),
            Err(fault) => last = fault,
        }
    }
    Err(last)
}

async fn by_sentinel(written: &Store, dial: &Dial, sentinel: &HostPort) -> Result<HostPort, Fault> {
    let name = written.sentinel_username.as_ref().map(|name| &*name.value);
    let login = login_of(name, written.sentinel_password_file.as_deref())?;
    let mut connection = open(written, dial, sentinel, &login).await?;
    let master = written.master.as_deref().map_or("mymaster", String::as_str);
    let mut question = cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(master);
    let found: Option<(String, u16)> = ask(written, &question, &mut connection).await?;
    match found {
        Some((host, port)) => Ok(HostPort { host, port }),
        None => Err(Fault::new("no_master", format!("the sentinels know no master `{master}`"))),
    }
}

async fn by_node(written: &Store, dial: &Dial, node: &HostPort) -> Result<HostPort, Fault> {
    let mut connection = open(written, dial, node, &login(written)?).await?;
    let key = format!("{{{}}}", *written.prefix);
    let mut slot = cmd("CLUSTER");
    slot.arg("KEYSLOT").arg(key);
    let slot: u16 = ask(written, &slot, &mut connection).await?;
    let mut slots = cmd("CLUSTER");
    slots.arg("SLOTS");
    let slots: Vec<Vec<Value>> = ask(written, &slots, &mut connection).await?;
    let of_range = |range: &Vec<Value>| {
        let [first, last, master, ..] = &range[..] else { return None };
        let (first, last): (u16, u16) = (read(first)?, read(last)?);
        let Value::Array(master) = master else { return None };
        let [host, port, ..] = &master[..] else { return None };
        let host: Option<String> = read(host).filter(|host: &String| !host.is_empty());
        // A node that does not know its own name has the address that was used.
        let host = host.unwrap_or_else(|| node.host.clone());
        let port = read(port)?;
        (first..=last).contains(&slot).then_some(HostPort { host, port })
    };
    let unknown = || Fault::new("no_master", "no node of the cluster has our keys");
    slots.iter().find_map(of_range).ok_or_else(unknown)
}

fn read<T: FromRedisValue>(value: &Value) -> Option<T> {
    from_redis_value(value.clone()).ok()
}

async fn ask<T: FromRedisValue>(
    written: &Store,
    question: &redis::Cmd,
    connection: &mut MultiplexedConnection,
) -> Result<T, Fault> {
    let answer = timeout(**written.connect_timeout, question.query_async(connection)).await;
    Ok(answer.map_err(|_| Fault::late())??)
}

/// Opens a connection, and authenticates.
async fn open(
    written: &Store,
    dial: &Dial,
    place: &HostPort,
    login: &RedisConnectionInfo,
) -> Result<MultiplexedConnection, Fault> {
    let patience = **written.connect_timeout;
    let opening = async {
        let unresolved =
            |error: crate::net::dial::Unresolved| Fault::new("unresolved", error.to_string());
        let addresses = dial.addresses(&place.host, place.port).await.map_err(unresolved)?;
        let connected = dial.connect(&addresses, patience).await;
        let (stream, _) = connected.map_err(|error| Fault::of_connection(&error))?;
        let Some(tls) = &written.tls else { return greet(stream, login).await };
        let config = Arc::new(client(tls).map_err(|cause| Fault::new("files", cause))?);
        let wrong = |_| Fault::new("tls", "its host is not a name that a certificate can have");
        let name = ServerName::try_from(place.host.clone()).map_err(wrong)?;
        let failed = |error| Fault::new("tls", format!("the TLS handshake failed: {error}"));
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(failed)?;
        greet(stream, login).await
    };
    timeout(patience, opening)
        .await
        .unwrap_or_else(|_| Err(Fault::of_connection(&std::io::ErrorKind::TimedOut.into())))
}

async fn greet<S>(stream: S, login: &RedisConnectionInfo) -> Result<MultiplexedConnection, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // The caller limits the time.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let (connection, driver) =
        MultiplexedConnection::new_with_config(login, stream, config).await?;
    // It ends with the last handle to the connection.
    tokio::spawn(driver);
    Ok(connection)
}

fn login(written: &Store) -> Result<RedisConnectionInfo, Fault> {
    login_of(written.username.as_deref(), written.password_file.as_deref())
}

fn login_of(
    name: Option<&str>,
    file: Option<&std::path::PathBuf>,
) -> Result<RedisConnectionInfo, Fault> {
    let login = RedisConnectionInfo::default().set_skip_set_lib_name();
    let Some(file) = file else { return Ok(login) };
    let password =
        secret_file::line(file).map_err(|error| Fault::new("files", error.to_string()))?;
    let login = login.set_password(password.expose());
    Ok(match name {
        Some(name) => login.set_username(name),
        None => login,
    })
}

/// The TLS config: our certificate, and the CAs to trust.
fn client(written: &StoreTls) -> Result<rustls::ClientConfig, String> {
    let ca = written.ca.as_ref().map(|file| Path::new(&file.value));
    let builder = fetch::believing(ca)?;
    let (Some(cert), Some(key)) = (&written.client_cert, &written.client_key) else {
        return Ok(builder.with_no_client_auth());
    };
    let (chain, key) = certs::client_pair(cert, key).map_err(|error| error.to_string())?;
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let key = PrivatePkcs8KeyDer::from(key).into();
    builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())
}
