//! Low-priority work on its own thread: applying a config of thousands of routes keeps a core busy for some
//! time, and no request should wait for that.

use std::{io, thread};

use tokio::{runtime::Handle, sync::oneshot};

/// As `nice` has it: of two that want a core, the other gets nine tenths of it.
const NICE: i32 = 10;

/// Runs it to its end there, even if the caller is dropped.
///
/// # Errors
/// If no thread can be started.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> io::Result<T> {
    let runtime = Handle::current();
    let (tell, told) = oneshot::channel();
    thread::Builder::new().name("aside".to_owned()).spawn(move || {
        // Only for this thread. If it fails, the work is still done.
        let _ = rustix::process::setpriority_process(None, NICE);
        let _ = tell.send(runtime.block_on(work));
    })?;
    told.await.map_err(|_| io::Error::other("the work was not done"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_done_elsewhere_and_gives_way() {
        let nice = || rustix::process::getpriority_process(None).expect("it has one");
        let before = nice();
        let (elsewhere, there) = aside(async move {
            tokio::task::yield_now().await;
            (thread::current().name().map(str::to_owned), nice())
        })
        .await
        .unwrap();
        assert_eq!((elsewhere.as_deref(), there), (Some("aside"), before.max(NICE)));
        assert_eq!(nice(), before, "nobody else does");
    }
}
