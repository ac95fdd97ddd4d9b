//! Records of heads that never became a request.

use std::{net::IpAddr, sync::Arc};

use filters::audit::Refused;

use crate::{
    clock,
    data_plane::{
        gateway::Gateway,
        listener::{HeadRefusal, Refusals},
    },
    request_id::RequestId,
};

/// Bytes of a request line that are recorded.
const LINE_MAX: usize = 256;

/// Records the refused heads of one listener.
pub(crate) struct RefusalRecorder {
    gateway: Arc<Gateway>,
    listener: String,
}

impl RefusalRecorder {
    /// For the listener of this name.
    pub(crate) fn new(gateway: &Arc<Gateway>, listener: &str) -> Self {
        Self { gateway: Arc::clone(gateway), listener: listener.to_owned() }
    }
}

impl Refusals for RefusalRecorder {
    fn refused(&self, refusal: HeadRefusal, peer: IpAddr, head: &[u8], answered: bool) -> String {
        let (status, code, _) = refusal.row();
        let id = RequestId::new();
        let line = head.split(|b| *b == b'\r' || *b == b'\n').next().unwrap_or_default();
        // A query may contain what must not be recorded.
        let line = line.split(|b| *b == b'?').next().unwrap_or_default();
        let line = String::from_utf8_lossy(&line[..line.len().min(LINE_MAX)]);
        let snapshot = self.gateway.snapshot.load();
        self.gateway.metrics.refused(code);
        self.gateway.audit.record(|out| {
            let refused = Refused {
                at: clock::now(),
                request_id: id.as_str(),
                listener: &self.listener,
                peer,
                request_line: &line,
                code,
                status: if answered { status } else { 0 },
            };
            filters::audit::write_refused(out, &snapshot.policy, &refused);
        });
        id.as_str().to_owned()
    }

    fn cors(&self) -> Option<Arc<config::Cors>> {
        let snapshot = self.gateway.snapshot.load();
        let listener = snapshot.policy.listener(&self.listener)?;
        snapshot.policy.listeners[listener].cors.clone()
    }
}
