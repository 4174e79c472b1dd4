//! Kubernetes' rules for names, label keys and label values.
//!
//! Source: Kubernetes' documentation, "Labels and Selectors" and "Object Names and IDs".

/// Maximum length of a label value, of a key's name part and of a DNS-1123 label.
pub(crate) const MAX_LABEL_LENGTH: usize = 63;

/// Why `value` is not a valid label value, as the end of a sentence; `None` if it is valid.
pub(crate) fn value_fault(value: &str) -> Option<String> {
    if value.is_empty() {
        return None;
    }
    if value.len() > MAX_LABEL_LENGTH {
        return Some(format!("has {} characters; a label value has at most {MAX_LABEL_LENGTH}", value.len()));
    }
    if let Some(character) = value.chars().find(|&c| !is_label_character(c)) {
        return Some(format!("contains {character:?}; a label value may contain letters, digits, `-`, `_` and `.`"));
    }
    let bounded =
        value.starts_with(|c: char| c.is_ascii_alphanumeric()) && value.ends_with(|c: char| c.is_ascii_alphanumeric());
    (!bounded).then(|| "must begin and end with a letter or digit".to_owned())
}

/// Whether `literal` can be part of a label value.
pub(crate) fn can_be_part_of_value(literal: &str) -> bool {
    literal.len() <= MAX_LABEL_LENGTH && literal.chars().all(is_label_character)
}

/// Whether `key` is a valid key of a label or annotation: `name` or `prefix/name`.
pub(crate) fn is_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    !name.is_empty() && value_fault(name).is_none() && prefix.is_none_or(is_subdomain)
}

/// Whether `name` is a DNS-1123 subdomain, as object names must be.
pub(crate) fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(|part| is_dns_characters(part) && !part.is_empty())
}

/// Whether `name` is a DNS-1123 label, as namespace names must be.
pub(crate) fn is_dns_label(name: &str) -> bool {
    (1..=MAX_LABEL_LENGTH).contains(&name.len()) && is_dns_characters(name)
}

fn is_dns_characters(part: &str) -> bool {
    let inner = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    inner && !part.starts_with('-') && !part.ends_with('-')
}

fn is_label_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
}

/// A name that Kubernetes does not accept.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {name:?} is not a valid name in Kubernetes; use {rule}")]
pub(crate) struct InvalidName {
    what: &'static str,
    name: String,
    rule: &'static str,
}

/// Checks the name of a namespace or container, which goes into requests; `what` names it in the error.
pub(crate) fn check_dns_label(what: &'static str, name: &str) -> Result<(), InvalidName> {
    let rule = "at most 63 lower case letters, digits and `-`, with a letter or digit at both ends";
    if is_dns_label(name) { Ok(()) } else { Err(InvalidName { what, name: name.to_owned(), rule }) }
}

/// Checks the name of a service account or Secret (DNS-1123 subdomain).
pub(crate) fn check_subdomain(what: &'static str, name: &str) -> Result<(), InvalidName> {
    let rule = "at most 253 lower case letters, digits, `-` and `.`, with a letter or digit at both ends";
    if is_subdomain(name) { Ok(()) } else { Err(InvalidName { what, name: name.to_owned(), rule }) }
}

/// Checks the name of a Service or traffic tag (DNS-1035), which begins with a letter.
pub(crate) fn check_service_name(what: &'static str, name: &str) -> Result<(), InvalidName> {
    let rule = "at most 63 lower case letters, digits and `-`, beginning with a letter, without `-` at the end";
    let valid = is_dns_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase());
    if valid { Ok(()) } else { Err(InvalidName { what, name: name.to_owned(), rule }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_valid_label_values_and_keys() {
        for value in ["", "a", "A.b-c_9", &"x".repeat(63)] {
            assert_eq!(value_fault(value), None, "{value}");
        }
        for key in ["app", "app.kubernetes.io/name", "tekton.dev/x_y"] {
            assert!(is_key(key), "{key}");
        }
    }

    #[test]
    fn rejects_invalid_label_values_keys_and_names() {
        for value in ["feature/x", "-a", "a-", "a b", "ä", &"x".repeat(64)] {
            assert!(value_fault(value).is_some(), "{value}");
        }
        for key in ["", "/a", "a/", "A_B/c", "a/b/c", "-a"] {
            assert!(!is_key(key), "{key}");
        }
        for name in ["", "A", "a_b", "-a", "a.", "a..b"] {
            assert!(!is_subdomain(name), "{name}");
        }
        assert!(!is_dns_label("a.b"));
    }

    #[test]
    fn rejects_names_that_change_a_path() {
        for name in ["", "ci/pipelineruns?dryRun=All&x=", "he llo", "a%2fb", "..", "A", "-a", "a.b", &"x".repeat(64)] {
            assert!(check_dns_label("--namespace", name).is_err(), "{name}");
            assert!(check_service_name("--service-name", name).is_err(), "{name}");
        }
        assert!(check_dns_label("--namespace", "1a").is_ok() && check_service_name("--service-name", "1a").is_err());
        assert!(check_service_name("--service-name", "hello-sample").is_ok());
    }
}
