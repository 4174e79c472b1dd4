//! `slug(x)`: converts any text to a DNS-1123 label.

/// Maximum length of a DNS-1123 label.
const MAX_LABEL_LENGTH: usize = 63;

/// Converts `text` to a DNS-1123 label: `Feature/Login 2` becomes `feature-login-2`.
///
/// ASCII letters become lower case, and each run of characters other than letters and digits becomes one `-`. Text
/// without any letter or digit becomes `x`.
pub(crate) fn slug(text: &str) -> String {
    let mut slug = String::with_capacity(text.len().min(MAX_LABEL_LENGTH));
    for character in text.chars() {
        if slug.len() == MAX_LABEL_LENGTH {
            break;
        }
        match character.to_ascii_lowercase() {
            kept @ ('a'..='z' | '0'..='9') => slug.push(kept),
            _ if slug.is_empty() || slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    if slug.is_empty() { "x".to_owned() } else { slug }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::slug;
    use crate::names;

    #[test]
    fn converts_branch_to_label() {
        assert_eq!(slug("Feature/Login 2"), "feature-login-2");
        assert_eq!(slug("--a__b--"), "a-b");
        assert_eq!(slug("ü"), "x");
        assert_eq!(slug(&"a".repeat(100)).len(), 63);
        assert_eq!(slug(&format!("{}/b", "a".repeat(62))), "a".repeat(62));
    }

    proptest! {
        #[test]
        fn always_returns_valid_label(text in any::<String>()) {
            prop_assert!(names::is_dns_label(&slug(&text)), "{:?}", slug(&text));
        }
    }
}
