//! Choosing what is measured by parts of names.

/// Nothing is called what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("no name contains {wanted:?}; the names are: {names}")]
pub struct NoRow {
    wanted: String,
    names: String,
}

/// Those of `rows` whose `name` contains one of `only`; all of them where that is empty.
///
/// # Errors
/// There is none.
pub fn select<R: Clone>(
    rows: &[R],
    name: impl Fn(&R) -> &str,
    only: &[String],
) -> Result<Vec<R>, NoRow> {
    let wanted = |row: &&R| only.is_empty() || only.iter().any(|part| name(row).contains(&**part));
    let chosen: Vec<R> = rows.iter().filter(wanted).cloned().collect();
    if chosen.is_empty() {
        return Err(NoRow {
            wanted: only.join(", "),
            names: rows.iter().map(name).collect::<Vec<_>>().join(", "),
        });
    }
    Ok(chosen)
}
