//! The socket that takes commands, one a line.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use crate::cli;

/// What is asked of the VMM.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(
    multicall = true,
    disable_help_subcommand = true,
    disable_help_flag = true
)]
pub(super) enum Command {
    Status,
    Pause,
    Resume,
    Snapshot { file: PathBuf },
    Restore { file: PathBuf },
    Reset,
    Quit,
}

impl Command {
    fn parse(line: &str) -> Result<Self, String> {
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let rest = Some(rest.trim()).filter(|rest| !rest.is_empty());
        let words = [word].into_iter().chain(rest);
        Self::try_parse_from(words).map_err(|error| cli::summary(&error))
    }
}

/// Has `obey` do what comes to `listener`, and calls `quit` after the answer to that.
pub(super) fn serve<O, Q>(listener: UnixListener, obey: O, quit: Q) -> io::Result<()>
where
    O: Fn(&Command) -> Result<String> + Clone + Send + 'static,
    Q: Fn() + Clone + Send + 'static,
{
    spawn(move || {
        for connection in listener.incoming() {
            let (obey, quit) = (obey.clone(), quit.clone());
            // A connection on which nothing is said holds up no other.
            let begun = connection.and_then(|connection| {
                spawn(move || {
                    if let Err(error) = converse(&connection, &obey, &quit) {
                        tracing::debug!(%error, "a connection for commands ends");
                    }
                })
            });
            if let Err(error) = begun {
                tracing::warn!(%error, "a connection for commands is not served");
                // What is lacking, such as a descriptor, may be there then.
                thread::sleep(Duration::from_secs(1));
            }
        }
    })
}

fn spawn(serve: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name("commands".to_owned());
    thread.spawn(serve).map(drop)
}

fn converse(
    mut connection: &UnixStream,
    obey: &impl Fn(&Command) -> Result<String>,
    quit: &impl Fn(),
) -> io::Result<()> {
    /// As long as a path may be, with a word before it.
    const LONGEST_LINE: u64 = 4096 + 16;
    let mut lines = BufReader::new(connection);
    let mut line = String::new();
    while lines.by_ref().take(LONGEST_LINE).read_line(&mut line)? > 0 {
        let command = Command::parse(&line);
        let answer = match command.as_ref().map(obey) {
            Ok(Ok(text)) => format!("ok {text}"),
            Ok(Err(error)) => format!("error {}", cli::with_causes(&*error)),
            Err(error) => format!("error {error}"),
        };
        writeln!(connection, "{}", answer.trim_end())?;
        if command == Ok(Command::Quit) {
            quit();
        }
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_parsed() {
        assert_eq!(Command::parse(" pause\n"), Ok(Command::Pause));
        let file = "/tmp/a b".into();
        assert_eq!(
            Command::parse("snapshot  /tmp/a b\n"),
            Ok(Command::Snapshot { file })
        );
        let file = "saved".into();
        assert_eq!(
            Command::parse("restore saved\n"),
            Ok(Command::Restore { file })
        );
        for wrong in [
            "",
            "snapshot ",
            "restore",
            "pause now",
            "halt",
            "help",
            "--help",
        ] {
            assert!(Command::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_line_is_answered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let obey = |command: &Command| match command {
            Command::Status => Ok("running".to_owned()),
            Command::Pause | Command::Quit => Ok(String::new()),
            _ => Err(anyhow::anyhow!("no").context("it says")),
        };
        let (sender, quits) = std::sync::mpsc::channel();
        let quit = move || sender.send(()).unwrap();
        serve(UnixListener::bind(&path).unwrap(), obey, quit).unwrap();
        let _silent = UnixStream::connect(&path).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        client
            .write_all(b"status\npause\nreset\nnonsense\nquit\n")
            .unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let lines: Vec<_> = BufReader::new(client).lines().map(Result::unwrap).collect();
        assert_eq!(lines[..3], ["ok running", "ok", "error it says: no"]);
        assert!(lines[3].starts_with("error unrecognized"), "{}", lines[3]);
        assert_eq!(lines[4], "ok");
        quits.recv().unwrap();
    }
}
