//! The socket that takes commands, one a line.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use std::{fmt, thread};

/// What is asked of the VMM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Status,
    Pause,
    Resume,
    Snapshot(PathBuf),
    Reset,
    Quit,
}

/// A command, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) command: Command,
    answer: Sender<String>,
}

impl Asked {
    /// Answers in one line.
    pub(super) fn answer(&self, result: &Result<String, impl fmt::Display>) {
        let line = match result {
            Ok(text) if text.is_empty() => "ok".to_owned(),
            Ok(text) => format!("ok {text}"),
            Err(error) => format!("error {error}"),
        };
        // Who asked may be gone.
        let _ = self.answer.send(line);
    }
}

impl Command {
    fn parse(line: &str) -> Result<Self, String> {
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        match (word, rest.trim()) {
            ("status", "") => Ok(Self::Status),
            ("pause", "") => Ok(Self::Pause),
            ("resume", "") => Ok(Self::Resume),
            ("reset", "") => Ok(Self::Reset),
            ("quit", "") => Ok(Self::Quit),
            ("snapshot", path) if !path.is_empty() => Ok(Self::Snapshot(path.into())),
            ("snapshot", _) => Err("snapshot needs the FILE to write".to_owned()),
            _ => Err("not one of: status, pause, resume, snapshot FILE, reset, quit".to_owned()),
        }
    }
}

/// Passes what comes to `listener` on to `ask`.
pub(super) fn serve(
    listener: UnixListener,
    ask: impl Fn(Asked) + Clone + Send + 'static,
) -> io::Result<()> {
    let serve = move || {
        for connection in listener.incoming() {
            let ask = ask.clone();
            // A connection on which nothing is said holds up no other.
            let begun = connection.and_then(|connection| {
                spawn(move || {
                    if let Err(error) = converse(&connection, &ask) {
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
    };
    spawn(serve)
}

fn spawn(serve: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name("commands".to_owned());
    thread.spawn(serve).map(drop)
}

fn converse(connection: &UnixStream, ask: &impl Fn(Asked)) -> io::Result<()> {
    /// As long as a path may be, with a word before it.
    const LONGEST_LINE: u64 = 4096 + 16;
    let mut lines = BufReader::new(connection);
    let mut line = String::new();
    while lines.by_ref().take(LONGEST_LINE).read_line(&mut line)? > 0 {
        let answer = match Command::parse(&line) {
            Ok(command) => {
                let (sender, answer) = channel();
                ask(Asked {
                    command,
                    answer: sender,
                });
                answer
                    .recv()
                    .unwrap_or_else(|_| "error the VMM ends".to_owned())
            }
            Err(error) => format!("error {error}"),
        };
        writeln!(&mut &*connection, "{answer}")?;
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
        assert_eq!(
            Command::parse("snapshot  /tmp/a b\n"),
            Ok(Command::Snapshot("/tmp/a b".into()))
        );
        for wrong in ["", "snapshot ", "pause now", "halt"] {
            assert!(Command::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_line_is_answered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        serve(UnixListener::bind(&path).unwrap(), |asked| {
            let result = match asked.command {
                Command::Status => Ok("running".to_owned()),
                Command::Pause => Ok(String::new()),
                _ => Err("no"),
            };
            asked.answer(&result);
        })
        .unwrap();
        let _silent = UnixStream::connect(&path).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        client
            .write_all(b"status\npause\nreset\nnonsense\n")
            .unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let lines: Vec<_> = BufReader::new(client).lines().map(Result::unwrap).collect();
        assert_eq!(lines[..3], ["ok running", "ok", "error no"]);
        assert!(lines[3].starts_with("error not one of"), "{}", lines[3]);
    }
}
