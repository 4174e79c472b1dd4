//! Globs for branches and repositories that can never match.

/// What is wrong with a pattern for branches; `None` if a branch may match it.
///
/// Source: `git check-ref-format`, for what git forbids in a branch.
pub(super) fn branch_fault(pattern: &str) -> Option<String> {
    if let Some(list) = pattern.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Some(format!("`{pattern}` can never match; write the branches without brackets: `{list}`"));
    }
    if let Some(branch) = pattern.strip_prefix("refs/heads/") {
        return Some(format!("a branch is written without `refs/heads/`: `{branch}`"));
    }
    if pattern.starts_with("refs/") {
        return Some(format!(
            "`{pattern}` is not a branch; to build tags, use on-event `push` and on-cel with body.ref"
        ));
    }
    if pattern.starts_with('^') || pattern.ends_with('$') {
        let plain = pattern.trim_start_matches('^').trim_end_matches('$').replace(".*", "*");
        return Some(format!("patterns are globs, not regular expressions; write `{plain}`"));
    }
    let forbidden = pattern.chars().find(|c| c.is_whitespace() || c.is_control() || "'\"`[]{}~^:\\".contains(*c));
    if let Some(character) = forbidden {
        return Some(format!("`{pattern}` can never match: a branch cannot contain {}", name(character)));
    }
    let parts = || pattern.split('/');
    let never = pattern.contains("..")
        || pattern.contains("@{")
        || pattern.ends_with('.')
        || parts().any(|part| part.is_empty() || part.starts_with('.') || part.ends_with(".lock"));
    never.then(|| {
        format!(
            "`{pattern}` can never match: git allows no such branch; in a pattern `*` stands for any characters but `/`"
        )
    })
}

/// What is wrong with a pattern for repositories; `None` if `owner/name` may match it.
pub(super) fn repository_fault(pattern: &str) -> Option<String> {
    let plain = pattern.trim_start_matches("git@").rsplit("://").next().unwrap_or_default();
    if plain != pattern {
        let path = plain.split_once(['/', ':']).map_or(plain, |(_, path)| path).trim_end_matches(".git");
        return Some(format!("`{pattern}` is a URL; write `owner/name`, here `{path}`"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./*?".contains(c);
    if let Some(forbidden) = pattern.chars().find(|c| !allowed(*c)) {
        return Some(format!("`{pattern}` can never match: a repository's name cannot contain {}", name(forbidden)));
    }
    if let Some(name) = pattern.strip_suffix(".git") {
        return Some(format!("a repository's name does not end in `.git`; write `{name}`"));
    }
    let parts: Vec<&str> = pattern.split('/').collect();
    let any_number = parts.contains(&"**");
    match parts.as_slice() {
        [host, ..] if host.starts_with("github.") || (host.contains('.') && parts.len() > 2) => {
            let rest = pattern.split_once('/').map_or(pattern, |(_, rest)| rest);
            Some(format!("`{pattern}` can never match `owner/name`; write `{rest}`, without a host"))
        }
        parts if parts.iter().any(|part| part.is_empty()) => {
            Some(format!("`{pattern}` can never match `owner/name`: one half is empty; for any, write `*`"))
        }
        _ if any_number => None,
        [name] => Some(format!("`{pattern}` can never match `owner/name`; write for example `acme/{name}`")),
        [_, _] => None,
        [.., owner, name] => {
            Some(format!("`{pattern}` can never match `owner/name`; write `{owner}/{name}`, without a host"))
        }
        [] => None,
    }
}

fn name(character: char) -> String {
    match character {
        ' ' => "a space".to_owned(),
        '\'' | '"' | '`' => "quotes".to_owned(),
        '[' | ']' | '{' | '}' => "brackets; write several patterns, separated by commas".to_owned(),
        character if character.is_control() => "a control character".to_owned(),
        character => format!("`{character}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_patterns_that_a_branch_may_match() {
        for pattern in ["main", "release/*", "**", "v?.x", "dependabot/**", "feature-*", "1.10", "a/b.c", "user@host"] {
            assert_eq!(branch_fault(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn corrects_patterns_that_no_branch_matches() {
        for (pattern, correction) in [
            ("refs/heads/main", "`main`"),
            ("refs/tags/*", "to build tags"),
            ("[main]", "`main`"),
            ("^main$", "write `main`"),
            ("^release/.*$", "write `release/*`"),
            ("'main'", "quotes"),
            ("my branch", "a space"),
            ("{main}", "brackets"),
            ("release/[0-9]*", "brackets"),
            ("a:b", "`:`"),
            ("a~1", "`~`"),
            ("a..b", "git allows no such branch"),
            ("main/", "git allows no such branch"),
            ("release/.*", "`*` stands for any characters"),
        ] {
            let fault = branch_fault(pattern).unwrap_or_default();
            assert!(fault.contains(correction), "{pattern}: {fault}");
        }
    }

    #[test]
    fn corrects_patterns_that_no_repository_matches() {
        for pattern in ["acme/web", "acme/*", "*/*", "**", "Acme/we?-x_1.y", "acme/**"] {
            assert_eq!(repository_fault(pattern), None, "{pattern}");
        }
        for (pattern, correction) in [
            ("https://github.com/acme/web", "here `acme/web`"),
            ("https://github.com/acme/web.git", "here `acme/web`"),
            ("git@github.com:acme/web.git", "here `acme/web`"),
            ("github.com/acme/web", "write `acme/web`"),
            ("web", "`acme/web`"),
            ("*", "`acme/*`"),
            ("/web", "one half is empty"),
            ("acme/", "one half is empty"),
            ("acme/web.git", "write `acme/web`"),
            ("acme/we b", "a space"),
            ("[acme/web]", "brackets"),
            ("^acme/web", "`^`"),
            ("'acme/web'", "quotes"),
            ("[acme/**]", "brackets"),
            ("github.com/acme/**", "write `acme/**`"),
            ("acme/**/web.git", "write `acme/**/web`"),
        ] {
            let fault = repository_fault(pattern).unwrap_or_default();
            assert!(fault.contains(correction), "{pattern}: {fault}");
        }
    }
}
