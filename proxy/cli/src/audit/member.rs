//! The members that a record may have, in the order of the columns.

use clap::ValueEnum;
use serde::Deserialize;

/// A member of a record, by its name in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(super) enum Member {
    Time,
    Kind,
    Id,
    TraceId,
    Listener,
    Client,
    Tls,
    Decision,
    Code,
    TokenFault,
    Step,
    Passed,
    Status,
    Method,
    Host,
    Path,
    Upgrade,
    Query,
    QueryMalformed,
    HostInPart,
    PathInPart,
    Target,
    Caller,
    OnBehalfOf,
    Workspace,
    AskedWorkspace,
    WorkspaceAmbiguous,
    CookieWorkspace,
    CookieAmbiguous,
    Plugin,
    Route,
    Rule,
    Operation,
    Graphql,
    Class,
    Upstream,
    UpstreamAddress,
    EgressRule,
    WouldDeny,
    Resolved,
    ResolvedOwn,
    Parent,
    Hello,
    ServerName,
    #[serde(alias = "encrypted_hello")]
    EncryptedClientHello,
    IdentityStrength,
    Credential,
    Issuer,
    Proof,
    Roles,
    Groups,
    Workspaces,
    DefaultWorkspace,
    LeftOut,
    CallerPlugin,
    Certificate,
    Attempts,
    BytesIn,
    BytesOut,
    DurationUs,
    UpstreamUs,
    #[serde(alias = "turn_us")]
    PacingDelayUs,
    Shared,
    FallbackFor,
    Upgraded,
    Intended,
    Cut,
    IdempotencyKeySha256,
    ControlId,
    RequestLine,
    Config,
    Facts,
    Lost,
    Unknown,
    TornBytes,
    Run,
    Previous,
    Version,
    Source,
    Successful,
    PreviousConfig,
    Changes,
    Messages,
    Position,
    Added,
    Removed,
    File,
    Subject,
    Serial,
    NotAfter,
    Lines,
    Due,
    Cause,
    Oldest,
    Part,
    Address,
    Condition,
    Reason,
    Until,
    Switch,
    Change,
    By,
    RemovedBy,
    Replicas,
    OnError,
    Key,
    Signature,
    Chain,
    /// What a later version may add.
    #[serde(other)]
    #[value(skip)]
    Other,
}

impl Member {
    /// The number of known members.
    pub(super) const COUNT: usize = Self::Other as usize;

    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_the_same_name_on_the_command_line_and_in_json() {
        assert_eq!(Member::value_variants().len(), Member::COUNT);
        for (index, member) in Member::value_variants().iter().enumerate() {
            assert_eq!(*member as usize, index);
            let quoted = format!("\"{}\"", member.name());
            assert_eq!(serde_json::from_str::<Member>(&quoted).unwrap(), *member);
        }
        assert_eq!(Member::IdempotencyKeySha256.name(), "idempotency_key_sha256");
        assert_eq!(serde_json::from_str::<Member>("\"new\"").unwrap(), Member::Other);
    }

    #[test]
    fn every_member_that_the_manual_has_is_a_column() {
        let manual = include_str!("../../../../docs/audit.md");
        let (_, table) = manual.split_once("## What a record contains").unwrap();
        let mut found = 0;
        for row in table.lines().skip_while(|line| !line.starts_with('|')).skip(2) {
            let Some(names) = row.strip_prefix("| ").and_then(|row| row.split(" | ").next()) else {
                break;
            };
            for name in names.split(", ") {
                let name = name.trim_matches('`');
                assert!(Member::from_str(name, false).is_ok(), "`{name}` is no column");
                found += 1;
            }
        }
        assert!(found > 60, "{found}");
    }
}
