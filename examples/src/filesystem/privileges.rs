//! Options about extended attributes, ACLs, and whom files belong to.

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use passthrough_fs::{Config, Feature, IdMap, IdRule, Killpriv, Xattr, XattrMap};

const TRANSLATE_UID_HELP: &str = "\
Say which user of the host one of the guest is, or the other way round. Can be
given several times. Ids that no rule is about are the same on both sides. RULE
is one of:
  map:GUEST:HOST:COUNT           ids of the guest from GUEST on are those of the
                                 host from HOST on, and the other way round
  guest:GUEST:HOST:COUNT         the same, but only for what the guest sets
  host:HOST:GUEST:COUNT          the same, but only for what the guest sees
  squash-guest:GUEST:HOST:COUNT  all those ids of the guest become the one HOST
  squash-host:HOST:GUEST:COUNT   all those ids of the host are shown as GUEST
  forbid-guest:GUEST:COUNT       files can be neither made as nor given to these
                                 users of the guest (EPERM)
The users in POSIX ACLs are translated, too. For a daemon that runs as user 1001
to serve a guest whose user is 1000:
  --translate-uid=map:1000:1001:1";

const XATTRMAP_HELP: &str = "\
Rename or hide extended attributes (implies --xattr). RULES is a list of
  :TYPE:SCOPE:KEY:PREPEND:
where each rule may use another character than the colon, and white space may
separate them. The first rule that matches decides. With SCOPE client, or all,
that is one whose KEY begins the name that the guest uses; with SCOPE server, or
all, one whose PREPEND begins the name on the host. TYPE is one of:
  prefix       PREPEND is put before the guest's name, and taken off the host's
  ok           the name stays as it is
  bad          setting it is EPERM, and it is hidden
  unsupported  using it is ENOTSUP, and it is hidden
Each name must be matched by some rule. As the last rule, :map:KEY:PREPEND:
stands for all it takes to rename what begins with KEY and back. For a daemon
without CAP_SYS_ADMIN to store what only root may set:
  --xattrmap=:map:trusted.:user.virtiofs.:";

/// What of attributes and ids the share has, as asked for.
#[derive(Debug, Args)]
struct Asked {
    /// Offer extended attributes
    #[arg(long)]
    xattr: bool,

    /// Rename or hide extended attributes, as ":map::user.virtiofs.:" (implies --xattr)
    #[arg(long, value_name = "RULES", long_help = XATTRMAP_HELP)]
    xattrmap: Option<XattrMap>,

    /// Offer POSIX ACLs (implies --xattr)
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        require_equals = true,
        num_args = 0..=1,
        default_value_t,
        default_missing_value = "always"
    )]
    posix_acl: When,

    /// Give new files the security labels that the guest says, as SELinux has them (implies
    /// --xattr)
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        require_equals = true,
        num_args = 0..=1,
        default_value_t,
        default_missing_value = "always"
    )]
    security_label: When,

    /// Have this host clear SUID, SGID and file capabilities of what is written, not the guest.
    /// Always so with --xattr, where it is the cheaper way, and never with a guest that uses DAX
    #[arg(long, overrides_with = "no_killpriv_v2")]
    killpriv_v2: bool,

    /// Undo an earlier --killpriv-v2
    #[arg(long, hide = true)]
    no_killpriv_v2: bool,

    /// Say which user of the host one of the guest is, as "map:1000:1001:1"
    #[arg(long, value_name = "RULE", long_help = TRANSLATE_UID_HELP)]
    translate_uid: Vec<IdRule>,

    /// Say which group of the host one of the guest is, with rules as for --translate-uid
    #[arg(long, value_name = "RULE")]
    translate_gid: Vec<IdRule>,
}

/// When the guest is to have a feature that its kernel must know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum When {
    /// Not at all
    #[default]
    Never,
    /// If its kernel knows how
    Auto,
    /// It must: a guest whose kernel does not know how cannot mount the share
    Always,
}

impl From<When> for Feature {
    fn from(when: When) -> Self {
        match when {
            When::Never => Self::Never,
            When::Auto => Self::Auto,
            When::Always => Self::Always,
        }
    }
}

/// What of attributes and ids the share has. What contradicts itself is refused with the rest of a
/// wrong command line.
#[derive(Debug)]
pub(super) struct PrivilegeOptions {
    asked: Asked,
    users: IdMap,
    groups: IdMap,
}

impl PrivilegeOptions {
    /// Adds to `config` what was asked for.
    pub(super) fn apply(&self, config: Config) -> Config {
        let asked = &self.asked;
        let xattr = match asked.xattr {
            true => Xattr::On,
            false => Xattr::Off,
        };
        let killpriv = match asked.killpriv_v2 {
            true => Killpriv::Always,
            false => Killpriv::WithXattr,
        };
        let config = config
            .xattr(xattr)
            .posix_acl(asked.posix_acl.into())
            .security_labels(asked.security_label.into())
            .killpriv(killpriv)
            .ids(self.users.clone(), self.groups.clone());
        match asked.xattrmap.clone() {
            Some(map) => config.xattr_map(map),
            None => config,
        }
    }
}

impl FromArgMatches for PrivilegeOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let asked = Asked::from_arg_matches(matches)?;
        let options = Self {
            users: id_map("--translate-uid", &asked.translate_uid)?,
            groups: id_map("--translate-gid", &asked.translate_gid)?,
            asked,
        };
        let checked = options.apply(Config::new("")).check();
        checked.map_err(|error| wrong("--xattrmap", error))?;
        Ok(options)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for PrivilegeOptions {
    fn augment_args(command: Command) -> Command {
        Asked::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Asked::augment_args_for_update(command)
    }
}

fn id_map(option: &str, rules: &[IdRule]) -> Result<IdMap, clap::Error> {
    IdMap::new(rules.iter().copied()).map_err(|error| wrong(option, error))
}

fn wrong(option: &str, error: impl std::error::Error) -> clap::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{option}: {error}\n"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        privileges: PrivilegeOptions,
    }

    fn parse(options: &[&str]) -> Result<Config, clap::Error> {
        let args = std::iter::once(&"program").chain(options);
        Program::try_parse_from(args).map(|program| program.privileges.apply(Config::new("/")))
    }

    #[test]
    fn features_are_on_when_they_are_named() {
        for (option, expected) in [
            ("--posix-acl", Feature::Always),
            ("--posix-acl=always", Feature::Always),
            ("--posix-acl=auto", Feature::Auto),
            ("--posix-acl=never", Feature::Never),
            ("--xattr", Feature::Never),
        ] {
            assert_eq!(parse(&[option]).unwrap().posix_acl, expected, "{option}");
        }
        let config = parse(&["--security-label", "--killpriv-v2"]).unwrap();
        assert_eq!(config.security_labels, Feature::Always);
        assert_eq!(config.killpriv, Killpriv::Always);
        let config = parse(&["--killpriv-v2", "--no-killpriv-v2"]).unwrap();
        assert_eq!(config.killpriv, Killpriv::WithXattr);
    }

    #[test]
    fn rules_that_are_wrong_name_their_option_and_themselves() {
        for (options, expected) in [
            (
                &["--xattrmap=:map:a:b: :ok:all:::"][..],
                &["--xattrmap", "rule 1", "last"][..],
            ),
            (
                &["--xattrmap=:map::user.x.:", "--posix-acl"],
                &["--xattrmap", ":ok:all:system.posix_acl_:system.posix_acl_:"],
            ),
            (
                &["--translate-uid=map:0:1"],
                &["--translate-uid", "map:GUEST:HOST:COUNT"],
            ),
            (
                &["--translate-gid=map:0:1:5", "--translate-gid=guest:4:9:1"],
                &["--translate-gid", "guest:4:9:1", "map:0:1:5", "id 4"],
            ),
        ] {
            let error = parse(options).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let message = error.to_string();
            for part in expected {
                assert!(message.contains(part), "{options:?}: {message}");
            }
        }
    }

    #[test]
    fn what_fits_together_is_taken() {
        parse(&[
            "--posix-acl",
            "--translate-uid=map:0:100000:65536",
            "--translate-gid=squash-guest:0:100:4294967295",
            "--translate-gid=host:100:1000:1",
            "--xattrmap=:ok:all:system.posix_acl_:system.posix_acl_::map::user.virtiofs.:",
        ])
        .unwrap();
    }
}
