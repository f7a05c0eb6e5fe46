use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

/// What a program that was called wrongly ends with.
const USAGE: u8 = 2;

/// Parses the command line, or says in one line what is wrong with it. Help and the like are
/// printed in full.
pub(crate) fn parse<P: Parser>() -> Result<P, ExitCode> {
    P::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody reads it where this fails.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ => {
            let program = P::command().get_name().to_owned();
            misuse(&program, &summary(&error))
        }
    })
}

/// Says in one line how the program was called wrongly.
pub(crate) fn misuse(program: &str, reason: &str) -> ExitCode {
    eprintln!("{program}: {reason} (see {program} --help)");
    ExitCode::from(USAGE)
}

/// Says in one line what went wrong.
pub(crate) fn failure(program: &str, error: &dyn Error) -> ExitCode {
    eprintln!("{program}: {}", with_causes(error));
    ExitCode::FAILURE
}

/// The message, and those of its causes that it does not quote itself.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

/// The paragraphs of clap's message that say what is wrong and what was meant, without those on how
/// the program is used.
pub(crate) fn summary(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    text.split("\n\n")
        .take_while(|paragraph| {
            !paragraph.starts_with("Usage:") && !paragraph.starts_with("For more information")
        })
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "program")]
    struct Options {
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9))]
        number: u8,
    }

    fn summary_of(args: &[&str]) -> String {
        summary(&Options::try_parse_from(args).unwrap_err())
    }

    #[test]
    fn summaries_are_one_line() {
        assert_eq!(
            summary_of(&["program"]),
            "the following required arguments were not provided: --number <NUMBER>"
        );
        assert_eq!(
            summary_of(&["program", "--numbr=1"]),
            "unexpected argument '--numbr' found; tip: a similar argument exists: '--number'"
        );
        assert_eq!(
            summary_of(&["program", "--number=10"]),
            "invalid value '10' for '--number <NUMBER>': 10 is not in 1..=9"
        );
    }

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        enum Failure {
            #[error("cannot open: {0}")]
            Quoting(#[source] std::io::Error),
            #[error("cannot wait")]
            Silent(#[source] std::io::Error),
        }
        let cause = || std::io::Error::other("no disk");
        assert_eq!(
            with_causes(&Failure::Quoting(cause())),
            "cannot open: no disk"
        );
        assert_eq!(
            with_causes(&Failure::Silent(cause())),
            "cannot wait: no disk"
        );
    }
}
