//! Where else than in `Authorization` a token stands.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{HeaderName, Located};

/// A header in which a proxy in front shows the token that it made, for example
/// `x-goog-iap-jwt-assertion`. It is believed only from the `trusted_proxies` of a listener; whoever else
/// sends it, it is removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenFrom {
    /// The header: the token alone, without a scheme.
    pub header: Located<HeaderName>,
    /// Whether the parts of a token may end in `=`, as those of AWS's load balancer (ALB) do. What is
    /// verified is what came.
    #[serde(default)]
    pub padding: Padding,
    /// Whether upstreams see the header, as it came from a trusted proxy: for those that verify it
    /// themselves, as Backstage's sign-in by IAP or Cloudflare Access does. Upstreams that are `external`
    /// never do.
    #[serde(default)]
    pub preserve: bool,
}

/// Whether base64url may be padded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// No, as RFC 7515 wants it.
    #[default]
    Refused,
    /// Each part may be.
    Allowed,
}
