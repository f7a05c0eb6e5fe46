//! The text of an [`XattrMap`].

use std::str::FromStr;

use super::{Action, NAME_MAX, Rule, Scope, XattrMap};

/// Most characters of a rule that an error shows.
const SHOWN: usize = 60;

/// Why a text is no [`XattrMap`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XattrMapError {
    /// There is nothing in it.
    #[error("there are no rules; \":ok:all:::\" is one that lets every name through")]
    Empty,
    /// One of the rules is wrong.
    #[error("rule {number}, \"{text}\": {error}")]
    Rule {
        /// Which one, from 1 on.
        number: usize,
        /// The rule, or how it begins.
        text: String,
        /// What is wrong with it.
        error: XattrRuleError,
    },
    /// There are names of the guest that no rule matches.
    #[error(
        "no rule matches every name from the guest; end the list with \":ok:all:::\" to let the \
         others through, or with \":bad:all:::\" to refuse them"
    )]
    ClientUnterminated,
    /// There are names on the host that no rule matches.
    #[error(
        "no rule matches every name on the host; end the list with \":ok:all:::\" to show the \
         others, or with \":bad:all:::\" to hide them"
    )]
    ServerUnterminated,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XattrRuleError {
    /// Its type is not known.
    #[error(
        "its first field, between two '{delimiter}', is \"{found}\"; it must be prefix, ok, bad, \
         unsupported or map"
    )]
    Type {
        /// What separates its fields.
        delimiter: char,
        /// What is there instead.
        found: String,
    },
    /// Its scope is not known.
    #[error("its scope is \"{found}\"; it must be client, server or all")]
    Scope {
        /// What is there instead.
        found: String,
    },
    /// It ends too early.
    #[error(
        "it ends before its {missing}; each field, the last one, too, ends with the character \
         that the rule starts with, '{delimiter}'"
    )]
    Incomplete {
        /// What separates its fields.
        delimiter: char,
        /// The field that is not there, or has no end.
        missing: &'static str,
    },
    /// Another rule comes after it.
    #[error("a map rule must be the last one; put the others before it")]
    MapNotLast,
    /// A field has a NUL in it.
    #[error("names cannot contain a NUL")]
    Nul,
    /// A field is longer than any name.
    #[error("names have at most {NAME_MAX} bytes")]
    TooLong,
}

impl FromStr for XattrMap {
    type Err = XattrMapError;

    fn from_str(text: &str) -> Result<Self, XattrMapError> {
        let mut rules = Vec::new();
        let mut rest = text.trim_start();
        let mut number = 1_usize;
        while !rest.is_empty() {
            let mut fields = Fields { rest };
            let parsed = parse_rule(&mut fields, &mut rules);
            parsed.map_err(|error| XattrMapError::Rule {
                number,
                text: excerpt(rest, fields.rest),
                error,
            })?;
            rest = fields.rest.trim_start();
            number = number.saturating_add(1);
        }
        check_termination(&rules)?;
        Ok(Self { rules })
    }
}

/// The text of a rule, field by field.
struct Fields<'t> {
    rest: &'t str,
}

impl<'t> Fields<'t> {
    /// The character that the rule begins with.
    fn delimiter(&mut self) -> char {
        let mut chars = self.rest.chars();
        let delimiter = chars.next().unwrap_or_default();
        self.rest = chars.as_str();
        delimiter
    }

    fn next(&mut self, delimiter: char, name: &'static str) -> Result<&'t str, XattrRuleError> {
        let found = self.rest.split_once(delimiter);
        let (field, rest) = found.ok_or(XattrRuleError::Incomplete {
            delimiter,
            missing: name,
        })?;
        self.rest = rest;
        Ok(field)
    }
}

/// Adds the rule at the front of `fields` to `rules`.
fn parse_rule(fields: &mut Fields<'_>, rules: &mut Vec<Rule>) -> Result<(), XattrRuleError> {
    let delimiter = fields.delimiter();
    let action = match fields.next(delimiter, "type")? {
        "prefix" => Action::Prefix,
        "ok" => Action::Pass,
        "bad" => Action::Deny,
        "unsupported" => Action::Unsupported,
        "map" => return parse_map(delimiter, fields, rules),
        found => {
            let found = found.to_owned();
            return Err(XattrRuleError::Type { delimiter, found });
        }
    };
    let scope = match fields.next(delimiter, "scope")? {
        "client" => Scope::Client,
        "server" => Scope::Server,
        "all" => Scope::All,
        found => {
            let found = found.to_owned();
            return Err(XattrRuleError::Scope { found });
        }
    };
    rules.push(Rule {
        action,
        scope,
        key: name(fields.next(delimiter, "key")?)?,
        prepend: name(fields.next(delimiter, "prepend")?)?,
    });
    Ok(())
}

fn parse_map(
    delimiter: char,
    fields: &mut Fields<'_>,
    rules: &mut Vec<Rule>,
) -> Result<(), XattrRuleError> {
    let key = name(fields.next(delimiter, "key")?)?;
    let prepend = name(fields.next(delimiter, "prepend")?)?;
    if !fields.rest.trim_start().is_empty() {
        return Err(XattrRuleError::MapNotLast);
    }
    let rule = |action, key: &[u8], prepend: &[u8]| Rule {
        action,
        scope: Scope::All,
        key: key.into(),
        prepend: prepend.into(),
    };
    rules.push(rule(Action::Prefix, &key, &prepend));
    if key.is_empty() {
        rules.push(rule(Action::Deny, b"", b""));
    } else {
        // What the guest's names stand for is not to be had directly, nor is what they hide.
        rules.push(rule(Action::Deny, &prepend, &key));
        rules.push(rule(Action::Pass, b"", b""));
    }
    Ok(())
}

fn name(field: &str) -> Result<Box<[u8]>, XattrRuleError> {
    match field.as_bytes() {
        bytes if bytes.contains(&0) => Err(XattrRuleError::Nul),
        bytes if bytes.len() > NAME_MAX => Err(XattrRuleError::TooLong),
        bytes => Ok(bytes.into()),
    }
}

fn check_termination(rules: &[Rule]) -> Result<(), XattrMapError> {
    if rules.is_empty() {
        Err(XattrMapError::Empty)
    } else if !rules.iter().any(|rule| rule.matches_client(b"")) {
        Err(XattrMapError::ClientUnterminated)
    } else if !rules.iter().any(|rule| rule.matches_server(b"")) {
        Err(XattrMapError::ServerUnterminated)
    } else {
        Ok(())
    }
}

/// What was read of `text` until `rest` was left, and a little more.
fn excerpt(text: &str, rest: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim_end();
    let read = text.len().saturating_sub(rest.len());
    let shown = line
        .char_indices()
        .take_while(|(at, _)| *at < read.max(SHOWN));
    let mut shown: String = shown.map(|(_, char)| char).take(SHOWN).collect();
    if shown.len() < line.len() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> XattrMapError {
        text.parse::<XattrMap>().unwrap_err()
    }

    #[test]
    fn rules_may_have_delimiters_of_their_own_and_space_between_them() {
        for text in [
            ":ok:all:::",
            "  :ok:all:::\n",
            ":bad:client:a:::ok:all:::",
            ":bad:client:a::\n\t /ok/all///",
            "xokxallxxx",
            "→ok→all→→→",
        ] {
            let map = text.parse::<XattrMap>();
            assert!(map.is_ok(), "{text}: {map:?}");
        }
    }

    #[test]
    fn errors_point_at_the_rule_and_say_the_fix() {
        for (text, expected) in [
            ("", "there are no rules"),
            ("  \n", "there are no rules"),
            (
                ":prefix:all:a:b",
                "rule 1, \":prefix:all:a:b\": it ends before its prepend",
            ),
            (
                ":ok:all:::\n:wrong:all:::",
                "rule 2, \":wrong:all:::\": its first field",
            ),
            (
                ":ok:some:::",
                "rule 1, \":ok:some:::\": its scope is \"some\"",
            ),
            (
                ":map:a:b: :ok:all:::",
                "rule 1, \":map:a:b: :ok:all:::\": a map rule must be",
            ),
            ("prefix:all::x:", "it ends before its type"),
            (":ok:all:\0::", "names cannot contain a NUL"),
            (
                ":prefix:all:trusted.:user.:",
                "no rule matches every name from the guest",
            ),
            (":ok:client:::", "no rule matches every name on the host"),
        ] {
            let message = error(text).to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
        let long = format!(":ok:all:{}::", "x".repeat(NAME_MAX + 1));
        let message = error(&long).to_string();
        assert!(message.contains("at most 255 bytes"), "{message}");
        assert!(message.len() < 2 * SHOWN + 40, "{message}");
    }
}
