//! Idempotency keys in flight, on all replicas: the first claim wins.

use std::{sync::atomic::Ordering, time::Duration};

use filters::{Denial, hex};
use redis::aio::MultiplexedConnection;
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::Store;

/// A key that is claimed; it is given up when this is dropped.
pub struct Claim {
    key: String,
    /// Identifies the claim, so that no other is released in its place.
    token: String,
    connection: MultiplexedConnection,
    /// Renews it while its exchange is in progress.
    renewal: AbortHandle,
}

const RENEW: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end";
const RELEASE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end";
/// No request waits for it.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// Added to an exchange's deadline, for the work after its end.
const SPARE: Duration = Duration::from_secs(10);

impl Store {
    /// Claims a key for an exchange that waits for its response for `whole` at most. The claim is renewed
    /// while the exchange is in progress. `None` while the store is unreachable: then each replica only
    /// knows its own.
    ///
    /// # Errors
    /// [`Denial::IdempotencyInFlight`] if another replica has it.
    pub async fn claim(&self, key: &[u8; 32], whole: Duration) -> Result<Option<Claim>, Denial> {
        let Some(mut connection) = self.connection.lock().clone() else { return Ok(None) };
        let number = self.claims.fetch_add(1, Ordering::Relaxed);
        let key = self.key(&format!("once:{}", hex::write(key)));
        let token = format!("{}.{number}", self.id);
        let millis = u64::try_from((whole + SPARE).as_millis()).unwrap_or(u64::MAX);
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(&token).arg("NX").arg("PX").arg(millis);
        let set =
            timeout(**self.written.timeout, set.query_async::<Option<String>>(&mut connection));
        match set.await {
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => return Err(Denial::IdempotencyInFlight),
            // It may have been set anyway.
            Ok(Err(_)) | Err(_) => self.trouble.notify_one(),
        }
        let renewal = tokio::spawn(renew(
            (key.clone(), token.clone()),
            connection.clone(),
            (whole + SPARE) / 2,
            millis,
        ));
        Ok(Some(Claim { key, token, connection, renewal: renewal.abort_handle() }))
    }
}

async fn renew(
    (key, token): (String, String),
    mut connection: MultiplexedConnection,
    every: Duration,
    millis: u64,
) {
    loop {
        sleep(every).await;
        let mut renew = redis::cmd("EVAL");
        renew.arg(RENEW).arg(1).arg(&key).arg(&token).arg(millis);
        // Otherwise it expires by itself.
        let _ = timeout(RELEASE_TIMEOUT, renew.exec_async(&mut connection)).await;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.renewal.abort();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut connection = self.connection.clone();
        let mut release = redis::cmd("EVAL");
        release.arg(RELEASE).arg(1).arg(&self.key).arg(&self.token);
        runtime.spawn(async move {
            // Otherwise it expires by itself.
            let _ = timeout(RELEASE_TIMEOUT, release.exec_async(&mut connection)).await;
        });
    }
}
