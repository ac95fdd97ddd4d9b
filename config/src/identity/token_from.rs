//! Where else than in `Authorization` a token stands.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{HeaderName, Located};

/// A header in which a proxy in front sends the token that it made, for example `x-goog-iap-jwt-assertion`.
/// It is trusted only from a listener's `trusted_proxies`; from any other client it is removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenFrom {
    /// The header. It holds the token alone, without a scheme.
    pub header: Located<HeaderName>,
    /// Whether the parts of a token may end in `=`, as those of AWS's load balancer (ALB) do. The token is
    /// verified exactly as received.
    #[serde(default)]
    pub padding: Padding,
    /// Whether upstreams see the header as it came from a trusted proxy, for those that verify it themselves,
    /// as Backstage's sign-in with IAP or Cloudflare Access does. `external` upstreams never see it.
    #[serde(default)]
    pub preserve: bool,
}

/// Whether base64url may be padded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// No, as RFC 7515 requires.
    #[default]
    Refused,
    /// Each part may be padded.
    Allowed,
}
