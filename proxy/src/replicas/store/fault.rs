//! Why the store is unreachable: a label for metrics, and a sentence for operators.

use std::{fmt, io};

use redis::{ErrorKind, RedisError, ServerError};

/// Why the store is unreachable. Contains nothing that could hold a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// One of a closed set.
    pub cause: &'static str,
    sentence: String,
}

impl Fault {
    pub(super) fn new(cause: &'static str, sentence: impl Into<String>) -> Self {
        Self { cause, sentence: sentence.into() }
    }

    pub(super) fn late() -> Self {
        Self::new("timeout", "it did not respond in time (`store.timeout`)")
    }

    pub(super) fn of_connection(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                Self::new("refused", "it refused the connection: nothing listens there")
            }
            io::ErrorKind::TimedOut => {
                Self::new("timeout", "no connection in time (`store.connect_timeout`)")
            }
            _ => Self::new("unreachable", format!("no connection: {error}")),
        }
    }
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        if error.is_timeout() {
            return Self::late();
        }
        if error.is_io_error() || error.is_connection_dropped() {
            return Self::new("closed", "the connection broke off");
        }
        let refused_password = error.kind() == ErrorKind::AuthenticationFailed;
        // Of a pipeline it is the first of its errors.
        let first = error.clone().into_server_errors();
        let first = first.as_ref().and_then(|all| all.first()).map(|(_, error)| error);
        let code = error.code().or_else(|| first.map(ServerError::code)).unwrap_or_default();
        let detail = error.detail().or_else(|| first.and_then(ServerError::details));
        // The text after a server's error code may repeat what it was sent.
        match detail.and_then(of_script).unwrap_or(code) {
            "OOM" => Self::new(
                "out_of_memory",
                "it is out of memory and refuses writes; raise its `maxmemory`, or let other keys expire",
            ),
            "LOADING" => Self::new("loading", "it is still loading its data"),
            "READONLY" => Self::new("read_only", "it is a replica, which refuses writes"),
            "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" => {
                Self::new("no_master", "it has no master right now")
            }
            "MOVED" | "ASK" => Self::new("moved", "our keys are on another node"),
            "WRONGPASS" | "NOAUTH" => Self::of_password(),
            "NOPERM" => Self::new(
                "not_allowed",
                "the user lacks a permission; docs/shared-limits.md lists what it needs",
            ),
            "MISCONF" => Self::new("not_saving", "it cannot save its data, and so refuses writes"),
            "NOREPLICAS" => Self::new("no_replicas", "it has too few replicas to accept writes"),
            "BUSY" => Self::new("busy", "another client's script is blocking it"),
            _ if refused_password => Self::of_password(),
            "" => Self::new("protocol", "it does not respond like Redis"),
            code => {
                let code: String =
                    code.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
                Self::new("other", format!("it responded with `{code}`"))
            }
        }
    }
}

/// The code of an error within a script: before Redis 7 the script's own code is `ERR`.
fn of_script(detail: &str) -> Option<&str> {
    let (_, said) = detail.strip_prefix("Error running script")?.split_once(": -")?;
    said.split(' ').next()
}

impl Fault {
    fn of_password() -> Self {
        Self::new("password", "it refused the password or the user name")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_error_is_reported_by_its_code_without_what_it_was_sent() {
        let check = |said: &str, cause: &str| {
            let value = redis::parse_redis_value(format!("-{said}\r\n").as_bytes());
            let error = value.and_then(redis::Value::extract_error).expect_err("it is an error");
            let fault = Fault::from(error);
            assert_eq!(fault.cause, cause, "{said}");
            assert!(!fault.to_string().contains("hunter2"), "{fault}");
        };
        check(
            "OOM command not allowed when used memory > 'maxmemory'. script: 0a, on @user_script:1.",
            "out_of_memory",
        );
        check(
            "ERR Error running script (call to f_0a): @user_script:9: @user_script: 9: -OOM command not allowed when used memory > 'maxmemory'. hunter2",
            "out_of_memory",
        );
        check("ERR Error running script (call to f_0a): @user_script:9: hunter2", "other");
        check("LOADING Redis is loading the dataset in memory", "loading");
        check("READONLY You can't write against a read only replica.", "read_only");
        check("MASTERDOWN Link with MASTER is down", "no_master");
        check("CLUSTERDOWN The cluster is down", "no_master");
        check("MOVED 3999 127.0.0.1:6381", "moved");
        check("WRONGPASS invalid username-password pair hunter2", "password");
        check("NOAUTH Authentication required.", "password");
        check("NOPERM User hunter2 has no permissions to run the 'evalsha' command", "not_allowed");
        check("MISCONF Redis is configured to save RDB snapshots", "not_saving");
        check("NOREPLICAS Not enough good replicas to write.", "no_replicas");
        check("BUSY Redis is busy running a script.", "busy");
        check("ERR unknown command 'EVALSHA', with args beginning with: 'hunter2'", "other");
        check("STRANGE hunter2", "other");
    }
}
