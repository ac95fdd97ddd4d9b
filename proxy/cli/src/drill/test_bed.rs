//! One running private copy: the proxy as a process, and the stand-ins around it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use certs::dev::Authority;
use config::{Config, Limit, Located};
use tokio::time::Instant;

use super::{
    child::{Child, Counts},
    copy::{self, Counting, Place, PrivateCopy, Shared, own_certificate},
    fault::Validity,
    redis::Redis,
    report::StoreSeen,
    stand_ins::{Sockets, StandIns, port},
    tokens::{Mint, keys_file},
};

/// A running private copy. The process ends before its stand-ins do.
pub(super) struct TestBed {
    pub(super) child: Child,
    /// Where it counts limits, if those are the drill's subject.
    pub(super) redis: Option<Redis>,
    /// The observations of that.
    pub(super) store: Option<StoreSeen>,
    pub(super) stand_ins: StandIns,
    pub(super) copy: PrivateCopy,
    pub(super) mint: Arc<Mint>,
    pub(super) authority: Authority,
    /// Promises that were seen to be broken.
    pub(super) broken: Vec<String>,
    folder: PathBuf,
    /// The ports of called hosts whose names are resolved.
    called: Vec<u16>,
}

/// The copy checks its Redis every second.
const MISSED: Duration = Duration::from_secs(10);
const FOUND: Duration = Duration::from_secs(10);

impl TestBed {
    /// Starts a copy in its own folder, with its own Redis for shared limits.
    pub(super) async fn start(
        written: &Config,
        folder: &Path,
        counting: Counting<Limit>,
    ) -> Result<Self, String> {
        let told = |error: &dyn std::fmt::Display| format!("cannot prepare a copy: {error}");
        fs::create_dir_all(folder).map_err(|error| told(&error))?;
        let authority = Authority::new("stagedoor drill").map_err(|error| told(&error))?;
        let sockets = Sockets::bind(written).map_err(|error| told(&error))?;
        let mut redis = None;
        let counting = match counting {
            Counting::Shared(limit) => {
                let address = redis.insert(Redis::start(folder).await?).address;
                Counting::Shared(Shared { address, limit })
            }
            Counting::Nothing => Counting::Nothing,
            Counting::AsWritten => Counting::AsWritten,
        };
        let place = Place { folder, authority: &authority, sockets: &sockets, counting };
        let mut copy = PrivateCopy::write(written, &place)?;
        let mint = Arc::new(std::mem::take(&mut copy.mint));
        let called = sockets.called.iter().chain(sockets.origins.values().map(|(l, _)| l));
        let called = called.map(port).collect();
        let stand_ins = StandIns::begin(sockets, &authority, &copy.hosts, Arc::clone(&mint))?;
        let addresses: Vec<_> = copy.config.listeners.values().map(|l| l.address).collect();
        let child = Child::start(&copy.file, copy.admin, &addresses).await?;
        if redis.is_some() && child.counts(Counts::Shared, FOUND).await?.is_none() {
            return Err(format!("the copy does not find its Redis:\n{}", child.said()));
        }
        let folder = folder.to_owned();
        let (broken, store) = (Vec::new(), None);
        Ok(Self { child, redis, store, stand_ins, copy, mint, authority, broken, folder, called })
    }

    /// Ends the Redis, once the copy counts there.
    pub(super) async fn end_redis(&mut self) -> Result<(), String> {
        let Some(redis) = &mut self.redis else { return Ok(()) };
        let Some(tokens_leased) = self.child.counts(Counts::Shared, MISSED).await? else {
            return Err(format!("the copy lost its Redis too early:\n{}", self.child.said()));
        };
        self.store = Some(StoreSeen { tokens_leased, found_after: None });
        redis.kill();
        Ok(())
    }

    /// Starts it again, once the copy has missed it.
    pub(super) async fn begin_redis(&mut self) -> Result<(), String> {
        let Some(redis) = &mut self.redis else { return Ok(()) };
        if self.child.counts(Counts::Alone, MISSED).await?.is_none() {
            return Err(
                "the copy did not notice that its Redis was down, so this shows nothing".to_owned()
            );
        }
        redis.start_again().await
    }

    /// Waits until the copy counts in its Redis again, if it has one, and notes how long that took.
    pub(super) async fn find_redis(&mut self) -> Result<(), String> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let began = Instant::now();
        let found = self.child.counts(Counts::Shared, FOUND).await?;
        let after = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        store.found_after = found.map(|_| after);
        Ok(())
    }

    /// From now on issuers have other keys. Those in files are read again.
    pub(super) async fn rotate(&self) -> Result<(), String> {
        self.mint.rotate();
        let issuers = self.copy.config.identity.issuers.iter();
        let in_files: Vec<_> = issuers.filter(|(_, i)| i.keys.file.is_some()).collect();
        for (name, _) in &in_files {
            let (file, keys) = (keys_file(&self.folder, name), self.mint.keys(name).to_string());
            fs::write(file, keys).map_err(|error| error.to_string())?;
        }
        if !in_files.is_empty() {
            self.child.reload().await?;
        }
        Ok(())
    }

    /// Waits where a poisoned name leads.
    pub(super) fn set_trap(&mut self) -> Result<(), String> {
        let set = self.stand_ins.set_trap(&self.called);
        set.map_err(|error| format!("cannot set a trap on loopback: {error}"))
    }

    /// Gives every listener another certificate.
    pub(super) fn write_certificates(&self, validity: Validity) -> Result<(), String> {
        let told = |error: &dyn std::fmt::Display| format!("cannot change certificates: {error}");
        let names = self.copy.names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for (name, _) in self.copy.config.listeners.iter().filter(|(_, l)| l.tls.is_some()) {
            let issued = match validity {
                Validity::Good => self.authority.server(&names),
                Validity::Expired => self.authority.expired_server(&names),
            };
            let pair = own_certificate(&self.folder, name);
            let issued = issued.map_err(|error| told(&error))?;
            issued.write(&pair.cert, &pair.key).map_err(|error| told(&error))?;
        }
        Ok(())
    }

    /// The name of a client's certificate that the config knows, if it knows one.
    pub(super) fn certificate(&self) -> &str {
        let known = self.copy.config.identity.client_certificates.first();
        known.map_or("drill", |known: &Located<_>| &known.value.name)
    }

    /// The folder of its records.
    pub(super) fn records(&self) -> PathBuf {
        copy::records(&self.folder)
    }
}
