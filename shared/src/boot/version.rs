//! Which build this is.

/// The commit that was built: what `LD_COMMIT` said while it was built. Releases and images say it; a build from the
/// working folder does not, or every commit would rebuild everything.
pub const COMMIT: Option<&str> = match option_env!("LD_COMMIT") {
    Some(commit) if !commit.is_empty() => Some(commit),
    Some(_) | None => None,
};

/// The text behind `--version`.
pub fn text(version: &str, speaks: &str) -> String {
    COMMIT.map_or_else(|| format!("{version} ({speaks})"), |commit| format!("{version} (commit {commit}, {speaks})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_says_what_it_speaks() {
        let text = text("1.2.3", "cluster protocol 2");
        assert!(text.starts_with("1.2.3 (") && text.ends_with("cluster protocol 2)"), "{text}");
        assert_eq!(text.contains("commit"), COMMIT.is_some());
    }
}
