//! What extended attributes of the guest are called on the host.

mod parse;

use std::ffi::CStr;

pub use parse::{XattrMapError, XattrRuleError};

/// Longest name of an extended attribute, in bytes (`XATTR_NAME_MAX`).
const NAME_MAX: usize = 255;

/// What extended attributes of the guest are called on the host, and which there are at all.
///
/// It is a list of rules, separated by white space or by nothing, as
///
/// ```text
/// :type:scope:key:prepend:
/// ```
///
/// The first character that is no white space is what separates the fields of a rule. The first
/// rule that matches a name decides on it:
///
/// | type | a name from the guest that starts with `key` | a name on the host that starts with `prepend` |
/// |---|---|---|
/// | `prefix` | gets `prepend` put before it | is listed without it |
/// | `ok` | stays as it is | is listed |
/// | `bad` | cannot be set or removed (EPERM) and does not exist (ENODATA) | is not listed |
/// | `unsupported` | is ENOTSUP | is not listed |
///
/// The scope says which of the two sides a rule is for: `client` is the guest, `server` the host,
/// `all` both. For each side, some rule must match every name.
///
/// `:map:key:prepend:`, which can only come last, is short for `prefix` in both directions; where
/// `key` is empty, the host has no other attributes for the guest, else all other names stay as
/// they are and those that the guest's are renamed to are `bad`.
///
/// ```
/// let map: passthrough_fs::XattrMap = ":map:trusted.:user.virtiofs.:".parse()?;
/// # Ok::<(), passthrough_fs::XattrMapError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XattrMap {
    rules: Vec<Rule>,
}

/// Whose names a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Client,
    Server,
    All,
}

/// What becomes of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Prefix,
    Pass,
    Deny,
    Unsupported,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    action: Action,
    scope: Scope,
    key: Box<[u8]>,
    prepend: Box<[u8]>,
}

/// Why a name of the guest stands for nothing on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A `bad` rule.
    Denied,
    /// An `unsupported` rule.
    Unsupported,
    /// The name on the host would be longer than names can be.
    TooLong,
}

impl XattrMap {
    /// What `name` of the guest is called on the host.
    pub(crate) fn to_host<'n>(&self, name: &'n CStr) -> Result<HostName<'n>, Refusal> {
        let bytes = name.to_bytes();
        let rule = self.rules.iter().find(|rule| rule.matches_client(bytes));
        // There always is one.
        let rule = rule.ok_or(Refusal::Unsupported)?;
        match rule.action {
            Action::Prefix => HostName::prefixed(&rule.prepend, bytes),
            Action::Pass => Ok(HostName::Same(name)),
            Action::Deny => Err(Refusal::Denied),
            Action::Unsupported => Err(Refusal::Unsupported),
        }
    }

    /// What `name` of the host is called by the guest, if it is to know of it.
    pub(crate) fn to_guest<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        let rule = self.rules.iter().find(|rule| rule.matches_server(name))?;
        let name = match rule.action {
            Action::Prefix => name.strip_prefix(&*rule.prepend)?,
            Action::Pass => name,
            Action::Deny | Action::Unsupported => return None,
        };
        (!name.is_empty()).then_some(name)
    }
}

impl Rule {
    fn matches_client(&self, name: &[u8]) -> bool {
        self.scope != Scope::Server && name.starts_with(&self.key)
    }

    fn matches_server(&self, name: &[u8]) -> bool {
        self.scope != Scope::Client && name.starts_with(&self.prepend)
    }
}

/// The name of an attribute on the host.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "it lives on the stack for the time of a system call"
)]
pub(crate) enum HostName<'n> {
    /// That which the guest uses.
    Same(&'n CStr),
    /// Another one, and zeros.
    Other([u8; NAME_MAX + 1]),
}

impl HostName<'_> {
    /// `prefix` and then `name`, neither of which has a NUL.
    fn prefixed(prefix: &[u8], name: &[u8]) -> Result<Self, Refusal> {
        let mut bytes = [0; NAME_MAX + 1];
        let (rest, _terminator) = bytes.split_at_mut(NAME_MAX);
        let (head, rest) = rest
            .split_at_mut_checked(prefix.len())
            .ok_or(Refusal::TooLong)?;
        head.copy_from_slice(prefix);
        let tail = rest.get_mut(..name.len()).ok_or(Refusal::TooLong)?;
        tail.copy_from_slice(name);
        Ok(Self::Other(bytes))
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        match self {
            Self::Same(name) => name,
            Self::Other(bytes) => CStr::from_bytes_until_nul(bytes).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use proptest::prelude::*;

    use super::*;

    fn to_host(map: &XattrMap, name: &str) -> Result<String, Refusal> {
        let name = CString::new(name).unwrap();
        map.to_host(&name)
            .map(|name| name.as_c_str().to_str().unwrap().to_owned())
    }

    fn to_guest<'n>(map: &XattrMap, name: &'n str) -> Option<&'n str> {
        map.to_guest(name.as_bytes())
            .map(|name| std::str::from_utf8(name).unwrap())
    }

    #[test]
    fn a_prefix_is_put_before_names_and_stripped_again() {
        let map: XattrMap = ":prefix:all::user.virtiofs.::bad:all:::".parse().unwrap();
        let host = "user.virtiofs.trusted.a";
        assert_eq!(to_host(&map, "trusted.a").unwrap(), host);
        assert_eq!(to_guest(&map, host), Some("trusted.a"));
        assert_eq!(to_guest(&map, "security.selinux"), None);
        // What is left is no name.
        assert_eq!(to_guest(&map, "user.virtiofs."), None);
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let map: XattrMap = "
            /unsupported/client/trusted.overlay.//
            /prefix/all/trusted./user.virtiofs./
            /bad/server//trusted./
            /bad/client/user.virtiofs.//
            /ok/all///"
            .parse()
            .unwrap();
        assert_eq!(
            to_host(&map, "trusted.a").unwrap(),
            "user.virtiofs.trusted.a"
        );
        let overlay = to_host(&map, "trusted.overlay.opaque");
        assert_eq!(overlay, Err(Refusal::Unsupported));
        let direct = to_host(&map, "user.virtiofs.trusted.a");
        assert_eq!(direct, Err(Refusal::Denied));
        assert_eq!(to_host(&map, "user.a").unwrap(), "user.a");
        assert_eq!(to_guest(&map, "user.virtiofs.trusted.a"), Some("trusted.a"));
        assert_eq!(to_guest(&map, "trusted.b"), None);
        assert_eq!(to_guest(&map, "user.a"), Some("user.a"));
    }

    #[test]
    fn map_is_short_for_rules_in_both_directions() {
        for (short, long) in [
            (
                ":map::user.virtiofs.:",
                ":prefix:all::user.virtiofs.::bad:all:::",
            ),
            (
                ":map:trusted.:user.virtiofs.:",
                ":prefix:all:trusted.:user.virtiofs.:
                 :bad:all:user.virtiofs.:trusted.:
                 :ok:all:::",
            ),
        ] {
            assert_eq!(
                short.parse::<XattrMap>().unwrap(),
                long.parse::<XattrMap>().unwrap()
            );
        }
    }

    #[test]
    fn a_name_that_would_become_too_long_is_refused() {
        let map: XattrMap = ":map::user.:".parse().unwrap();
        let longest = "x".repeat(NAME_MAX - "user.".len());
        assert_eq!(to_host(&map, &longest).unwrap().len(), NAME_MAX);
        assert_eq!(to_host(&map, &(longest + "x")), Err(Refusal::TooLong));
    }

    proptest! {
        #[test]
        fn mapped_names_come_back(
            key in "[a-z.]{0,8}",
            prepend in "[a-z.]{1,8}",
            name in "[a-z.]{1,20}",
        ) {
            let map: XattrMap = format!("|map|{key}|{prepend}|").parse().unwrap();
            if let Ok(host) = to_host(&map, &name)
                && name.starts_with(&key)
            {
                prop_assert_eq!(to_guest(&map, &host), Some(&*name));
            }
        }

        #[test]
        fn any_name_is_decided_on(text in ".{0,80}", name in "[^\0]{1,300}") {
            if let Ok(map) = text.parse::<XattrMap>() {
                _ = to_host(&map, &name);
                _ = to_guest(&map, &name);
            }
        }
    }
}
